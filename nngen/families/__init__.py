"""Base families, LEMUR's and the user's: catalogue, functions for mixtures, probes and proofs, costs, near-twins."""
