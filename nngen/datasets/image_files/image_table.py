"""Data sets ``csv:FILE`` and ``hf:NAME``: a table with a column of images, one of classes and perhaps one of splits."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

from nngen.datasets.image_files.folder_tree import MAX_CLASSES, SPLITS, Tree, tree_with_splits, walk
from nngen.datasets.image_files.image_file import Embedded, ImageFile
from nngen.datasets.image_files.image_list import files_key, of_shape, raw_images, read_headers
from nngen.datasets.source import Progress, Raw
from nngen.errors import DataError, MissingExtraError
from nngen.files import path_kind, read_regular
from nngen.text import counted, listed, one_line
from nngen.types import Shape

SAVED = ("dataset_dict.json", "state.json")
"""Files of a data set that the library ``datasets`` saved, of which a folder has one."""

_IMAGE = ("image", "img", "path", "file", "filename", "file_name", "filepath", "file_path", "image_path", "image_file")
_CLASS = ("label", "class", "labels", "category", "target", "class_name", "label_name", "fine_label")
_SPLIT = ("split", "subset", "partition", "set")
_MAX_TABLE = 2**30

Row: TypeAlias = tuple[ImageFile, str, str]
"""An image, its class and its split; an empty split where the table has none."""


@dataclass(frozen=True, kw_only=True)
class TableSource:
    """Base of the sources that list images in a table."""

    kind: str  # ``csv`` or ``hf``
    text: str  # name of the table as it was typed
    skip_unreadable: bool = False  # whether images that cannot be read are left out; otherwise they are an error
    wanted: Shape | None = None  # shape of the images in the training; None for their own
    progress: Progress | None = None  # receives (done, total) while images are read
    default_shape: Shape | None = None

    @property
    def name(self) -> str:
        return f"{'readable-' if self.skip_unreadable else ''}{self.kind}:{self.text}"

    @property
    def _settings(self) -> str:
        return f"{self.skip_unreadable}{of_shape(self.wanted)}"

    def _decode(self, rows: Sequence[Row], order: Sequence[str], notes: Sequence[str], root: str) -> Raw:
        """Return the data set of these rows, whose classes are in this order."""
        options: dict[str, Any] = {"root": root, "skip_unreadable": self.skip_unreadable}
        headers, more = read_headers(self.name, [row[0] for row in rows], progress=self.progress, **options)
        tree, found = _tree(self.name, [row for row in rows if row[0] in headers], order)
        return raw_images(tree, headers, [*notes, *more, *found], wanted=self.wanted, **options)


@dataclass(frozen=True, kw_only=True)
class CsvSource(TableSource):
    """Images listed in a file of comma-separated values (or tabs, semicolons), with paths relative to its folder."""

    @property
    def _path(self) -> Path:
        return Path(self.text).expanduser()

    @cached_property
    def _rows(self) -> list[Row]:
        try:
            content = read_regular(self._path, _MAX_TABLE).decode("utf-8-sig")
        except OSError as error:
            raise DataError(f"{self._path} cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{self._path} is not UTF-8 text") from error
        first = content.partition("\n")[0]
        table = csv.DictReader(io.StringIO(content, newline=""), delimiter=max(",;\t|", key=first.count))
        try:
            columns = {_plain(name): name for name in table.fieldnames or () if name}
            image, label, split = (
                next((columns[name] for name in names if name in columns), "") for names in (_IMAGE, _CLASS, _SPLIT)
            )
            if not image or not label:
                raise DataError(
                    f"{self._path}: its first line names the columns {listed(list(columns.values()), 8) or '(none)'};"
                    f" call the one of the images {_IMAGE[2]}, and the one of the classes {_CLASS[0]}"
                )
            rows: list[Row] = []
            for row in table:
                values = [(row.get(name) or "").strip() for name in (image, label, split)]
                if not values[0] or not values[1]:
                    raise DataError(f"{self._path}: line {table.line_num} has no {label if values[0] else image}")
                rows.append((self._path.parent / values[0], values[1], values[2]))
        except csv.Error as error:
            raise DataError(f"{self._path}: line {table.line_num}: {error}") from error
        if not rows:
            raise DataError(f"{self._path} lists no images")
        return rows

    def key(self) -> str:
        files = [file for file, _, _ in self._rows if isinstance(file, Path)]
        return files_key(self._path.parent, [self._path, *files], self._settings)

    def decode(self) -> Raw:
        return self._decode(self._rows, (), (), f"{self._path.parent}/")


@dataclass(frozen=True, kw_only=True)
class HubSource(TableSource):
    """Images of a data set of the library ``datasets``: a saved folder, files of Parquet, or a name on Hugging Face."""

    @property
    def _path(self) -> Path:
        return Path(self.text).expanduser()

    @cached_property
    def _splits(self) -> Mapping[str, Any]:
        try:
            import datasets
        except ImportError as error:
            raise MissingExtraError("datasets", "hf") from error
        datasets.disable_progress_bars()
        kind = path_kind(self._path)
        try:
            if kind == "folder" and any((self._path / name).is_file() for name in SAVED):
                found = datasets.load_from_disk(str(self._path))
            elif kind == "file":
                found = datasets.load_dataset("parquet", data_files=str(self._path))
            elif kind == "folder":
                found = datasets.load_dataset(str(self._path))
            else:
                name, _, config = self.text.partition(":")
                found = datasets.load_dataset(name, config or None)
        except Exception as error:  # the library, its file formats and its network raise anything
            what = "no folder or file of this name, and no data set of Hugging Face" if kind is None else "not readable"
            raise DataError(f"hf:{self.text} is {what}: {one_line(f'{type(error).__name__}: {error}')}") from error
        return dict(found) if isinstance(found, dict) else {"": found}

    def key(self) -> str:
        kind = path_kind(self._path)
        if kind is not None:
            files = walk(self._path)[0] if kind == "folder" else [self._path]
            return files_key(self._path, files, self._settings)
        content = [(split, table.num_rows, table._fingerprint) for split, table in sorted(self._splits.items())]
        return hashlib.sha256(f"{content} {self._settings}".encode()).hexdigest()

    def decode(self) -> Raw:
        """Find the columns of images and classes by their types, then by their names."""
        from datasets import ClassLabel, Image

        rows: list[Row] = []
        order: dict[str, None] = {}
        without: dict[str, int] = {}
        for split, table in self._splits.items():
            features = table.features
            image = self._column("images", _IMAGE, features, [n for n in features if isinstance(features[n], Image)])
            labels = [name for name in features if isinstance(features[name], ClassLabel)]
            label = self._column("classes", _CLASS, features, labels or [name for name in features if name in _CLASS])
            own = next((name for name in _SPLIT if name in features and len(self._splits) == 1), None)
            values = table.select_columns([label, *([own] if own else [])])[:]
            names = features[label].names if isinstance(features[label], ClassLabel) else None
            order |= dict.fromkeys(names or ())
            files = table.select_columns([image]).cast_column(image, Image(decode=False))
            for place, value in enumerate(values[label]):
                if value is None or (names is not None and not 0 <= value < len(names)):
                    without[split] = without.get(split, 0) + 1
                    continue
                read = partial(_bytes, files, image, place)
                file = Embedded(name=f"image {place} of {split or self.text}", read=read)
                rows.append((file, names[value] if names else str(value), str(values[own][place]) if own else split))
        notes = [
            f"left out: {counted(count, 'image')} of {split or self.text} without a class"
            for split, count in without.items()
        ]
        if not rows:
            raise DataError(f"{self.name} has no images with a class")
        return self._decode(rows, list(order), notes, "")

    def _column(self, what: str, names: Sequence[str], features: Mapping[str, Any], found: Sequence[str]) -> str:
        """Choose one of the columns that were found by type, by name where there are several."""
        chosen = found if len(found) == 1 else [name for name in names if name in found][:1]
        if not chosen:
            shown = listed([f"{name} ({type(features[name]).__name__})" for name in features], 8)
            count = "no column" if not found else "several columns"
            raise DataError(f"{self.name} has {count} of {what}: {shown}; call the one to use {names[0]}")
        return chosen[0]


def _bytes(table: Any, column: str, place: int) -> bytes:
    """Return the file of an image in a table, which has its bytes or its path."""
    image = table[place][column]
    return image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()


def _plain(name: str) -> str:
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def _tree(title: str, rows: Sequence[Row], order: Sequence[str]) -> tuple[Tree, list[str]]:
    """Sort rows into splits and classes, with notes on what was left out; an empty order sorts the classes, too.

    Raises:
        DataError: If there are fewer than two classes, or splits without one to train on.
    """
    notes = []
    typed = {split: SPLITS.get(split.strip().lower(), "") for split in dict.fromkeys(row[2] for row in rows)}
    names = {known: split for split, known in typed.items() if known}
    other = [split for split, known in typed.items() if not known] if names else []
    by_class: dict[str, dict[str, list[ImageFile]]] = {}
    for file, name, split in rows:
        if split not in other:
            by_class.setdefault(typed[split] or "train", {}).setdefault(name, []).append(file)
    if other:
        count = sum(row[2] in other for row in rows)
        shown = listed([split or "(none)" for split in other], 5)
        notes.append(f"left out: {counted(count, 'image')} of other splits than train, val and test: {shown}")
    if len(by_class) == 1:
        by_class = {"train": next(iter(by_class.values()))}
    elif "train" not in by_class:
        raise DataError(f"{title} has the splits {listed(sorted(names.values()))}: it lacks train")
    found = by_class["train"]
    classes = [name for name in order if name in found] if order else sorted(found, key=_place)
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise DataError(f"{title} has images of {len(classes)} classes; 2 at least are needed, {MAX_CLASSES:,} at most")
    if empty := [name for name in order if name not in found]:
        notes.append(f"classes without an image to train on are left out: {listed(empty, 5)}")
    if len(by_class) == 1:
        files = [(file, label) for label, name in enumerate(classes) for file in found[name]]
        return Tree(classes=tuple(classes), splits={"train": files}), notes
    tree = tree_with_splits(title, by_class, names, classes)
    return tree, [tree.note, *notes]


def _place(name: str) -> tuple[int, str]:
    """Return the key by which classes are sorted: numbers by their value, before other names."""
    return (int(name), "") if name.isascii() and name.isdigit() and len(name) < 10 else (10**9, name)
