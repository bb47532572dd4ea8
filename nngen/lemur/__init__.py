"""LEMUR's models and results, read in place from its wheel, a checkout or its database."""
