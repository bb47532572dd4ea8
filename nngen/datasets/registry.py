"""Registry of data sets: one entry in ``DATASETS`` adds one; names, help and error messages are made from it."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nngen.datasets.source import Raw, Source
from nngen.errors import DataError, UsageError
from nngen.files import read_regular
from nngen.text import did_you_mean
from nngen.types import Shape

_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_IDX_TYPE_UINT8 = 0x08
_LONGEST_IDX = 64 * 2**20  # MNIST's images have 45 MiB


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """One entry of the registry.

    Attributes:
        summary: Description for help, in a few words.
        source: Makes the source from the name as typed and the folder of torchvision's files.
    """

    summary: str
    source: Callable[[str, Path], Source]


def dataset_help() -> str:
    """Return the names of all data sets with their descriptions, for a command's help."""
    return ", ".join(f"{name} ({entry.summary})" for name, entry in DATASETS.items())


def find_source(name: str, root: Path) -> Source:
    """Return the source of a data set.

    Args:
        name: A name of ``DATASETS``; for one with a colon (``folder:PATH``), the user's text stands after the colon.
        root: The folder of torchvision's files.

    Raises:
        UsageError: If no data set has this name.
    """
    prefix = name.partition(":")[:2]
    for known, entry in DATASETS.items():
        if known == name or (":" in name and known.partition(":")[:2] == prefix):
            return entry.source(name, root)
    near = did_you_mean(name, DATASETS)
    raise UsageError(f"no data set is called {name!r}: choose {', '.join(DATASETS)}" + (f"; {near}" if near else ""))


class DigitsSource:
    """The 1,797 handwritten digits, 8x8, that scikit-learn ships."""

    name = "digits"
    natural = False
    default_shape = Shape(1, 32, 32)

    def key(self) -> str:
        return version("scikit-learn")

    def decode(self) -> Raw:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        scaled = np.rint(images * (255 / 16)).astype(np.uint8)  # stored as 0..16
        return Raw(classes=10, images=scaled.reshape(-1, 1, 8, 8), labels=labels.astype(np.int64))


