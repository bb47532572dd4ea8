"""Interface of the sources of data sets, and the decoded images that a source returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from nngen.types import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """A decoded data set, before its validation split is taken from the training images.

    Attributes:
        images: Training images, ``(N, C, H, W)`` uint8.
        labels: Training labels, ``(N,)`` int64.
        test_images: Test images; None where the source has no test split of its own.
        test_labels: Test labels; None where the source has no test split of its own.
    """

    classes: int
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    test_images: npt.NDArray[np.uint8] | None = None
    test_labels: npt.NDArray[np.int64] | None = None


class Source(Protocol):
    """A data set that can be decoded.

    Attributes:
        name: Name as the user types it.
        natural: Whether a mirrored image is as good as the image itself (photographs, not digits).
        default_shape: Shape for training where the user names none; None takes the images' own.
    """

    @property
    def name(self) -> str: ...
    @property
    def natural(self) -> bool: ...
    @property
    def default_shape(self) -> Shape | None: ...

    def key(self) -> str:
        """Return a key of the content on the disk; another content has another key."""

    def decode(self) -> Raw:
        """Read every image.

        Raises:
            DataError: If something is missing, broken or too small.
        """
