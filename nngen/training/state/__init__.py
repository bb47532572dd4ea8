"""Trained state of a net: checkpoints, kept weights, files taken from a worker, and the model made from them."""
