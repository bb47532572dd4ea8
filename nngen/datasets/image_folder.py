"""Data set ``folder:PATH``: images in one folder per class, with or without folders for the splits."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from nngen.datasets.folder_tree import Tree, read_tree, walk
from nngen.datasets.image_file import Header, decode, read_header
from nngen.datasets.source import Progress, Raw
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
        wanted: Shape of the images in the training; None for the folder's own.
        progress: Receives (done, total) while images are read.
        title: Name of the data set that the folder holds; empty for a folder of the user's own.
    """

    path: Path
    skip_unreadable: bool = False
    wanted: Shape | None = None
    progress: Progress | None = None
    title: str = ""
    default_shape: Shape | None = None

    @property
    def name(self) -> str:
        return self.title or f"{'readable-' if self.skip_unreadable else ''}folder:{self.path}"

    @cached_property
    def _files(self) -> tuple[list[Path], int]:
        if path_kind(self.path) != "folder":
            raise DataError(f"{self.path} is not a folder")
        return walk(self.path)

    def key(self) -> str:
        digest = hashlib.sha256(f"{_RULES} {self.skip_unreadable}{_of_shape(self.wanted)}".encode())
        for file in self._files[0]:
            stat = file.stat()
            digest.update(os.fsencode(file.relative_to(self.path)) + f"\0{stat.st_size} {stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def decode(self) -> Raw:
        """Decode every image to one size.

        Images of one size up to 256 px keep it. Others are scaled until they cover one size with the proportions of
        the wanted shape, a square by default, and the centre is cut out. Its short side is the median short side of
        the images; no side is longer than 256 px, or than those of the wanted shape.
        """
        headers, notes = self._read_headers()
        tree = read_tree(self.path, list(headers))
        notes += [tree.note] if tree.note else []
        notes += [f"read from the images in {self.path}, not from the original arrays"] if self.title else []
        size, rule = _common_size([header.size for header in headers.values()], self.wanted)
        grey = all(header.grey for header in headers.values())
        span = _span([header.span for header in headers.values() if header.span is not None])
        arrays: dict[str, npt.NDArray[np.uint8]] = {}
        labels: dict[str, npt.NDArray[np.int64]] = {}
        done, total = 0, sum(map(len, tree.splits.values()))
        for split, files in tree.splits.items():
            arrays[split] = np.empty((len(files), 1 if grey else 3, size[1], size[0]), dtype=np.uint8)
            labels[split] = np.array([label for _, label in files], dtype=np.int64)
            for place, (file, _) in enumerate(files):
                arrays[split][place] = decode(file, size, grey=grey, span=span)
                if self.progress is not None:
                    self.progress(done := done + 1, total)
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
            notes=(_counts(tree), rule, *notes, *_repeated(tree, arrays, self.path)),
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


def _common_size(sizes: Sequence[tuple[int, int]], wanted: Shape | None) -> tuple[tuple[int, int], str]:
    """Return ``(width, height)`` of all decoded images, and the rule in words."""
    if len(set(sizes)) == 1 and max(sizes[0]) <= _MAX_SIDE:
        return sizes[0], f"all images are {sizes[0][0]} wide and {sizes[0][1]} high, and keep this size"
    sides = (wanted.width, wanted.height) if wanted else (1, 1)
    # Never larger than most of the images are, nor than a training can use.
    scale = min(median(map(min, sizes)) / min(sides), max(_MAX_SIDE, *sides) / max(sides))
    width, height = (max(1, int(side * scale + 1e-6)) for side in sides)
    if width == height:
        return (width, width), f"images are scaled to a short side of {width} px, and the centre square is taken"
    return (
        width,
        height,
    ), f"images are scaled to cover {width} x {height} px (width x height), and the centre is taken"


def _of_shape(wanted: Shape | None) -> str:
    """Return the part of a shape that the stored images depend on: its proportions, and its sides above 256 px."""
    if wanted is None or (wanted.width == wanted.height <= _MAX_SIDE):
        return ""
    common = 1 if max(wanted.width, wanted.height) > _MAX_SIDE else gcd(wanted.width, wanted.height)
    return f" {wanted.width // common}:{wanted.height // common}"


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


def _repeated(tree: Tree, arrays: Mapping[str, npt.NDArray[np.uint8]], root: Path) -> list[str]:
    """Name images that are in two splits, and count those that occur again within the folder."""
    first: dict[bytes, tuple[str, Path]] = {}
    shared: dict[tuple[str, str], list[str]] = {}
    again = 0
    for split, files in tree.splits.items():
        for (file, _), pixels in zip(files, arrays[split], strict=True):
            where, earlier = first.setdefault(hashlib.sha256(pixels.data).digest(), (split, file))
            if where != split:
                shared.setdefault((where, split), []).append(one_line(str(file.relative_to(root))))
            again += earlier != file
    notes = [
        f"{len(names)} images of {other} are in {split} too, which no accuracy on {other} shows: {listed(names, 4)}"
        for (split, other), names in shared.items()
    ]
    if again and not notes:
        notes.append(f"{again} images are equal to another one, pixel by pixel, and may be in two splits")
    return notes


def _counts(tree: Tree) -> str:
    """List the classes with their numbers of images."""
    counts = Counter(label for files in tree.splits.values() for _, label in files)
    shown = [f"{one_line(name)} {counts[label]}" for label, name in enumerate(tree.classes)]
    total = sum(counts.values())
    return f"{total:,} images in {len(tree.classes)} classes: {listed(shown, _SHOWN)}"
