"""Images of a data set by class and split: their headers, their common form, and what stderr says about them."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from math import gcd
from pathlib import Path
from statistics import median

import numpy as np

from nngen.datasets.image_files.decoding import ImageFiles, on_all_cores, unreadable
from nngen.datasets.image_files.folder_tree import Tree
from nngen.datasets.image_files.image_file import Header, ImageFile, read_header
from nngen.datasets.source import Progress, Raw
from nngen.errors import DataError
from nngen.text import listed, one_line
from nngen.types import Shape

_RULES = 3
"""Raised when the same files give other pixels, labels, splits or facts, so that older entries of the cache are left
alone."""

_MAX_SIDE = 256
_SHOWN = 20


def files_key(root: Path, files: Iterable[Path], settings: str) -> str:
    """Return a key of files by their names, sizes and times, and of the settings they are read with."""
    digest = hashlib.sha256(f"{_RULES} {settings}".encode())
    for file in files:
        state = "missing"
        with suppress(OSError):
            stat = file.stat()
            state = f"{stat.st_size} {stat.st_mtime_ns}"
        digest.update(os.fsencode(os.path.relpath(file, root)) + f"\0{state}\n".encode())
    return digest.hexdigest()


def read_headers(
    title: str, files: Sequence[ImageFile], *, root: str, skip_unreadable: bool, progress: Progress | None
) -> tuple[dict[ImageFile, Header], list[str]]:
    """Read the properties of images on all cores, and note what is not an image; messages name files below ``root``.

    Raises:
        DataError: If images cannot be read and are not to be left out; it names all of them.
    """
    headers: dict[ImageFile, Header] = {}
    other, faults = [], []
    # Most images have the properties of others: one object stands for all.
    known: dict[Header, Header] = {}
    found: Iterator[tuple[Header | None, str]] = on_all_cores(_header, files)
    for done, (file, (header, fault)) in enumerate(zip(files, found, strict=True), 1):
        if fault:
            faults.append(one_line(fault.removeprefix(root)))
        elif header is None:
            other.append(one_line(file.name))
        else:
            headers[file] = known.setdefault(header, header)
        if progress is not None:
            progress(done, len(files))
    if faults and not skip_unreadable:
        raise unreadable(title, faults)
    notes = [f"left out, since not images: {listed(other, 4)}"] if other else []
    return headers, notes + [f"left out: {reason}" for reason in faults]


def _header(file: ImageFile) -> tuple[Header | None, str]:
    try:
        return read_header(file), ""
    except DataError as error:
        return None, str(error)


def raw_images(
    tree: Tree,
    headers: Mapping[ImageFile, Header],
    notes: Iterable[str],
    *,
    wanted: Shape | None,
    root: str,
    skip_unreadable: bool,
) -> Raw:
    """Return a data set whose images are decoded to one size.

    Images of one size up to 256 px keep it. Others are scaled until they cover one size with the proportions of the
    wanted shape, a square by default, and the centre is cut out. Its short side is the median short side of the images;
    no side is longer than 256 px, or than those of the wanted shape.
    """
    size, rule = _common_size([header.size for header in headers.values()], wanted)
    images = partial(
        ImageFiles,
        size=size,
        grey=all(header.grey for header in headers.values()),
        span=_span([header.span for header in headers.values() if header.span is not None]),
        root=root,
        skip_unreadable=skip_unreadable,
    )
    found = {split: images(files=[file for file, _ in files]) for split, files in tree.splits.items()}
    labels = {split: np.array([label for _, label in files], dtype=np.int64) for split, files in tree.splits.items()}
    return Raw(
        classes=len(tree.classes),
        images=found["train"],
        labels=labels["train"],
        validation_images=found.get("validation"),
        validation_labels=labels.get("validation"),
        test_images=found.get("test"),
        test_labels=labels.get("test"),
        class_names=tree.classes,
        span=found["train"].span,
        split_name="folder",  # not the path: a folder that is moved, or typed otherwise, keeps its split
        notes=(_counts(tree), rule, *notes),
    )


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
    rule = f"images are scaled to cover {width} x {height} px (width x height), and the centre is taken"
    return (width, height), rule


def of_shape(wanted: Shape | None) -> str:
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


def _counts(tree: Tree) -> str:
    """List the classes with their numbers of images."""
    counts = Counter(label for files in tree.splits.values() for _, label in files)
    shown = [f"{one_line(name)} {counts[label]}" for label, name in enumerate(tree.classes)]
    total = sum(counts.values())
    return f"{total:,} images in {len(tree.classes)} classes: {listed(shown, _SHOWN)}"
