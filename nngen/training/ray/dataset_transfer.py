"""Transfer of a data set to another machine: the files that a worker reads, and no label of validation or test.

The bytes travel as they are in the driver's cache. Each machine writes them once into its own cache, read-only, for
all of its workers to map.
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

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetTransfer:
    """A data set without its arrays, and the hashes of their files.

    Attributes:
        fingerprint: Fingerprint of the data set; it covers all labels, so only the driver can compute it.
        digests: SHA-256 in hex of each of ``WORKER_FILES``, in their order.
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
        """Name of its folder in the cache of every machine."""
        return hashlib.sha256(" ".join(self.digests).encode()).hexdigest()[:16]


def pack(dataset: Dataset) -> tuple[DatasetTransfer, tuple[Bytes, ...]]:
    """Return the description of a data set, and the bytes of its files, mapped and not read yet."""
    files = tuple(np.asarray(np.memmap(dataset.file(part), np.uint8, "r")) for part in WORKER_FILES)
    transfer = DatasetTransfer(
        name=dataset.name,
        classes=dataset.classes,
        fingerprint=dataset.fingerprint,
        natural=dataset.natural,
        default_shape=dataset.default_shape,
        mean=dataset.mean,
        std=dataset.std,
        digests=tuple(hashlib.sha256(file.data).hexdigest() for file in files),
    )
    return transfer, files


def unpack(transfer: DatasetTransfer, fetch: Callable[[int], Bytes]) -> Dataset:
    """Write the files of a data set into this machine's cache, unless they are there; open them.

    Args:
        transfer: Description of the data set.
        fetch: Returns the bytes of a file by its number in ``WORKER_FILES``; called only for missing files.

    Returns:
        The data set; its labels of validation and test are empty.

    Raises:
        DataError: If the cache cannot be written, or what came is not what was sent.
    """
    folder = cache_dir() / "transfers" / transfer.key
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            if not _holds(folder, transfer):
                shutil.rmtree(folder, ignore_errors=True)
                _write(folder, transfer, fetch)
    except OSError as error:
        raise DataError(f"{transfer.name} cannot be kept in {folder.parent}: {error}; set NNGEN_CACHE") from error
    return _open(folder, transfer)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one worker of this machine write while the others wait."""
    # A lock of the kernel, which ends with its holder, even with one that was killed.
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _holds(folder: Path, transfer: DatasetTransfer) -> bool:
    """Return whether all files are there, byte for byte: a machine may have died while it wrote them."""
    for part, digest in zip(WORKER_FILES, transfer.digests, strict=True):
        try:
            with (folder / f"{part}.npy").open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return False
        except FileNotFoundError:
            return False
    return True


def _write(folder: Path, transfer: DatasetTransfer, fetch: Callable[[int], Bytes]) -> None:
    with draft_folder(folder) as draft:
        for number, part in enumerate(WORKER_FILES):
            path = draft / f"{part}.npy"
            fetch(number).tofile(path)
            path.chmod(0o444)
        if not _holds(draft, transfer):
            raise DataError(f"{transfer.name} did not arrive as it was sent")


def _open(folder: Path, transfer: DatasetTransfer) -> Dataset:
    arrays = {part.replace("-", "_"): np.load(folder / f"{part}.npy", mmap_mode="r") for part in WORKER_FILES}
    # The labels of validation and test never leave the driver.
    nothing = np.empty(0, np.int64)
    return Dataset(
        name=transfer.name,
        classes=transfer.classes,
        fingerprint=transfer.fingerprint,
        natural=transfer.natural,
        default_shape=transfer.default_shape,
        mean=transfer.mean,
        std=transfer.std,
        folder=folder,
        validation_labels=nothing,
        test_labels=nothing,
        **arrays,
    )
