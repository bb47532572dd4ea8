"""Rules that run a candidate inside a worker."""