@dataclass(frozen=True)
class IdxSource:
    """MNIST or Fashion-MNIST from four IDX files, gzipped or not; ``vision`` is the name of torchvision's class."""

    name: str
    root: Path
    vision: str
    more: tuple[Path, ...] = ()
    natural = False
    default_shape = None

    def key(self) -> str:
        digest = hashlib.sha256()
        for path in self._files():
            digest.update(_bytes(path))
        return digest.hexdigest()

    def decode(self) -> Raw:
        images, labels, test_images, test_labels = (_read_idx(path) for path in self._files())
        for kind, axes, arrays in (("images", 3, (images, test_images)), ("labels", 1, (labels, test_labels))):
            if any(array.ndim != axes or not array.size for array in arrays):
                raise DataError(f"{self.name}: a file of {kind} holds something else; fetch the four files anew")
        if len(images) != len(labels) or len(test_images) != len(test_labels):
            raise DataError(f"{self.name}: images and labels differ in number; fetch the four files anew")
        return Raw(
            classes=int(labels.max()) + 1,
            images=images[:, None],
            labels=labels.astype(np.int64),
            test_images=test_images[:, None],
            test_labels=test_labels.astype(np.int64),
        )

    def _files(self) -> tuple[Path, ...]:
        found = self._find()
        if not found:
            _download(self.name, self.root, self.vision)
            found = self._find()
        if not found:
            raise DataError(f"{self.name}: torchvision downloaded no IDX files to {self.root}")
        return found

    def _find(self) -> tuple[Path, ...]:
        folder = self.root / self.vision
        parts = [f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
        for place in (folder / "raw", folder, self.root / self.name, self.root, *self.more):
            files = [file for part in parts for file in (place / part, place / f"{part}.gz") if file.is_file()]
            # With both forms of one file, the plain one comes first and wins.
            chosen = {file.name.removesuffix(".gz"): file for file in reversed(files)}
            if len(chosen) == len(parts):
                return tuple(chosen[part] for part in parts)
        return ()


@dataclass(frozen=True)
class VisionSource:
    """CIFAR or SVHN through torchvision's own readers; ``vision`` is the name of torchvision's class."""

    name: str
    root: Path
    vision: str
    classes: int
    files: str
    natural: bool = True
    default_shape = None

    def key(self) -> str:
        # The content is fixed: torchvision accepts no files but those with the published MD5 sums.
        return self.files

    def decode(self) -> Raw:
        images, labels = self._read(train=True)
        test_images, test_labels = self._read(train=False)
        return Raw(classes=self.classes, images=images, labels=labels, test_images=test_images, test_labels=test_labels)

    def _read(self, *, train: bool) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        import torchvision

        # SVHN differs from the CIFARs in three names and in the order of its axes.
        svhn = self.vision == "SVHN"
        part: dict[str, Any] = {"split": "train" if train else "test"} if svhn else {"train": train}
        try:
            data = getattr(torchvision.datasets, self.vision)(self.root, **part)
        except (OSError, RuntimeError):  # torchvision's error for "not found or corrupted"
            data = _download(self.name, self.root, self.vision, **part)
        images = np.asarray(data.data, dtype=np.uint8)
        labels = np.asarray(data.labels if svhn else data.targets, dtype=np.int64)
        return (images if svhn else images.transpose(0, 3, 1, 2)), labels


def _folder_source(name: str, _: Path) -> Source:
    from nngen.datasets.image_folder import FolderSource  # Pillow is loaded for this data set alone

    kind, folder = name.split(":", 1)
    return FolderSource(Path(folder).expanduser(), skip_unreadable=kind == "readable-folder")


DATASETS: dict[str, DatasetEntry] = {
    "digits": DatasetEntry("1,797 handwritten digits, 8x8, shipped with scikit-learn", lambda *_: DigitsSource()),
    "fashion-mnist": DatasetEntry(
        "70,000 articles of clothing, 1x28x28", lambda name, root: IdxSource(name, root, "FashionMNIST", (_DEBIAN,))
    ),
    "mnist": DatasetEntry("70,000 handwritten digits, 1x28x28", lambda name, root: IdxSource(name, root, "MNIST")),
    "cifar-10": DatasetEntry(
        "60,000 photographs in 10 classes, 3x32x32",
        lambda name, root: VisionSource(name, root, "CIFAR10", 10, "cifar-10-batches-py"),
    ),
    "cifar-100": DatasetEntry(
        "60,000 photographs in 100 classes, 3x32x32",
        lambda name, root: VisionSource(name, root, "CIFAR100", 100, "cifar-100-python"),
    ),
    "svhn": DatasetEntry(
        "99,289 house numbers, 3x32x32",
        lambda name, root: VisionSource(name, root, "SVHN", 10, "*_32x32.mat", natural=False),
    ),
    "folder:PATH": DatasetEntry("images in one folder per class, inside of train, val and test or not", _folder_source),
    "readable-folder:PATH": DatasetEntry("the same without the images that cannot be read", _folder_source),
}
"""The data sets by name, in the order of help; a name with a colon takes the user's text after the colon."""


def _download(name: str, root: Path, vision: str, **part: Any) -> Any:
    import torchvision

    try:
        root.mkdir(parents=True, exist_ok=True)
        return getattr(torchvision.datasets, vision)(root, download=True, **part)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{name} is not under {root} and cannot be downloaded ({reason}): put torchvision's files into a folder"
            " and name it with --data-root"
        ) from error


def _bytes(path: Path) -> bytes:
    try:
        content = read_regular(path, _LONGEST_IDX + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > _LONGEST_IDX:
        raise DataError(f"{path} is longer than {_LONGEST_IDX // 2**20} MiB, which no file of MNIST is")
    return content


def _read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read an IDX file of bytes (yann.lecun.com/exdb/mnist): magic, sizes, then the values.

    torchvision's reader takes neither gzipped files nor broken ones by name.
    """
    data = _bytes(path)
    try:
        if path.suffix == ".gz":
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(_LONGEST_IDX + 1)
            if len(data) > _LONGEST_IDX:
                raise ValueError(f"it unpacks to more than {_LONGEST_IDX // 2**20} MiB")
        if data[:3] != bytes((0, 0, _IDX_TYPE_UINT8)):
            raise ValueError("it does not begin like an IDX file of bytes")
        axes = data[3]
        sizes = np.frombuffer(data, ">u4", axes, offset=4).astype(int)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(sizes)
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise DataError(f"{path} is broken: {error}; fetch it anew") from error
