"""Interface of the sources of data sets, and what a source returns: images, labels and splits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from nngen.types import Shape

if TYPE_CHECKING:
    from nngen.datasets.image_files.decoding import ImageFiles  # loads Pillow, which help does without

Images: TypeAlias = "npt.NDArray[np.uint8] | ImageFiles"
"""Images of a split, ``(N, C, H, W)``: in memory, or files that are decoded when they are stored."""

Progress: TypeAlias = Callable[[int, int], None]
"""Receives (done, total) while images are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A data set as it is asked for."""

    name: str  # registered name; for one with a colon, the user's text stands after the colon
    root: Path  # folder of the files that were downloaded, or are put there by the user
    shape: Shape | None = None  # shape of the images in the training; None for the data set's own
    progress: Progress | None = None  # receives (done, total) while images are read


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """Images and labels of a data set, before the splits that it lacks are taken from the training images."""

    classes: int  # number of classes
    images: Images  # training images
    labels: npt.NDArray[np.int64]  # training labels, ``(N,)`` int64
    # validation images; None where the source has no validation split of its own
    validation_images: Images | None = None
    # validation labels; None where the source has no validation split of its own
    validation_labels: npt.NDArray[np.int64] | None = None
    test_images: Images | None = None  # test images; None where the source has no test split of its own
    test_labels: npt.NDArray[np.int64] | None = None  # test labels; None where the source has no test split of its own
    class_names: tuple[str, ...] = ()  # names of the classes in the order of their labels; empty where they have none
    span: tuple[float, float] = (0, 255)  # values that became 0 and 255, for images of more than 8 bits a channel
    split_name: str = ""  # name from which missing splits are drawn; that of the data set where empty
    notes: tuple[str, ...] = ()  # sentences for the user on what was read, and what was left out


class Source(Protocol):
    """A data set that can be read.

    Attributes:
        name: Name as the user types it.
        default_shape: Shape for training where the user names none; None takes the images' own.
    """

    @property
    def name(self) -> str: ...
    @property
    def default_shape(self) -> Shape | None: ...

    def key(self) -> str:
        """Return a key of the content on the disk; another content has another key."""

    def decode(self) -> Raw:
        """Read labels and splits, and the images or what is needed to decode them.

        Raises:
            DataError: If something is missing, broken or too small.
        """
