"""Batches at the device's speed: the whole split stays there as bytes; each batch is made of it on the fly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from nngen.errors import DataError
from nngen.seeds import derive
from nngen.types import Shape

__all__ = ["Batches", "Preparation", "check_channels"]

_EVERY = 50
"""Batches between two looks of whoever watches; the first is after one batch."""

_NARROW = 64
"""Up to this side, a resize on the CPU is faster as two products of matrices; measured, 96 px is slower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """How stored bytes become what a net sees: channels, size, normalisation, layout.

    Attributes:
        mean: Per stored channel, in [0, 1].
        std: Likewise.
        channels_last: Whether batches come in that memory format (CUDA's fast one).
    """

    shape: Shape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels_last: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """Turn ``(B, C, H, W)`` uint8 into normalised float32 of ``shape``, on the same device.

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
    """Keep a value per channel on the device, ``(1, C, 1, 1)``."""
    return torch.tensor(values, device=device).view(1, -1, 1, 1)


def _resized(batch: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring ``(B, C, h, w)`` float32 to ``(B, C, H, W)``."""
    stored = (batch.shape[2], batch.shape[3])
    shrinks = size[0] < stored[0] or size[1] < stored[1]
    if batch.device.type == "cpu" and not shrinks and max(stored) <= _NARROW:
        rows, columns = (_weights(old, new) for old, new in zip(stored, size, strict=True))
        return (rows @ batch) @ columns.T  # (H, h) @ (B, C, h, w) @ (w, W)
    return interpolate(batch, size=size, mode="bilinear", align_corners=False, antialias=shrinks)


@lru_cache
def _weights(stored: int, wanted: int) -> Tensor:
    """Share of each stored line in each wanted one, ``(wanted, stored)``: what the resize makes of lines of one 1."""
    return interpolate(torch.eye(stored)[None], size=wanted, mode="linear", align_corners=False)[0].T.contiguous()


def check_channels(stored: int, shape: Shape) -> None:
    """Make sure that images of ``stored`` channels can be brought to ``shape``.

    Raises:
        DataError: If they cannot: one channel may be repeated, several cannot be made fewer.
    """
    if stored not in (1, shape.channels):
        raise DataError(
            f"the images have {stored} channels and cannot become {shape}:"
            f" take --shape {stored}x{shape.height}x{shape.width}"
        )


class Batches:
    """What ``learn(train_data)`` is handed: it has a length, can be iterated again, and yields two tensors.

    It behaves as LEMUR's loader does: shuffled anew by each iteration, the last batch smaller. A last
    batch of one sample is left out, because batch normalisation cannot be trained on it.

    Args:
        images: ``(N, C, H, W)`` uint8, on the device.
        labels: ``(N,)`` int64, on the device.
        batch: Samples per batch.
        seed: Of this epoch; each iteration derives its own order from it.
        flip: Whether each image is mirrored with probability one half.
        watch: Called now and then with the number of batches that were trained on; what it raises ends the pass.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        prepare: Preparation,
        *,
        batch: int,
        seed: int,
        flip: bool = False,
        watch: Callable[[int], None] | None = None,
    ) -> None:
        self.batch_size = batch
        self._images = images
        self._labels = labels
        self._prepare = prepare
        self._seed = seed
        self._flip = flip
        self._watch = watch
        self._passes = 0

    def __len__(self) -> int:
        """Number of batches of one pass."""
        full, rest = divmod(len(self._labels), self.batch_size)
        return full + (rest > 1)

    @property
    def dataset(self) -> Sequence[int]:
        """Stands for the samples: it has their number as its length."""
        return range(len(self._labels))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised float32 images ``(B, C, H, W)`` and int64 labels ``(B,)``."""
        generator = torch.Generator().manual_seed(derive(self._seed, "pass", self._passes))
        self._passes += 1
        order = torch.randperm(len(self._labels), generator=generator)
        for index in range(len(self)):
            if self._watch is not None and (index == 1 or (index and index % _EVERY == 0)):
                self._watch(index)
            chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
            mirrored = torch.rand(len(chosen), generator=generator) < 0.5 if self._flip else None
            yield self._make(chosen, mirrored)

    def _make(self, chosen: Tensor, mirrored: Tensor | None) -> tuple[Tensor, Tensor]:
        place = self._labels.device
        chosen = chosen.to(place, non_blocking=True)
        images = self._prepare(self._images[chosen])
        if mirrored is not None:
            images = torch.where(mirrored.to(place).view(-1, 1, 1, 1), images.flip(3), images)
        return images, self._labels[chosen]
