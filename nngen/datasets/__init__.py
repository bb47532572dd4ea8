"""Image data sets, decoded once into the cache, split the same way for every trial, and batched on the device."""

from __future__ import annotations

from nngen.datasets.dataset import Dataset
from nngen.datasets.loading import load_dataset

__all__ = ["Dataset", "load_dataset"]
