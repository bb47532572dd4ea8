"""Check rules, one module each."""
