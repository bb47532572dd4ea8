"""Makes a family's code read as new code does, while it computes what it did (docs/design/0008 and 0016)."""
