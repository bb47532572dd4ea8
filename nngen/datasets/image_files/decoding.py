"""Decoding of image files into an array on the disk: on all cores, resumed where it ended, in bounded memory."""

from __future__ import annotations

import math
import os
import shutil
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from io import FileIO
from itertools import combinations
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from nngen.datasets.image_files.image_file import ImageFile, decode
from nngen.datasets.source import Progress
from nngen.errors import DataError
from nngen.text import counted, listed, one_line

_MAX_NAMED = 200
_DIGEST = 8
"""Bytes of a digest: of a million images, two that differ have the same one with a chance of 1 in 37 million."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageFiles:
    """Images of a split that are decoded when they are stored."""

    files: Sequence[ImageFile]  # places of the images, in their order
    size: tuple[int, int]  # ``(width, height)`` of all decoded images
    grey: bool  # whether they have one channel, else red, green and blue
    span: tuple[float, float] = (0, 255)  # values that become 0 and 255, for images of more than 8 bits a channel
    root: str = ""  # start of the names of the files that is left out in notes
    # whether images that turn out to be damaged are left out; otherwise they are an error
    skip_unreadable: bool = False

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the decoded images, ``(N, C, H, W)``."""
        return (len(self.files), 1 if self.grey else 3, self.size[1], self.size[0])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, chosen: npt.NDArray[np.intp] | slice) -> Self:
        """Return the images at these places."""
        return replace(self, files=[self.files[place] for place in np.arange(len(self.files))[chosen]])

    def name(self, place: int) -> str:
        """Return the name of an image for notes, on one line."""
        return one_line(str(self.files[place]).removeprefix(self.root))

    def decode(self, place: int) -> npt.NDArray[np.uint8]:
        """Decode one image, ``(C, H, W)``.

        Raises:
            DataError: If it cannot be read.
        """
        return decode(self.files[place], self.size, grey=self.grey, span=self.span)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """Result of decoding a split."""

    digests: npt.NDArray[np.uint64]  # digest of each image's pixels, ``(N,)`` uint64; 0 for images that cannot be read
    faults: Mapping[int, str]  # reasons of the images that cannot be read, by their places


def decode_splits(
    title: str, splits: Mapping[str, ImageFiles], folder: Path, progress: Progress | None
) -> tuple[dict[str, npt.NDArray[np.intp]], list[str]]:
    """Decode images into ``{split}-images.npy`` of a folder; what an interrupted call decoded is kept.

    Returns:
        Places of the images that are in the files, by split, and notes on those that are left out or there twice.

    Raises:
        DataError: If images cannot be read and are not to be left out, or the disk has no room for all.
        OSError: If a file cannot be written.
    """
    check_room(folder, sum(math.prod(images.shape) for images in splits.values()))
    done, total = 0, sum(map(len, splits.values()))
    decoded: dict[str, Decoded] = {}
    for split, images in splits.items():
        report = partial(_report, progress, done, total)
        decoded[split] = decode_files(images, folder / f"{split}-images.npy", report)
        done += len(images)
    reasons = [
        one_line(reason.removeprefix(images.root))
        for split, images in splits.items()
        for reason in decoded[split].faults.values()
    ]
    if reasons and not all(images.skip_unreadable for images in splits.values()):
        raise unreadable(title, reasons)
    for split, found in decoded.items():
        file = folder / f"{split}-images.npy"
        remove_images(file, found.faults)
    kept = {split: np.flatnonzero(found.digests) for split, found in decoded.items()}
    notes = [f"left out: {reason}" for reason in reasons]
    return kept, notes + _repeated(splits, {split: found.digests for split, found in decoded.items()})


def decode_files(images: ImageFiles, file: Path, report: Callable[[int], None]) -> Decoded:
    """Decode images into an ``.npy`` file, ``(N, C, H, W)`` uint8; what an interrupted call decoded is kept.

    The digest of each image is written to a second file after its pixels. Images whose pixels have the digest of an
    earlier call are not decoded again. Rows of images that cannot be read are undefined.

    Raises:
        OSError: If the file cannot be written.
    """
    journal = _digests_file(file)
    known = np.fromfile(journal, "<u8") if journal.exists() else np.empty(0, "<u8")
    length = int(np.prod(images.shape[1:]))
    digests, faults = np.zeros(len(images), np.uint64), {}
    with _opened(file) as array, _opened(journal) as record:
        start, number = _write_header(array, images.shape), array.fileno()

        def work(place: int) -> tuple[int, str]:
            offset = start + place * length
            if place < len(known) and known[place] == _digest(os.pread(number, length, offset)):
                return int(known[place]), ""
            try:
                pixels = images.decode(place).tobytes()
            except DataError as error:
                return 0, str(error)
            _write_all(number, pixels, offset)
            return _digest(pixels), ""

        for place, (digest, fault) in enumerate(on_all_cores(work, range(len(images)))):
            digests[place] = digest
            record.write(digest.to_bytes(_DIGEST, "little"))
            if fault:
                faults[place] = fault
            report(place + 1)
    return Decoded(digests=digests, faults=faults)


