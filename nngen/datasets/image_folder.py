"""Data set ``folder:PATH``: images in one folder per class, with or without folders for the splits."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from nngen.datasets.folder_tree import Tree, read_tree, walk
from nngen.datasets.image_file import Header, decode, read_header
from nngen.datasets.source import Raw
from nngen.errors import DataError
from nngen.files import path_kind
from nngen.text import listed, one_line
from nngen.types import Shape

_RULES = 3
"""Raised when the same files give other pixels, labels, splits or facts, so that older entries of the cache are left
alone."""

_MAX_SIDE = 256
_SHOWN = 20
_MAX_NAMED = 200


@dataclass(frozen=True)
class FolderSource:
    """Images below ``path``.

    Attributes:
        path: Folder of the data set.
        skip_unreadable: Leave out images that cannot be read; otherwise they are an error that names all of them.
    """

    path: Path
    skip_unreadable: bool = False
    natural = False  # arrows, letters and signs may not be mirrored
    default_shape: Shape | None = None

    @property
    def name(self) -> str:
        return f"{'readable-' if self.skip_unreadable else ''}folder:{self.path}"

    @cached_property
    def _files(self) -> tuple[list[Path], int]:
        if path_kind(self.path) != "folder":
            raise DataError(f"{self.path} is not a folder")
        return walk(self.path)

    def key(self) -> str:
        digest = hashlib.sha256(f"{_RULES} {self.skip_unreadable}".encode())
        for file in self._files[0]:
            stat = file.stat()
            digest.update(os.fsencode(file.relative_to(self.path)) + f"\0{stat.st_size} {stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def decode(self) -> Raw:
        """Decode every image to one size.

        Images of one size up to 256 px keep it. Others are scaled until the short side is the median short side, 256
        px at most, and the centre square is cut out.
        """
        headers, notes = self._read_headers()
        tree = read_tree(self.path, list(headers))
        notes += [tree.note] if tree.note else []
        size, rule = _common_size([header.size for header in headers.values()])
        grey = all(header.grey for header in headers.values())
        span = _span([header.span for header in headers.values() if header.span is not None])
        arrays: dict[str, npt.NDArray[np.uint8]] = {}
        labels: dict[str, npt.NDArray[np.int64]] = {}
        for split, files in tree.splits.items():
            arrays[split] = np.stack([decode(file, size, grey=grey, span=span) for file, _ in files])
            labels[split] = np.array([label for _, label in files], dtype=np.int64)
        return Raw(
            classes=len(tree.classes),
            images=arrays["train"],
            labels=labels["train"],
            validation_images=arrays.get("validation"),
            validation_labels=labels.get("validation"),
            test_images=arrays.get("test"),
            test_labels=labels.get("test"),
            class_names=tree.classes,
            span=span,
            split_name="folder",  # not the path: a folder that is moved, or typed otherwise, keeps its split
            notes=(_counts(tree), rule, *notes),
        )

    def _read_headers(self) -> tuple[dict[Path, Header], list[str]]:
        """Read the properties of all images, and note what is not one; unreadable images are named together."""
        files, left_out = self._files
        headers: dict[Path, Header] = {}
        other, unreadable = [], []
        for file in files:
            try:
                header = read_header(file)
            except DataError as error:
                unreadable.append(one_line(str(error).removeprefix(f"{self.path}/")))
                continue
            if header is None:
                other.append(one_line(file.name))
            else:
                headers[file] = header
        notes = [f"{len(other)} files are not images and are left out: {listed(other, 4)}"] if other else []
        if left_out:
            notes.append(f"{left_out} hidden, system or special files are left out")
        if unreadable and not self.skip_unreadable:
            raise DataError(
                f"{self.path}: {len(unreadable)} images cannot be read: {'; '.join(unreadable[:_MAX_NAMED])}"
                f"{'; ...' if len(unreadable) > _MAX_NAMED else ''}: "
                "remove them, or leave them out with --skip-unreadable"
            )
        notes += [f"left out: {reason}" for reason in unreadable]
        return headers, notes


def _common_size(sizes: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], str]:
    """Return ``(width, height)`` of all decoded images, and the rule in words."""
    if len(set(sizes)) == 1 and max(sizes[0]) <= _MAX_SIDE:
        return sizes[0], f"all images are {sizes[0][0]} wide and {sizes[0][1]} high, and keep this size"
    side = min(_MAX_SIDE, int(median(min(size) for size in sizes)))
    return (side, side), f"images are scaled to a short side of {side} px, and the centre square is taken"


def _span(spans: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the values that become black and white in images of more than 8 bits a channel.

    A folder of 12-bit images in 16-bit files uses 12 bits, so the range is the least number of bits that holds all
    values. Other values (negative, fractions beyond 1) are scaled by their own range.
    """
    if not spans:
        return 0, 255
    low, high = min(span[0] for span in spans), max(span[1] for span in spans)
    if low < 0 or not np.isfinite(high - low):
        return low, high
    if high <= 1:
        return 0, 1
    return 0, 2 ** max(8, int(np.ceil(np.log2(high + 1)))) - 1


def _counts(tree: Tree) -> str:
    """List the classes with their numbers of images."""
    counts = Counter(label for files in tree.splits.values() for _, label in files)
    shown = [f"{one_line(name)} {counts[label]}" for label, name in enumerate(tree.classes)]
    total = sum(counts.values())
    return f"{total:,} images in {len(tree.classes)} classes: {listed(shown, _SHOWN)}"
