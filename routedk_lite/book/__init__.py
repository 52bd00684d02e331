"""What only chapters need: their set-up, figures, exercises and the router explorer."""
