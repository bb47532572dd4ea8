"""Data set ``folder:PATH``: images in one folder per class, with or without folders for the splits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nngen.datasets.image_files.folder_tree import read_tree, walk
from nngen.datasets.image_files.image_list import files_key, of_shape, raw_images, read_headers
from nngen.datasets.image_files.image_table import SAVED
from nngen.datasets.source import Progress, Raw
from nngen.errors import DataError
from nngen.files import path_kind
from nngen.types import Shape


@dataclass(frozen=True)
class FolderSource:
    """Images below ``path``."""

    path: Path  # folder of the data set
    # leave out images that cannot be read; otherwise they are an error that names all of them
    skip_unreadable: bool = False
    wanted: Shape | None = None  # shape of the images in the training; None for the folder's own
    progress: Progress | None = None  # receives (done, total) while images are read
    title: str = ""  # name of the data set that the folder holds; empty for a folder of the user's own
    default_shape: Shape | None = None

    @property
    def name(self) -> str:
        return self.title or f"{'readable-' if self.skip_unreadable else ''}folder:{self.path}"

    @cached_property
    def _files(self) -> tuple[list[Path], int]:
        if path_kind(self.path) != "folder":
            raise DataError(f"{self.path} is not a folder: put it back, or name its place with --dataset folder:PATH")
        return walk(self.path)

    def key(self) -> str:
        return files_key(self.path, self._files[0], f"{self.skip_unreadable}{of_shape(self.wanted)}")

    def decode(self) -> Raw:
        """Read the headers of all images, and sort them into classes and splits."""
        files, left_out = self._files
        root = f"{self.path}/"
        headers, notes = read_headers(
            self.name, files, root=root, skip_unreadable=self.skip_unreadable, progress=self.progress
        )
        if not headers and any((self.path / name).is_file() for name in SAVED):
            raise DataError(f"{self.path} is a saved Hugging Face data set: write --dataset hf:{self.path}")
        notes += [f"{left_out} hidden, system or special files are left out"] if left_out else []
        tree = read_tree(self.path, list(headers))
        notes += [tree.note] if tree.note else []
        notes += [f"read from the images in {self.path}, not from the original arrays"] if self.title else []
        return raw_images(tree, headers, notes, wanted=self.wanted, root=root, skip_unreadable=self.skip_unreadable)
