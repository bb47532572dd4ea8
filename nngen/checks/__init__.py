"""What a candidate must fulfil, one rule per file."""
