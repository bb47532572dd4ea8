"""What a data set gives away to another machine: what a worker reads, and of the judge's labels nothing.

The bytes travel as they lie in the driver's cache. Each machine writes them once into its own cache, read-only,
for all of its workers to map.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nngen.datasets.dataset import WORKER_FILES, Dataset
from nngen.errors import DataError
from nngen.files import cache_dir, draft_folder
from nngen.types import Shape

__all__ = ["Bytes", "DatasetTransfer", "pack", "unpack"]

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetTransfer:
    """A data set without its arrays, and how to know that they are the right ones.

    Attributes:
        digests: SHA-256 in hex of each of ``WORKER_FILES``, in their order.
        fingerprint: The data set's own, which covers the labels too; it can be made on the driver alone.
    """

    name: str
    classes: int
    fingerprint: str
    natural: bool
    default_shape: Shape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digests: tuple[str, ...]

    @property
    def key(self) -> str:
        """Name of the folder that holds it on every machine."""
        return hashlib.sha256(" ".join(self.digests).encode()).hexdigest()[:16]


def pack(dataset: Dataset) -> tuple[DatasetTransfer, tuple[Bytes, ...]]:
    """Return what another machine needs to know, and the files' bytes, mapped and not read yet."""
    files = tuple(np.asarray(np.memmap(dataset.file(part), np.uint8, "r")) for part in WORKER_FILES)
    parcel = DatasetTransfer(
        name=dataset.name,
        classes=dataset.classes,
        fingerprint=dataset.fingerprint,
        natural=dataset.natural,
        default_shape=dataset.default_shape,
        mean=dataset.mean,
        std=dataset.std,
        digests=tuple(hashlib.sha256(file.data).hexdigest() for file in files),
    )
    return parcel, files


def unpack(parcel: DatasetTransfer, fetch: Callable[[int], Bytes]) -> Dataset:
    """Write a parcel's files into this machine's cache, unless they are there; open them.

    Args:
        parcel: What to expect.
        fetch: Gives the bytes of a file by its number in ``WORKER_FILES``; called only for what is missing.

    Returns:
        The data set; its labels of validation and test are empty.

    Raises:
        DataError: If the cache cannot be written, or what came is not what was sent.
    """
    folder = cache_dir() / "parcels" / parcel.key
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            if not _holds(folder, parcel):
                shutil.rmtree(folder, ignore_errors=True)
                _write(folder, parcel, fetch)
    except OSError as error:
        raise DataError(f"{parcel.name} cannot be kept in {folder.parent}: {error}; set NNGEN_CACHE") from error
    return _open(folder, parcel)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one worker of this machine write while the others wait."""
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _holds(folder: Path, parcel: DatasetTransfer) -> bool:
    """Whether all files are there, byte for byte: a machine may have died while it wrote them."""
    for part, digest in zip(WORKER_FILES, parcel.digests, strict=True):
        try:
            with (folder / f"{part}.npy").open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return False
        except FileNotFoundError:
            return False
    return True


def _write(folder: Path, parcel: DatasetTransfer, fetch: Callable[[int], Bytes]) -> None:
    with draft_folder(folder) as draft:
        for number, part in enumerate(WORKER_FILES):
            path = draft / f"{part}.npy"
            fetch(number).tofile(path)
            path.chmod(0o444)
        if not _holds(draft, parcel):
            raise DataError(f"{parcel.name} did not arrive as it was sent")


def _open(folder: Path, parcel: DatasetTransfer) -> Dataset:
    arrays = {part.replace("-", "_"): np.load(folder / f"{part}.npy", mmap_mode="r") for part in WORKER_FILES}
    nothing = np.empty(0, np.int64)
    return Dataset(
        name=parcel.name,
        classes=parcel.classes,
        fingerprint=parcel.fingerprint,
        natural=parcel.natural,
        default_shape=parcel.default_shape,
        mean=parcel.mean,
        std=parcel.std,
        folder=folder,
        validation_labels=nothing,
        test_labels=nothing,
        **arrays,
    )
