"""Predictors of a mixture's accuracy that need no training of the mixture."""
