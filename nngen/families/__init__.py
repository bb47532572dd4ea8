"""Base families, LEMUR's and the user's: catalogue, functions of them for mixtures, probes and proofs, costs, near-twins."""
