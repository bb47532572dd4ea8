"""Where images come from: scikit-learn, torchvision's files, Debian's package, a folder per class."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nngen.errors import DataError, UsageError
from nngen.types import Shape

__all__ = ["NAMES", "Raw", "Source", "find_source"]

NAMES = ("digits", "fashion-mnist", "mnist", "cifar-10", "cifar-100", "svhn", "folder:PATH")
"""The data sets that can be named."""

_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_IDX_TYPE_UINT8 = 0x08


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """A decoded data set before its validation split is carved off.

    Attributes:
        images: ``(N, C, H, W)`` uint8.
        labels: ``(N,)`` int64.
        test_images: None where the source has no test split of its own.
    """

    classes: int
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    test_images: npt.NDArray[np.uint8] | None = None
    test_labels: npt.NDArray[np.int64] | None = None


class Source(Protocol):
    """A data set that can be decoded."""

    @property
    def name(self) -> str: ...
    @property
    def natural(self) -> bool: ...
    @property
    def default_shape(self) -> Shape | None: ...

    def key(self) -> str:
        """Name the content as it lies on the disk; another content has another key."""

    def decode(self) -> Raw:
        """Read every image.

        Raises:
            DataError: If something is missing, broken or too small.
        """


def find_source(name: str, root: Path) -> Source:
    """Find the source of a data set.

    Raises:
        UsageError: If no data set has this name.
    """
    if name.startswith("folder:"):
        from nngen.datasets.image_folder import FolderSource

        return FolderSource(Path(name.removeprefix("folder:")).expanduser())
    if name == "digits":
        return DigitsSource()
    if name in ("mnist", "fashion-mnist"):
        return IdxSource(name, root)
    if name in _VISION:
        return VisionSource(name, root)
    raise UsageError(f"no data set is called {name!r}: choose {', '.join(NAMES)}")


class DigitsSource:
    """The 1,797 handwritten digits, 8x8, that scikit-learn ships."""

    name = "digits"
    natural = False
    default_shape = Shape(1, 32, 32)

    def key(self) -> str:
        from importlib.metadata import version

        return version("scikit-learn")

    def decode(self) -> Raw:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        scaled = np.rint(images * (255 / 16)).astype(np.uint8)  # stored as 0..16
        return Raw(classes=10, images=scaled.reshape(-1, 1, 8, 8), labels=labels.astype(np.int64))


@dataclass(frozen=True)
class IdxSource:
    """MNIST or Fashion-MNIST from four IDX files, packed or not."""

    name: str
    root: Path
    natural = False
    default_shape = None

    def key(self) -> str:
        digest = hashlib.sha256()
        for path in self._files():
            digest.update(_bytes(path))
        return digest.hexdigest()

    def decode(self) -> Raw:
        images, labels, test_images, test_labels = (_read_idx(path) for path in self._files())
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
        found = self._look()
        if not found:
            self._download()
            found = self._look()
        if not found:
            raise DataError(f"{self.name}: torchvision downloaded no IDX files to {self.root}")
        return found

    def _look(self) -> tuple[Path, ...]:
        class_name = "MNIST" if self.name == "mnist" else "FashionMNIST"
        places = [self.root / class_name / "raw", self.root / class_name, self.root / self.name, self.root]
        if self.name == "fashion-mnist":
            places.append(_DEBIAN)
        parts = [f"{split}-{kind}" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
        for place in places:
            files = [
                next((p for e in ("", ".gz") if (p := place / f"{part}-ubyte{e}").is_file()), None) for part in parts
            ]
            if all(files):
                return tuple(file for file in files if file is not None)
        return ()

    def _download(self) -> None:
        import torchvision

        kind = torchvision.datasets.MNIST if self.name == "mnist" else torchvision.datasets.FashionMNIST
        _fetch(self.name, self.root, lambda: kind(self.root, download=True))


_VISION = {
    "cifar-10": ("CIFAR10", 10, True, "cifar-10-batches-py"),
    "cifar-100": ("CIFAR100", 100, True, "cifar-100-python"),
    "svhn": ("SVHN", 10, False, "*_32x32.mat"),
}


@dataclass(frozen=True)
class VisionSource:
    """CIFAR or SVHN through torchvision's own readers, which check the files' MD5 sums."""

    name: str
    root: Path
    default_shape = None

    @property
    def natural(self) -> bool:
        return _VISION[self.name][2]

    def key(self) -> str:
        # The content is fixed: torchvision accepts no files but those with the published sums.
        return _VISION[self.name][3]

    def decode(self) -> Raw:
        images, labels = self._read(train=True)
        test_images, test_labels = self._read(train=False)
        return Raw(
            classes=_VISION[self.name][1],
            images=images,
            labels=labels,
            test_images=test_images,
            test_labels=test_labels,
        )

    def _read(self, *, train: bool) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        import torchvision

        kind = getattr(torchvision.datasets, _VISION[self.name][0])
        part: dict[str, Any] = {"split": "train" if train else "test"} if self.name == "svhn" else {"train": train}
        try:
            data = kind(self.root, **part)
        except RuntimeError:  # torchvision's word for "not found or corrupted"
            data = _fetch(self.name, self.root, lambda: kind(self.root, download=True, **part))
        images = np.asarray(data.data, dtype=np.uint8)
        labels = np.asarray(data.labels if self.name == "svhn" else data.targets, dtype=np.int64)
        return (images if self.name == "svhn" else images.transpose(0, 3, 1, 2)), labels


def _fetch(name: str, root: Path, download: Any) -> Any:
    try:
        root.mkdir(parents=True, exist_ok=True)
        return download()
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{name} is not under {root} and cannot be downloaded ({reason}): put torchvision's files into a folder"
            " and name it with --data-root"
        ) from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read an IDX file of bytes (yann.lecun.com/exdb/mnist): magic, sizes, then the values."""
    data = _bytes(path)
    try:
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        if data[:3] != bytes((0, 0, _IDX_TYPE_UINT8)):
            raise ValueError("it does not begin like an IDX file of bytes")
        axes = data[3]
        sizes = np.frombuffer(data, ">u4", axes, offset=4).astype(int)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(sizes)
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise DataError(f"{path} is broken: {error}; fetch it anew") from error
