"""The router explorer: static in the page, live on a routed model."""
