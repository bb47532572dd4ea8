"""Files of a stored data set: ``{train,validation,test}-{images,labels}.npy`` and ``meta.json``.

Images and labels are separate files, so that a worker can be given the images of a split without its labels.
The fingerprint identifies their bytes; a note beside the folder saves later runs from computing it again.
"""

from __future__ import annotations

import hashlib
import math
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nngen.datasets.source import Progress
from nngen.datasets.splits import SPLITS

PARTS = tuple(f"{split}-{kind}" for split in SPLITS for kind in ("images", "labels"))
"""Names of the arrays, which are those of their files without the suffix."""

WORKER_FILES = ("train-images", "train-labels", "validation-images", "test-images")
"""The arrays that a worker is given, in the order of their descriptors: no labels but those of the train split."""

META = "meta.json"
_PIECE = 2**22  # bytes of a file that are in memory at a time


def note_file(folder: Path) -> Path:
    """Return the path of the note on a folder, see ``note_of``."""
    return folder.parent / f"{folder.name}.verified.json"


def note_of(folder: Path, fingerprint: str) -> dict[str, Any]:
    """Return what tells a later run that the files are those whose fingerprint was computed, without reading them."""
    files = (META, *(f"{part}.npy" for part in PARTS))
    states: dict[str, list[int] | None] = dict.fromkeys(files)
    for name in files:
        with suppress(OSError):
            found = (folder / name).stat()
            # The time of change cannot be set back, as that of modification can.
            states[name] = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
    return {"fingerprint": fingerprint, "files": states}


def content_of(folder: Path, classes: int, progress: Progress | None) -> dict[str, Any]:
    """Compute the fingerprint of stored arrays, and mean and standard deviation of the train split per channel.

    The files are read in pieces. The statistics are exact: from the counts of the 256 values of a byte.

    Raises:
        ValueError: If a file is shorter than its header says.
    """
    digest = hashlib.sha256(f"classes {classes}".encode())
    done, total = 0, sum(read_shape(folder / f"{part}.npy")[0] for part in PARTS if part.endswith("images"))
    counts = np.zeros((0, 256), np.int64)
    for part in sorted(PARTS):
        with (folder / f"{part}.npy").open("rb") as file:
            shape, _, dtype = _read_header(file)
            digest.update(f"{part} {dtype.str} {shape}".encode())
            length = math.prod(shape[1:]) * dtype.itemsize
            rows = max(1, _PIECE // length)
            for first in range(0, shape[0], rows):
                piece = file.read(length * min(rows, shape[0] - first))
                digest.update(piece)
                if part == "train-images":
                    pixels = np.frombuffer(piece, np.uint8).reshape(-1, *shape[1:])
                    counts = counts if len(counts) else np.zeros((shape[1], 256), np.int64)
                    counts += [np.bincount(pixels[:, channel].ravel(), minlength=256) for channel in range(shape[1])]
                if part.endswith("images") and progress is not None:
                    progress(done := done + len(piece) // length, total)
    values = np.arange(256) / 255
    mean, std = [], []
    for weights in counts / counts.sum(1, keepdims=True):
        centre = float(weights @ values)
        mean.append(centre)
        std.append(max(float(weights @ (values - centre) ** 2) ** 0.5, 1e-3))
    return {"fingerprint": digest.hexdigest(), "mean": mean, "std": std}


def read_shape(file: Path) -> tuple[int, ...]:
    """Return the shape of an array from the header of its file."""
    with file.open("rb") as content:
        return _read_header(content)[0]


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    np.lib.format.read_magic(file)
    return np.lib.format.read_array_header_1_0(file)
