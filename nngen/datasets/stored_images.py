"""Images of a split in their file: read whole onto the device, or batch by batch where they are too many for it."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from weakref import finalize

import numpy as np
import torch
from torch import Tensor


class StoredImages:
    """Images of a split, ``(N, C, H, W)`` uint8, in an ``.npy`` file.

    Args:
        descriptor: Descriptor of the file, which this object closes.
        device: Device that images are moved to.
        chosen: Places in the file of the images that belong to the split, ``(N,)`` int64; all by default.
    """

    def __init__(self, descriptor: int, device: torch.device, chosen: Tensor | None = None) -> None:
        self._number = descriptor
        self._close = finalize(self, os.close, descriptor)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            np.lib.format.read_magic(file)
            self._stored, _, _ = np.lib.format.read_array_header_1_0(file)
            self._start = file.tell()
        self._device = device
        self._chosen = chosen

    def __len__(self) -> int:
        return self._stored[0] if self._chosen is None else len(self._chosen)

    @property
    def nbytes(self) -> int:
        """Bytes of all images."""
        return len(self) * math.prod(self._stored[1:])

    def whole(self) -> Tensor:
        """Return all images on the device, and close the file.

        On a CPU they are mapped copy-on-write: pages are shared with other workers, and what this one writes is not.
        """
        with os.fdopen(self._number, "rb", closefd=False) as file:
            images = torch.from_numpy(np.memmap(file, np.uint8, "c", self._start, self._stored))
        self._close()
        return (images if self._chosen is None else images[self._chosen]).to(self._device)

    def batches(self, parts: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the images of each part on the device; the next part is read meanwhile.

        They are read and not mapped: pages that a process maps count as its memory.
        """
        waiting: deque[Future[Tensor]] = deque()
        with ThreadPoolExecutor(1) as reader:
            for part in parts:
                waiting.append(reader.submit(self._read, part))
                if len(waiting) > 1:
                    yield waiting.popleft().result().to(self._device, non_blocking=True)
            while waiting:
                yield waiting.popleft().result().to(self._device, non_blocking=True)

    def _read(self, part: Tensor) -> Tensor:
        number, length = self._number, math.prod(self._stored[1:])
        places = (part if self._chosen is None else self._chosen[part]).tolist()
        offsets = [self._start + place * length for place in places]
        for offset in offsets:  # a disk answers many requests sooner than one after the other
            os.posix_fadvise(number, offset, length, os.POSIX_FADV_WILLNEED)
        # From pinned memory the copy to a card does not wait.
        images = torch.empty(
            (len(places), *self._stored[1:]), dtype=torch.uint8, pin_memory=self._device.type == "cuda"
        )
        for offset, row in zip(offsets, images.numpy(), strict=True):
            if os.preadv(number, [row], offset) != length:
                raise OSError("the file of the images is shorter than it was")
        return images
