"""Data set ``folder:PATH``: one folder per class, images of any format that Pillow reads."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from nngen.datasets.source import Raw
from nngen.errors import DataError
from nngen.types import Shape

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_MAX_SIDE = 256
_MAX_CLASSES = 65_536
_GREY = {"1", "L", "LA", "I", "I;16", "F"}


@dataclass(frozen=True)
class FolderSource:
    """Images below ``path``; its folders are the classes, in alphabetical order."""

    path: Path
    natural = True
    default_shape: Shape | None = None

    @property
    def name(self) -> str:
        return f"folder:{self.path}"

    @cached_property
    def _files(self) -> list[tuple[Path, int]]:
        if not self.path.is_dir():
            raise DataError(f"{self.path} is not a folder")
        folders = sorted(entry for entry in self.path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        groups = [
            sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file())
            for folder in folders
        ]
        groups = [group for group in groups if group]
        if not 2 <= len(groups) <= _MAX_CLASSES:
            raise DataError(
                f"{self.path} holds {len(groups)} folders with images; put each class into its own, 2 at least"
            )
        return [(file, label) for label, group in enumerate(groups) for file in group]

    def key(self) -> str:
        digest = hashlib.sha256()
        for file, label in self._files:
            stat = file.stat()
            digest.update(f"{label} {file.relative_to(self.path)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def decode(self) -> Raw:
        """Decode every image to one size: their own if they share it, else a square of the median side."""
        sizes, grey = self._survey()
        if len(set(sizes)) == 1:
            width, height = sizes[0]
        else:
            width = height = min(_MAX_SIDE, int(median(min(size) for size in sizes)))
        mode = "L" if grey else "RGB"
        images = np.stack([_decode(file, (width, height), mode) for file, _ in self._files])
        labels = np.array([label for _, label in self._files], dtype=np.int64)
        return Raw(classes=int(labels.max()) + 1, images=images, labels=labels)

    def _survey(self) -> tuple[list[tuple[int, int]], bool]:
        sizes: list[tuple[int, int]] = []
        grey = True
        for file, _ in self._files:
            with _opened(file) as image:
                sizes.append(image.size)
                grey = grey and image.mode in _GREY
        return sizes, grey


def _opened(file: Path) -> Image.Image:
    try:
        return Image.open(file)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} is not an image: {error}") from error


def _decode(file: Path, size: tuple[int, int], mode: str) -> npt.NDArray[np.uint8]:
    """Return one image as ``(C, H, W)`` bytes."""
    try:
        with _opened(file) as image:
            plain = image.convert(mode)
            if plain.size != size:
                plain = plain.resize(size, Image.Resampling.BILINEAR)
            pixels = np.asarray(plain, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} is broken: {error}") from error
    return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)
