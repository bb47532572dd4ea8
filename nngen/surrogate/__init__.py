"""Predictors of accuracy that need no training of the mixture itself."""
