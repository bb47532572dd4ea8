"""LEMUR's base families: catalogue, probed interfaces, memory and recorded hyperparameters."""
