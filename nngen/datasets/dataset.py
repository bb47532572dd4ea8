"""A data set as the rest of the package uses it: its three splits, mapped from the arrays in a folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nngen.datasets.array_files import META, PARTS, content_of, note_file, note_of
from nngen.datasets.class_weights import class_weights
from nngen.datasets.preprocessing import Preprocessing
from nngen.datasets.source import Progress
from nngen.datasets.splits import SPLITS, subset
from nngen.errors import DataError, UsageError
from nngen.files import load_json, store_json
from nngen.types import Shape

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

DAMAGE = (FileNotFoundError, ValueError, LookupError, TypeError, RecursionError)
"""Errors of ``open_dataset`` for a folder whose files are damaged."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """A data set with its three splits, mapped read-only from ``folder``.

    Attributes:
        name: Name as the user types it.
        classes: Number of classes; labels are 0 to ``classes - 1``.
        fingerprint: SHA-256 over the six arrays, in hex.
        default_shape: Shape for training where the user names none.
        mean: Mean of the train split per channel, in [0, 1].
        std: Standard deviation of the train split per channel, in [0, 1].
        folder: Folder of the arrays' files.
        train_images: ``(N, C, H, W)`` uint8, as are those of validation and test.
        train_labels: ``(N,)`` int64, as are those of validation and test.
        class_names: Names of the classes in the order of their labels; empty where they have none.
        span: Values that became 0 and 255, for images of more than 8 bits a channel.
        notes: Sentences on what was read and what was left out, for data sets of the user.
    """

    name: str
    classes: int
    fingerprint: str
    default_shape: Shape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    folder: Path
    train_images: Images
    train_labels: Labels
    validation_images: Images
    validation_labels: Labels
    test_images: Images
    test_labels: Labels
    class_names: tuple[str, ...] = ()
    span: tuple[float, float] = (0, 255)
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> Shape:
        """Shape of the images as they are stored."""
        return Shape(*(int(side) for side in self.train_images.shape[1:]))

    def preprocessing(self, shape: Shape) -> Preprocessing:
        """Return what a network that was trained on these data at ``shape`` needs to classify an image file."""
        return Preprocessing(
            image_shape=self.shape,
            input_shape=shape,
            mean=self.mean,
            std=self.std,
            span=self.span,
            class_names=self.class_names or tuple(map(str, range(self.classes))),
        )

    def describe(self) -> tuple[str, ...]:
        """Return lines for the user on what will be trained on."""
        sizes = ((name, len(getattr(self, f"{name}_labels"))) for name in SPLITS)
        splits = ", ".join(f"{name} {size:,}" for name, size in sizes)
        return (*self.notes, f"{splits} images of {self.shape}, {self.classes} classes")

    def training_images(self, size: int | None) -> int:
        """Return the number of images that a trial of ``TrialSpec.train_size`` trains on.

        Raises:
            UsageError: If the train split has fewer, or a class would be left without an image.
        """
        images = len(self.train_labels)
        if size is None:
            return images
        if size > images:
            raise UsageError(f"--train-size {size:,}: {self.name} has {images:,} training images; leave it out for all")
        if size < max(self.classes, 2):
            raise UsageError(f"--train-size {size}: {self.name} has {self.classes} classes, and each needs an image")
        return size

    def class_weights(self, text: str, size: int | None = None) -> tuple[float, ...]:
        """Return the weight of a training image of each class; see ``nngen.datasets.class_weights``.

        Raises:
            UsageError: If the text has no valid form, or names a class that does not exist.
        """
        labels = self.train_labels if size is None else self.train_labels[subset(self.train_labels, size)]
        return class_weights(text, labels, self.classes, self.class_names)

    def file(self, part: str) -> Path:
        """Return the path of one array: ``train-images``, ``validation-labels``, ..."""
        return self.folder / f"{part}.npy"

    def check_unchanged(self) -> None:
        """Check that the files of the cache still have this fingerprint; it is computed again only if a file changed.

        Raises:
            DataError: If one has other bytes, or was removed.
        """
        note = load_json(note_file(self.folder))
        # Arrays that came from another machine have no note.
        if note is None or note == note_of(self.folder, self.fingerprint):
            return
        try:
            # A backup that makes hard links, say, changes the state of a file and not its bytes.
            unchanged = open_dataset(self.folder).fingerprint == self.fingerprint
        except (OSError, *DAMAGE):
            unchanged = False
        if not unchanged:
            raise DataError(
                f"the stored arrays of {self.name} in {self.folder} changed while they were in use: run it again, which"
                " decodes them anew"
            )


def open_dataset(folder: Path, progress: Progress | None = None) -> Dataset:
    """Map the arrays; compute their fingerprint unless that was done for these very files.

    Raises:
        OSError: If a file is missing.
        ValueError: If the arrays are not those that were stored.
    """
    meta = json.loads((folder / META).read_text())
    arrays: dict[str, Any] = {part: np.load(folder / f"{part}.npy", mmap_mode="r") for part in PARTS}
    note = note_of(folder, meta["fingerprint"])
    if load_json(note_file(folder)) != note:
        computed = content_of(folder, meta["classes"], progress)
        if changed := [key for key, value in computed.items() if meta[key] != value]:
            raise ValueError(f"their {changed[0]} is another one")
        store_json(note_file(folder), note)
    shape = Shape.parse(meta.pop("default_shape"))
    meta.pop("natural", None)  # of earlier versions
    for key in ("mean", "std", "class_names", "notes", "span"):
        if key in meta:  # those of earlier versions lack some
            meta[key] = tuple(meta[key])
    named = {part.replace("-", "_"): array for part, array in arrays.items()}
    return Dataset(**meta, default_shape=shape, folder=folder, **named)
