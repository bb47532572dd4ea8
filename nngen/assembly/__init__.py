"""A plan becomes one self-contained PyTorch file."""
