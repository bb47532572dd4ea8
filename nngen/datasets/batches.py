"""Batches for ``learn``: bytes of images, on the device or in their file, that are prepared on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from nngen.datasets.augmentation import altered, mirrored
from nngen.datasets.class_weights import weighted_order
from nngen.datasets.stored_images import StoredImages
from nngen.errors import DataError
from nngen.seeds import derive
from nngen.types import Shape

_EVERY = 50  # batches between two calls of ``on_batch``; the first call is after one batch

_NARROW = 64  # largest side at which a resize on the CPU is faster as two matrix products; measured: 96 px is slower


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """Conversion of stored bytes to the input of a net: channels, size, normalisation, layout."""

    shape: Shape  # shape of the images that the net gets
    mean: tuple[float, ...]  # mean per stored channel, in [0, 1]
    std: tuple[float, ...]  # standard deviation per stored channel, in [0, 1]
    channels_last: bool = False  # whether batches have that memory format (CUDA's fast one)

    def __call__(self, images: Tensor) -> Tensor:
        """Convert ``(B, C, H, W)`` uint8 to normalised float32 of ``shape``, on the same device.

        The resize is bilinear (antialiased when it shrinks), within 1/255 of Pillow's.

        Raises:
            DataError: If the stored channels cannot become the wanted ones.
        """
        batch = images.float().div_(255)
        batch = batch.sub_(_constants(self.mean, batch.device)).div_(_constants(self.std, batch.device))
        size = (self.shape.height, self.shape.width)
        if tuple(batch.shape[2:]) != size:
            batch = _resized(batch, size)
        if batch.shape[1] != self.shape.channels:
            check_channels(batch.shape[1], self.shape)
            batch = batch.repeat(1, self.shape.channels, 1, 1)
        if self.channels_last:
            return batch.contiguous(memory_format=torch.channels_last)
        return batch


@lru_cache
def _constants(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return one value per channel on the device, ``(1, C, 1, 1)``; cached."""
    return torch.tensor(values, device=device).view(1, -1, 1, 1)


def _resized(batch: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize ``(B, C, h, w)`` float32 to ``(B, C, H, W)``."""
    stored = (batch.shape[2], batch.shape[3])
    shrinks = size[0] < stored[0] or size[1] < stored[1]
    if batch.device.type == "cpu" and not shrinks and max(stored) <= _NARROW:
        rows, columns = (_weights(old, new) for old, new in zip(stored, size, strict=True))
        return (rows @ batch) @ columns.T  # (H, h) @ (B, C, h, w) @ (w, W)
    return interpolate(batch, size=size, mode="bilinear", align_corners=False, antialias=shrinks)


@lru_cache
def _weights(stored: int, wanted: int) -> Tensor:
    """Return the weight of each stored line in each wanted one, ``(wanted, stored)``: the resize of the identity."""
    return interpolate(torch.eye(stored)[None], size=wanted, mode="linear", align_corners=False)[0].T.contiguous()


def check_channels(stored: int, shape: Shape) -> None:
    """Check that images of ``stored`` channels can be converted to ``shape``.

    Raises:
        DataError: If they cannot: one channel may be repeated, several cannot be made fewer.
    """
    if stored not in (1, shape.channels):
        raise DataError(
            f"the images have {stored} channels and cannot become {shape}:"
            f" take --shape {stored}x{shape.height}x{shape.width}"
        )


class Batches:
    """The ``train_data`` of ``learn(train_data)``: it has a length, can be iterated again, and yields pairs of tensors.

    As in LEMUR's loader, each iteration is shuffled anew and the last batch may be smaller. A last
    batch of one sample is left out, because batch normalisation cannot be trained on it.

    Attributes:
        batch_size: Samples per batch.
        samples: Samples that were handed out until now, over all iterations.

    Args:
        images: ``(N, C, H, W)`` uint8, on the device or in their file.
        labels: ``(N,)`` int64, on the device.
        prepare: Conversion of stored images to input.
        batch: Samples per batch.
        seed: Seed of this epoch; each iteration derives its own order from it.
        augment: Random changes of the images, a name of ``AUGMENTATIONS``.
        weights: Weight of an image of each class; empty where all count alike.
        on_batch: Called every 50 batches with the number of batches that were yielded; an exception ends the pass.
    """

    def __init__(
        self,
        images: Tensor | StoredImages,
        labels: Tensor,
        prepare: Preparation,
        *,
        batch: int,
        seed: int,
        augment: str = "none",
        weights: Sequence[float] = (),
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        self.batch_size = batch
        self._images = images
        self._labels = labels
        self._prepare = prepare
        self._seed = seed
        self._augment = augment
        self._weights, self._classes = weights, labels.cpu() if weights else labels
        self._on_batch = on_batch
        self._passes = 0
        self.samples = 0

    def __len__(self) -> int:
        """Return the number of batches of one pass."""
        full, rest = divmod(len(self._labels), self.batch_size)
        return full + (rest > 1)

    @property
    def dataset(self) -> Sequence[int]:
        """Stand-in for the samples, with their number as its length."""
        return range(len(self._labels))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised float32 images ``(B, C, H, W)`` and int64 labels ``(B,)``."""
        generator = torch.Generator().manual_seed(derive(self._seed, "pass", self._passes))
        self._passes += 1
        if self._weights:
            order = weighted_order(self._classes, self._weights, generator)
        else:
            order = torch.randperm(len(self._labels), generator=generator)
        parts = torch.split(order.to(self._labels.device, non_blocking=True), self.batch_size)[: len(self)]
        images = self._images
        stored: Iterator[Tensor]
        if isinstance(images, Tensor):
            stored = (images[part] for part in parts)
        else:
            stored = images.batches(torch.split(order, self.batch_size)[: len(self)])
        for index, (part, batch) in enumerate(zip(parts, stored, strict=True)):
            if self._on_batch is not None and (index == 1 or (index and index % _EVERY == 0)):
                self._on_batch(index)
            self.samples += len(part)
            batch = self._prepare(altered(batch, self._augment, generator))
            if self._augment.endswith("flip"):
                batch = mirrored(batch, generator)
            yield batch, self._labels[part]
