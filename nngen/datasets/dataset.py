"""Data sets: decoded once into raw ``.npy`` files, checked, and mapped into memory by every worker.

A folder of the cache holds one data set: ``{train,validation,test}-{images,labels}.npy`` and ``meta.json``.
Images and labels lie in separate files, so that a worker can be given the one without the other.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nngen.datasets.registry import Raw, Source, find_source
from nngen.datasets.split import split
from nngen.errors import DataError
from nngen.files import cache_dir
from nngen.types import Shape

__all__ = ["WORKER_FILES", "Dataset", "load_dataset", "store_dataset"]

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

WORKER_FILES = ("train-images", "train-labels", "validation-images", "test-images")
"""The arrays that a worker is given, in the order of their descriptors. No other labels are among them."""

_SPLITS = ("train", "validation", "test")
_LAYOUT = 1
_META = "meta.json"
_SMALL = 5_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """A data set with its three splits, mapped read-only from ``folder``.

    Attributes:
        classes: Number of classes; labels are 0 to ``classes - 1``.
        fingerprint: SHA-256 over the six arrays, in hex.
        natural: Whether a mirrored image is as good as the image itself (photographs, not digits).
        default_shape: What images are brought to where the user says nothing.
        mean: Of the train split, per channel, in [0, 1].
        std: Likewise.
        folder: Holds the arrays as files.
        train_images: ``(N, C, H, W)`` uint8; validation and test likewise.
        train_labels: ``(N,)`` int64; validation and test likewise.
    """

    name: str
    classes: int
    fingerprint: str
    natural: bool
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

    @property
    def shape(self) -> Shape:
        """Of the images as they are stored."""
        return Shape(*(int(side) for side in self.train_images.shape[1:]))

    def file(self, part: str) -> Path:
        """Path of one array: ``train-images``, ``validation-labels``, ..."""
        return self.folder / f"{part}.npy"


def load_dataset(name: str, *, data_root: Path | None = None) -> Dataset:
    """Load a data set, decoding it into the cache the first time.

    Args:
        name: ``digits``, ``fashion-mnist``, ``mnist``, ``cifar-10``, ``cifar-100``, ``svhn`` or ``folder:PATH``.
        data_root: Where torchvision's files lie or are downloaded to.

    Raises:
        UsageError: If no data set has this name; the message lists those that have.
        DataError: If it is missing, broken or too small.
    """
    source = find_source(name, data_root or cache_dir() / "torchvision")
    key = hashlib.sha256(f"{_LAYOUT} {source.name} {source.key()}".encode()).hexdigest()[:16]
    folder = cache_dir() / "data" / f"{source.name.partition(':')[0]}-{key}"
    if (folder / _META).is_file():
        try:
            return _open(folder)
        except (OSError, ValueError, KeyError, TypeError):
            shutil.rmtree(folder, ignore_errors=True)
    return store_dataset(source, folder)


def store_dataset(source: Source, folder: Path) -> Dataset:
    """Decode a source, split it and write it to ``folder``, all or nothing.

    Raises:
        DataError: If the source is broken or too small, or the folder cannot be written.
    """
    raw = source.decode()
    arrays = _splits(source.name, raw)
    meta = {
        "name": source.name,
        "classes": raw.classes,
        "fingerprint": _fingerprint(arrays, raw.classes),
        "natural": source.natural,
        "default_shape": str(source.default_shape or Shape(*arrays["train-images"].shape[1:])),
        **_statistics(arrays["train-images"]),
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=folder.parent))
        try:
            for part, array in arrays.items():
                np.save(draft / f"{part}.npy", array)
            (draft / _META).write_text(json.dumps(meta))
            draft.chmod(0o755)
            _publish(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return _open(folder)
    except OSError as error:
        raise DataError(f"{source.name} cannot be kept in {folder.parent}: {error}; set NNGEN_CACHE") from error


def _publish(draft: Path, folder: Path) -> None:
    try:
        os.replace(draft, folder)  # noqa: PTH105 - Path.replace says the same with less of a name
    except OSError:
        # Another process was first with the same content.
        if not (folder / _META).is_file():
            raise


def _open(folder: Path) -> Dataset:
    meta = json.loads((folder / _META).read_text())
    arrays: dict[str, Any] = {
        f"{part}_{kind}": np.load(folder / f"{part}-{kind}.npy", mmap_mode="r")
        for part in _SPLITS
        for kind in ("images", "labels")
    }
    return Dataset(
        name=meta["name"],
        classes=meta["classes"],
        fingerprint=meta["fingerprint"],
        natural=meta["natural"],
        default_shape=Shape.parse(meta["default_shape"]),
        mean=tuple(meta["mean"]),
        std=tuple(meta["std"]),
        folder=folder,
        **arrays,
    )


def _splits(name: str, raw: Raw) -> dict[str, npt.NDArray[Any]]:
    images, labels, test_images, test_labels = raw.images, raw.labels, raw.test_images, raw.test_labels
    if raw.classes < 2:
        raise DataError(f"{name} has {raw.classes} class; at least 2 are needed")
    if test_images is None or test_labels is None:
        stay, taken = split(labels, 0.2, f"{name} test")
        test_images, test_labels = images[taken], labels[taken]
        images, labels = images[stay], labels[stay]
    # Few images need the larger share, or the accuracy on them says nothing.
    stay, taken = split(labels, 0.2 if len(labels) < _SMALL else 0.1, f"{name} validation")
    return {
        "train-images": np.ascontiguousarray(images[stay]),
        "train-labels": labels[stay],
        "validation-images": np.ascontiguousarray(images[taken]),
        "validation-labels": labels[taken],
        "test-images": np.ascontiguousarray(test_images),
        "test-labels": test_labels,
    }


def _fingerprint(arrays: Mapping[str, npt.NDArray[Any]], classes: int) -> str:
    digest = hashlib.sha256(f"classes {classes}".encode())
    for part, array in sorted(arrays.items()):
        digest.update(f"{part} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _statistics(images: Images) -> dict[str, list[float]]:
    """Mean and standard deviation per channel, exact: counted over the 256 values a byte can have."""
    values = np.arange(256) / 255
    mean, std = [], []
    for channel in range(images.shape[1]):
        weights = np.bincount(images[:, channel].ravel(), minlength=256) / images[:, channel].size
        centre = float(weights @ values)
        mean.append(centre)
        std.append(max(float(weights @ (values - centre) ** 2) ** 0.5, 1e-3))
    return {"mean": mean, "std": std}