def remove_images(file: Path, places: Collection[int]) -> None:
    """Remove images from an ``.npy`` file in place, and its digests; the others keep their order."""
    _digests_file(file).unlink(missing_ok=True)
    if not places:
        return
    with file.open("r+b", buffering=0) as array:
        np.lib.format.read_magic(array)
        shape, _, _ = np.lib.format.read_array_header_1_0(array)
        start, length = array.tell(), int(np.prod(shape[1:]))
        kept = [place for place in range(shape[0]) if place not in places]
        for new, old in enumerate(kept):
            if new != old:
                _write_all(array.fileno(), os.pread(array.fileno(), length, start + old * length), start + new * length)
        # numpy leaves room for a number of images of any length, so that the header's length stays.
        assert _write_header(array, (len(kept), *shape[1:])) == start
        array.truncate(start + len(kept) * length)


def on_all_cores(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Apply a function to items in one thread per core; results come in order, and few of them wait.

    Pillow lets go of Python's lock while it decodes and scales. Threads share the memory of one process, and need no
    guard in the main module of a caller, as processes would.
    """
    cores = len(os.sched_getaffinity(0))
    waiting: deque[Future[R]] = deque()
    with warnings.catch_warnings(), ThreadPoolExecutor(cores) as pool:
        warnings.simplefilter("ignore")
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 4 * cores:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def check_room(folder: Path, length: int) -> None:
    """Check that a disk has room for a number of bytes, of which some may be in the folder already.

    Raises:
        DataError: If it has not.
    """
    free = shutil.disk_usage(folder).free + 512 * sum(file.stat().st_blocks for file in folder.iterdir())
    if length > free:
        raise DataError(
            f"the decoded images need {length / 2**30:,.1f} GiB, and {folder.parent} has {free / 2**30:,.1f} GiB free:"
            " set NNGEN_CACHE to a folder with more room, or take fewer images"
        )


def unreadable(title: str, reasons: Sequence[str]) -> DataError:
    """Return the error that names images which cannot be read."""
    return DataError(
        f"{title}: {counted(len(reasons), 'image')} cannot be read: {'; '.join(reasons[:_MAX_NAMED])}"
        f"{'; ...' if len(reasons) > _MAX_NAMED else ''}: remove them, or leave them out with --skip-unreadable"
    )


def _repeated(splits: Mapping[str, ImageFiles], digests: Mapping[str, npt.NDArray[np.uint64]]) -> list[str]:
    """Name images that are in two splits, and count those that occur again within one, by their digests."""
    names = list(splits)
    found = np.concatenate([digests[name] for name in names])
    read = np.flatnonzero(found)
    part, place = (
        np.concatenate([make(number, len(digests[name])) for number, name in enumerate(names)])[read]
        for make in (lambda number, count: np.full(count, number), lambda _, count: np.arange(count))
    )
    _, index, inverse = np.unique(found[read], return_index=True, return_inverse=True)
    first = index[inverse]
    notes = []
    for one, other in combinations(range(len(names)), 2):
        shared = np.flatnonzero((part[first] == one) & (part == other))
        if len(shared):
            shown = listed([splits[names[other]].name(where) for where in place[shared]], 4)
            verb = "is" if len(shared) == 1 else "are"
            notes.append(
                f"{counted(len(shared), 'image')} of {names[other]} {verb} in {names[one]} too, which no accuracy on"
                f" {names[other]} shows: {shown}"
            )
    again = int((first != np.arange(len(first))).sum())
    if again and not notes:
        notes.append(f"images that are equal to another one of their split, pixel by pixel: {again:,}")
    return notes


def _report(progress: Progress | None, before: int, total: int, done: int) -> None:
    if progress is not None:
        progress(before + done, total)


def _digests_file(file: Path) -> Path:
    """Return the path of the digests that belong to an array of images."""
    return file.with_suffix(".digests")


def _digest(pixels: bytes) -> int:
    # 0 stands for an image that cannot be read.
    return int.from_bytes(blake2b(pixels, digest_size=_DIGEST).digest(), "little") or 1


def _opened(file: Path) -> FileIO:
    """Open a file for reading and writing without a buffer; its content stays."""
    number = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    return os.fdopen(number, "r+b", buffering=0)


def _write_header(array: Any, shape: Sequence[int]) -> int:
    """Write the header of an ``.npy`` file of bytes; return its length."""
    array.seek(0)
    np.lib.format.write_array_header_1_0(array, {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)})
    return int(array.tell())


def _write_all(number: int, content: bytes, offset: int) -> None:
    left = memoryview(content)
    while left:  # a disk that is nearly full takes a part first
        count = os.pwrite(number, left, offset)
        left, offset = left[count:], offset + count
