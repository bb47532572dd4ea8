"""Finds the classes and splits of a folder of images, from its subfolders alone."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nngen.datasets.image_files.image_file import ImageFile
from nngen.errors import DataError
from nngen.text import counted, listed

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
"""Names of folders, in lower case, that hold a split with the classes inside."""

_SYSTEM = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information", "lost+found"}
"""Names, in lower case, that operating systems and storage servers leave in folders."""

MAX_CLASSES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Images of a data set by split and class."""

    classes: tuple[str, ...]  # names of the classes, in the order of their labels
    # files with their labels, by ``train``, ``validation`` and ``test``; ``train`` is always there
    splits: Mapping[str, Sequence[tuple[ImageFile, int]]]
    note: str = ""  # sentence on how splits were found; empty where there are none


def walk(root: Path) -> tuple[list[Path], int]:
    """List the regular files below a folder, sorted by their names below it; links to regular files count.

    Returns:
        The files, and the number of entries left out: hidden ones, those of operating systems, and special files.

    Raises:
        DataError: If the folder cannot be read.
    """
    files, left_out = [], 0

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error

    # Links to folders are not followed: they may lead out of the data set, or in a circle.
    for folder, folders, names in os.walk(root, onerror=fail):
        kept = [name for name in folders if not _is_system(name)]
        left_out += len(folders) - len(kept)
        folders[:] = kept
        for name in names:
            if _is_system(name) or not os.path.isfile(os.path.join(folder, name)):  # noqa: PTH113, PTH118
                left_out += 1
            else:
                files.append(Path(folder, name))
    return sorted(files, key=lambda file: os.fsencode(file.relative_to(root))), left_out


def read_tree(root: Path, images: Iterable[ImageFile]) -> Tree:
    """Sort images into splits and classes.

    Folders right below ``root`` are the classes, unless they are named as splits and hold folders: ``train``,
    ``validation`` and ``test`` are taken as named; ``train`` with one other keeps that one as the test split, and
    validation is taken from ``train`` later.

    Raises:
        DataError: If there are fewer than two classes, a class has no image, or a split is missing.
    """
    inside = [(file, file.relative_to(root).parts) for file in images if isinstance(file, Path)]
    loose = [file for file, parts in inside if len(parts) == 1]
    groups: dict[str, list[tuple[Path, tuple[str, ...]]]] = {}
    for file, parts in inside:
        if len(parts) > 1:
            groups.setdefault(parts[0], []).append((file, parts[1:]))
    named = {name: SPLITS[name.lower()] for name in groups if name.lower() in SPLITS}
    deep = {name for name in named if any(len(parts) > 1 for _, parts in groups[name])}
    if len(named) > 1 and named.keys() == groups.keys() and not deep:
        raise DataError(f"{root} has the splits {listed(sorted(named))}, but no folders of classes in them")
    inner = {name: {parts[0].lower() for _, parts in files if len(parts) > 1} for name, files in groups.items()}
    if not deep and len(inner) > 1 and all("train" in names and names <= SPLITS.keys() for names in inner.values()):
        raise DataError(f"{root} has splits inside of its classes: move train, val and test above the classes")
    if not deep:
        classes = _classes(root, groups)
        files = [(file, classes.index(name)) for name in classes for file, _ in groups[name]]
        note = f"left out: {counted(len(loose), 'image')} outside of the folders of classes" if loose else ""
        return Tree(classes=_shown(classes), splits={"train": files}, note=note)
    if deep != groups.keys():
        other, named_so = listed(sorted(groups.keys() - deep), 5), listed(sorted(deep), 5)
        raise DataError(f"{root} mixes splits ({named_so}) with other folders ({other}): move the one or the other")
    return _with_splits(root, {named[name]: groups[name] for name in sorted(deep)}, {named[n]: n for n in deep})


def _with_splits(
    root: Path, groups: Mapping[str, Sequence[tuple[Path, tuple[str, ...]]]], names: Mapping[str, str]
) -> Tree:
    if "train" not in groups or len(groups) == 1:
        lacking = "train" if "train" not in groups else "test or val"
        found = listed(sorted(names.values()))
        raise DataError(
            f"{root} has the split {found} alone: it lacks {lacking}; name a folder of classes to have it split"
        )
    by_class: dict[str, dict[str, list[ImageFile]]] = {split: {} for split in groups}
    for split, files in groups.items():
        for file, parts in files:
            if len(parts) > 1:
                by_class[split].setdefault(parts[0], []).append(file)
    classes = _classes(root / names["train"], by_class["train"])
    return tree_with_splits(str(root), by_class, names, classes, _shown(classes))


def tree_with_splits(
    title: str,
    by_class: Mapping[str, Mapping[str, Sequence[ImageFile]]],
    names: Mapping[str, str],
    classes: Sequence[str],
    shown: Sequence[str] | None = None,
) -> Tree:
    """Return the tree of a data set with a train split and one or two others.

    ``names`` are those of the splits in the data set, ``shown`` those of the classes, where they are others.

    Raises:
        DataError: If a split has a class that train lacks.
    """
    splits: dict[str, Sequence[tuple[ImageFile, int]]] = {}
    for split, found in by_class.items():
        unknown = sorted(found.keys() - set(classes))
        if unknown:
            raise DataError(f"{title}: {names[split]} has classes that {names['train']} lacks: {listed(unknown, 5)}")
        splits[split] = [(file, label) for label, name in enumerate(classes) for file in found.get(name, ())]
    if len(splits) == 3:
        return Tree(classes=tuple(shown or classes), splits=splits, note="splits as the data set names them")
    # One split beside train is held out until the end, as a test split is.
    (other,) = splits.keys() - {"train"}
    splits["test"] = splits.pop(other)
    note = f"{names[other]} is the test split, and validation is taken from {names['train']}"
    return Tree(classes=tuple(shown or classes), splits=splits, note=note)


def _classes(root: Path, groups: Mapping[str, object]) -> list[str]:
    """Return the names of classes in their order; every folder must hold an image."""
    empty = sorted(name for name in _folders(root) if name not in groups)
    if empty:
        raise DataError(
            f"{root}: no image is read in {listed(_shown(empty), 5)}: a class without images would vanish; "
            "add images, or remove the folder"
        )
    if not 2 <= len(groups) <= MAX_CLASSES:
        inside = [name for name in groups if len(list(_folders(root / name))) > 1]
        hint = f"; did you mean {root / inside[0]}?" if len(groups) == 1 and inside else ""
        raise DataError(
            f"{root} holds {len(groups)} folders with images; put each class into its own, 2 at least{hint}"
        )
    return sorted(groups, key=os.fsencode)


def _folders(root: Path) -> Iterator[str]:
    return (entry.name for entry in os.scandir(root) if entry.is_dir() and not _is_system(entry.name))


def _shown(names: Sequence[str]) -> tuple[str, ...]:
    """Return names as text; bytes that are not UTF-8 are replaced."""
    shown = [os.fsencode(name).decode(errors="replace") for name in names]
    twice = {name for name, count in Counter(shown).items() if count > 1}
    return tuple(f"{name} ({number})" if name in twice else name for number, name in enumerate(shown))


def _is_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM
