"""Base families, LEMUR's and the user's: catalogue, hyperparameters, measured interfaces and costs, near-twins."""
