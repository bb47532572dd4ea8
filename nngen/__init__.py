"""nngen: mixtures of experts assembled from LEMUR's families, checked, trained and explained."""

__version__ = "0.1.0"
