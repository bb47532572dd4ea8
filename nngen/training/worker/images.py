"""Images and labels of a worker: opened, held on the device where they fit, prepared for the net, read in order."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from nngen.datasets.array_files import WORKER_FILES
from nngen.datasets.batches import Preparation
from nngen.datasets.splits import subset
from nngen.datasets.stored_images import StoredImages
from nngen.isolation.limits import MIB
from nngen.training.orders import TrainOrder
from nngen.training.worker import numerics


def open_images(files: list[int], order: TrainOrder) -> tuple[Tensor, dict[str, Tensor | StoredImages]]:
    """Open ``WORKER_FILES``; return the labels of the train split, and the images by part."""
    device = torch.device(order.device)
    numbers = dict(zip(WORKER_FILES, files, strict=False))
    with os.fdopen(numbers.pop("train-labels"), "rb") as file:
        labels, chosen = torch.from_numpy(np.load(file)), None
    if order.train_size is not None:
        chosen = torch.from_numpy(subset(labels.numpy(), order.train_size))
        labels = labels[chosen]
    stored = [
        StoredImages(number, device, chosen if part == "train-images" else None) for part, number in numbers.items()
    ]
    return labels.to(device), dict(zip(numbers, fitting(stored, order), strict=True))


def fitting(stored: list[StoredImages], order: TrainOrder) -> list[Tensor] | list[StoredImages]:
    """Return images whole on the device where they fit there together, else as they are, in their files."""
    if sum(images.nbytes for images in stored) > order.whole_mib * MIB:
        return stored
    return [images.whole() for images in stored]


def preparation(order: TrainOrder) -> Preparation:
    """Return the conversion of stored images to the net's input."""
    return Preparation(shape=order.shape, mean=order.mean, std=order.std, channels_last=numerics.on_card(order.device))


def in_order(images: Tensor | StoredImages, size: int) -> Iterator[Tensor]:
    """Yield images on the device, at most ``size`` at a time."""
    if isinstance(images, Tensor):
        yield from torch.split(images, size)
    else:
        yield from images.batches(torch.split(torch.arange(len(images)), size))
