"""Image data sets: torchvision's, scikit-learn's digits and folders of images, decoded once and kept in memory."""

from __future__ import annotations

from nngen.datasets.dataset import Dataset, load_dataset

__all__ = ["Dataset", "load_dataset"]
