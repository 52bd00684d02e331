"""Runs and records: what a study consists of, how each run is made, and what is kept of it."""
