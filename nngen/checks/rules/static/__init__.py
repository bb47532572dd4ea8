"""Rules that read a source without running it."""
