"""Transfer of a data set to another machine: the files that a worker reads, and no label of validation or test.

The bytes travel as they are in the driver's cache. Each machine writes them once into its own cache, read-only, for
all of its workers to map.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nngen.datasets.array_files import WORKER_FILES
from nngen.datasets.dataset import Dataset
from nngen.errors import DataError
from nngen.files import cache_dir, draft_folder, one_process

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetTransfer:
    """A data set on its way to other machines."""

    # the data set with empty arrays; its fingerprint covers all labels, so only the driver can compute it
    blank: Dataset
    digests: tuple[str, ...]  # SHA-256 in hex of each of ``WORKER_FILES``, in their order
    files: tuple[Any, ...]  # reference to the bytes of each of these files

    @property
    def key(self) -> str:
        """Name of its folder on each machine: a hash of the content.

        The fingerprint would not do: a driver whose cache was changed must not find an older transfer.
        """
        return hashlib.sha256(" ".join(self.digests).encode()).hexdigest()[:16]


def pack(dataset: Dataset, put: Callable[[Bytes], Any]) -> DatasetTransfer:
    """Hash the files of a data set and hand each to ``put``, which returns the reference to it."""
    # Mapped: the bytes go from the page cache to the object store without a copy in this process.
    files = [np.asarray(np.memmap(dataset.file(part), np.uint8, "r")) for part in WORKER_FILES]
    names = [f"{part}_{kind}" for part in ("train", "validation", "test") for kind in ("images", "labels")]
    nothing: dict[str, Any] = dict.fromkeys(names, np.empty(0, np.int64))
    return DatasetTransfer(
        blank=replace(dataset, folder=Path(), **nothing),
        digests=tuple(_digest(dataset.file(part)) for part in WORKER_FILES),
        files=tuple(put(file) for file in files),
    )


def unpack(transfer: DatasetTransfer, get: Callable[[Any], Bytes]) -> Dataset:
    """Write a data set into this machine's cache, unless it is there (``get`` reads what is missing), and open it.

    Returns:
        The data set; its labels of validation and test are empty.

    Raises:
        DataError: If the cache cannot be written, or the bytes that arrive have another hash.
    """
    folder = cache_dir() / "transfers" / transfer.key
    try:
        with one_process(folder):
            if not _holds(folder, transfer):
                shutil.rmtree(folder, ignore_errors=True)
                _write(folder, transfer, get)
    except OSError as error:
        raise DataError(f"{transfer.blank.name} cannot be kept in {folder.parent}: {error}; set NNGEN_CACHE") from error
    arrays = {part.replace("-", "_"): np.load(folder / f"{part}.npy", mmap_mode="r") for part in WORKER_FILES}
    return replace(transfer.blank, folder=folder, **arrays)


def _holds(folder: Path, transfer: DatasetTransfer) -> bool:
    """Return whether all files are there, byte for byte: a machine may have died while it wrote them."""
    for part, digest in zip(WORKER_FILES, transfer.digests, strict=True):
        try:
            if _digest(folder / f"{part}.npy") != digest:
                return False
        except FileNotFoundError:
            return False
    return True


def _write(folder: Path, transfer: DatasetTransfer, get: Callable[[Any], Bytes]) -> None:
    with draft_folder(folder) as draft:
        for reference, part in zip(transfer.files, WORKER_FILES, strict=True):
            path = draft / f"{part}.npy"
            get(reference).tofile(path)
            # All workers of this machine map the file, and a candidate outside of a sandbox must not change it.
            path.chmod(0o444)
        if not _holds(draft, transfer):
            raise DataError(f"{transfer.blank.name} did not arrive as it was sent")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
