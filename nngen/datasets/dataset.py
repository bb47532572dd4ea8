"""Data sets as ``.npy`` files in the cache: decoded once, then read by every worker, of which none holds them all.

The folder of a data set contains ``{train,validation,test}-{images,labels}.npy`` and ``meta.json``.
Images and labels are separate files, so that a worker can be given the images of a split without its labels.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from nngen.datasets.class_weights import class_weights
from nngen.datasets.preprocessing import Preprocessing
from nngen.datasets.registry import find_source
from nngen.datasets.source import Progress, Raw, Request, Source
from nngen.errors import DataError, NngenError, UsageError
from nngen.files import cache_dir, load_json, one_process, store_json
from nngen.seeds import derive
from nngen.text import one_line
from nngen.types import Shape

if TYPE_CHECKING:
    from nngen.datasets.decoding import ImageFiles  # loads Pillow, which digits do without

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Splits: TypeAlias = "dict[str, tuple[Images | ImageFiles, Labels]]"
"""Images and labels of each split."""

WORKER_FILES = ("train-images", "train-labels", "validation-images", "test-images")
"""The arrays that a worker is given, in the order of their descriptors: no labels but those of the train split."""

_SPLITS = ("train", "validation", "test")
_PARTS = tuple(f"{split}-{kind}" for split in _SPLITS for kind in ("images", "labels"))
_LAYOUT = 1
_META = "meta.json"
_SMALL = 5_000
_PIECE = 2**22  # bytes of a file that are in memory at a time

_DAMAGE = (FileNotFoundError, ValueError, LookupError, TypeError, RecursionError)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """A data set with its three splits, mapped read-only from ``folder``.

    Attributes:
        name: Name as the user types it.
        classes: Number of classes; labels are 0 to ``classes - 1``.
        fingerprint: SHA-256 over the six arrays, in hex.
        default_shape: Shape for training where the user names none.
        mean: Mean of the train split per channel, in [0, 1].
        std: Standard deviation of the train split per channel, in [0, 1].
        folder: Folder of the arrays' files.
        train_images: ``(N, C, H, W)`` uint8, as are those of validation and test.
        train_labels: ``(N,)`` int64, as are those of validation and test.
        class_names: Names of the classes in the order of their labels; empty where they have none.
        span: Values that became 0 and 255, for images of more than 8 bits a channel.
        notes: Sentences on what was read and what was left out, for data sets of the user.
    """

    name: str
    classes: int
    fingerprint: str
    default_shape: Shape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    folder: Path
    train_images: Images
    train_labels: Labels
    validation_images: Images
    validation_labels: Labels
    test_images: Images
    test_labels: Labels
    class_names: tuple[str, ...] = ()
    span: tuple[float, float] = (0, 255)
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> Shape:
        """Shape of the images as they are stored."""
        return Shape(*(int(side) for side in self.train_images.shape[1:]))

    def preprocessing(self, shape: Shape) -> Preprocessing:
        """Return what a network that was trained on these data at ``shape`` needs to classify an image file."""
        return Preprocessing(
            image_shape=self.shape,
            input_shape=shape,
            mean=self.mean,
            std=self.std,
            span=self.span,
            class_names=self.class_names or tuple(map(str, range(self.classes))),
        )

    def describe(self) -> tuple[str, ...]:
        """Return lines for the user on what will be trained on."""
        sizes = ((name, len(getattr(self, f"{name}_labels"))) for name in _SPLITS)
        splits = ", ".join(f"{name} {size:,}" for name, size in sizes)
        return (*self.notes, f"{splits} images of {self.shape}, {self.classes} classes")

    def training_images(self, size: int | None) -> int:
        """Return the number of images that a trial of ``TrialSpec.train_size`` trains on.

        Raises:
            UsageError: If the train split has fewer, or a class would be left without an image.
        """
        images = len(self.train_labels)
        if size is None:
            return images
        if size > images:
            raise UsageError(f"--train-size {size:,}: {self.name} has {images:,} training images; leave it out for all")
        if size < max(self.classes, 2):
            raise UsageError(f"--train-size {size}: {self.name} has {self.classes} classes, and each needs an image")
        return size

    def class_weights(self, text: str, size: int | None = None) -> tuple[float, ...]:
        """Return the weight of a training image of each class; see ``nngen.datasets.class_weights``.

        Raises:
            UsageError: If the text has no valid form, or names a class that does not exist.
        """
        labels = self.train_labels if size is None else self.train_labels[subset(self.train_labels, size)]
        return class_weights(text, labels, self.classes, self.class_names)

    def file(self, part: str) -> Path:
        """Return the path of one array: ``train-images``, ``validation-labels``, ..."""
        return self.folder / f"{part}.npy"

    def check_unchanged(self) -> None:
        """Check that the files of the cache still have this fingerprint; it is computed again only if a file changed.

        Raises:
            DataError: If one has other bytes, or was removed.
        """
        note = load_json(_note_file(self.folder))
        # Arrays that came from another machine have no note.
        if note is None or note == _note(self.folder, self.fingerprint):
            return
        try:
            # A backup that makes hard links, say, changes the state of a file and not its bytes.
            unchanged = _open(self.folder).fingerprint == self.fingerprint
        except (OSError, *_DAMAGE):
            unchanged = False
        if not unchanged:
            raise DataError(
                f"the stored arrays of {self.name} in {self.folder} changed while they were in use: run it again, which"
                " decodes them anew"
            )


def load_dataset(
    name: str, *, data_root: Path | None = None, shape: Shape | None = None, progress: Progress | None = None
) -> Dataset:
    """Load a data set, decoding it into the cache the first time.

    Args:
        name: A name of ``nngen.datasets.registry.DATASETS``: ``digits``, ``cifar-10``, ``folder:PATH``, ...
        data_root: Folder of torchvision's files, into which they are also downloaded.
        shape: Shape of the images in the training. Photographs are stored at 256 px at most, unless it is larger.
        progress: Receives (done, total) while images are read.

    Raises:
        UsageError: If no data set has this name; the message lists those that have.
        DataError: If it is missing, broken or too small.
    """
    root = data_root or cache_dir() / "torchvision"
    return load_source(find_source(Request(name=name, root=root, shape=shape, progress=progress)), progress)


def load_source(source: Source, progress: Progress | None = None) -> Dataset:
    """Load the data set of a source, decoding it into the cache the first time.

    Raises:
        DataError: If it is missing, broken or too small.
    """
    name = source.name
    key = hashlib.sha256(f"{_LAYOUT} {source.name} {source.key()}".encode()).hexdigest()[:16]
    folder = cache_dir() / "data" / f"{source.name.partition(':')[0]}-{key}"
    if (folder / _META).is_file():
        try:
            return _open(folder, progress)
        except _DAMAGE as error:
            _log.warning("the stored arrays of %s are damaged (%s): they are decoded anew", name, one_line(str(error)))
            shutil.rmtree(folder, ignore_errors=True)
        except OSError as error:  # too little memory, or too few descriptors: they stay
            reason = error.strerror or error
            raise DataError(f"the stored arrays of {name} in {folder} cannot be opened: {reason}") from error
    return store_dataset(source, folder, progress)


def store_dataset(source: Source, folder: Path, progress: Progress | None = None) -> Dataset:
    """Read a source, split it and write it to ``folder``: the folder appears whole or not at all.

    A call that was killed is continued by the next one, with the images that it had decoded. One process at a time
    writes; others wait for it. A folder that is there already is opened as it is.

    Raises:
        DataError: If the source is broken or too small, or the folder cannot be written.
    """
    try:
        raw = source.decode()
        splits = _splits(source.name, raw)
        with one_process(folder, f"another process reads {source.name}: waiting for it"):
            if not (folder / _META).is_file():
                part = folder.with_name(f".{folder.name}.part")
                part.mkdir(exist_ok=True)
                try:
                    _store(source, raw, splits, part, progress)
                except (OSError, MemoryError, NngenError):
                    shutil.rmtree(part, ignore_errors=True)
                    raise
                shutil.rmtree(folder, ignore_errors=True)  # files of a damaged data set
                part.rename(folder)
        return _open(folder)
    except OSError as error:
        raise DataError(f"{source.name} cannot be stored in {folder.parent}: {error}; set NNGEN_CACHE") from error
    except MemoryError as error:
        raise DataError(f"{source.name} does not fit into memory ({error}): take fewer images") from error


def _store(source: Source, raw: Raw, splits: Splits, folder: Path, progress: Progress | None) -> None:
    """Write a data set into a folder, which may hold images that a call which was killed had decoded."""
    labels = {split: own for split, (_, own) in splits.items()}
    notes = [*raw.notes]
    files = {split: images for split, (images, _) in splits.items() if not isinstance(images, np.ndarray)}
    if files:
        from nngen.datasets.decoding import decode_splits

        kept, found = decode_splits(source.name, files, folder, progress)
        labels = {split: own[kept[split]] for split, own in labels.items()}
        notes += found
    for split, (images, _) in splits.items():
        if isinstance(images, np.ndarray):
            np.save(folder / f"{split}-images.npy", images)
        if not len(labels[split]):
            raise DataError(f"{source.name}: no image of the {split} split can be read")
        np.save(folder / f"{split}-labels.npy", labels[split])
    for label in set(range(raw.classes)) - set(labels["train"].tolist()):
        shown = raw.class_names[label] if raw.class_names else label
        raise DataError(f"{source.name}: class {shown} has no image in the train split that can be read")
    meta = {
        "name": source.name,
        "classes": raw.classes,
        "default_shape": str(source.default_shape or Shape(*_read_shape(folder / "train-images.npy")[1:])),
        "class_names": raw.class_names,
        "span": raw.span,
        "notes": notes,
        **_content(folder, raw.classes, progress),
    }
    (folder / _META).write_text(json.dumps(meta))


def _open(folder: Path, progress: Progress | None = None) -> Dataset:
    """Map the arrays; compute their fingerprint unless that was done for these very files.

    Raises:
        OSError: If a file is missing.
        ValueError: If the arrays are not those that were stored.
    """
    meta = json.loads((folder / _META).read_text())
    arrays: dict[str, Any] = {part: np.load(folder / f"{part}.npy", mmap_mode="r") for part in _PARTS}
    note = _note(folder, meta["fingerprint"])
    if load_json(_note_file(folder)) != note:
        computed = _content(folder, meta["classes"], progress)
        if changed := [key for key, value in computed.items() if meta[key] != value]:
            raise ValueError(f"their {changed[0]} is another one")
        store_json(_note_file(folder), note)
    shape = Shape.parse(meta.pop("default_shape"))
    meta.pop("natural", None)  # of earlier versions
    for key in ("mean", "std", "class_names", "notes", "span"):
        if key in meta:  # those of earlier versions lack some
            meta[key] = tuple(meta[key])
    named = {part.replace("-", "_"): array for part, array in arrays.items()}
    return Dataset(**meta, default_shape=shape, folder=folder, **named)


def _note_file(folder: Path) -> Path:
    return folder.parent / f"{folder.name}.verified.json"


def _note(folder: Path, fingerprint: str) -> dict[str, Any]:
    """Return what tells a later run that the files are those whose fingerprint was computed, without reading them."""
    files = (_META, *(f"{part}.npy" for part in _PARTS))
    states: dict[str, list[int] | None] = dict.fromkeys(files)
    for name in files:
        with suppress(OSError):
            found = (folder / name).stat()
            # The time of change cannot be set back, as that of modification can.
            states[name] = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
    return {"fingerprint": fingerprint, "files": states}


def _splits(name: str, raw: Raw) -> Splits:
    """Return images and labels of the three splits; those that a source lacks are taken from its training images."""
    if raw.classes < 2:
        raise DataError(f"{name} has {raw.classes} class; at least 2 are needed")
    seed_name = raw.split_name or name
    found: Splits = {"train": (raw.images, raw.labels)}
    if raw.test_images is not None and raw.test_labels is not None:
        found["test"] = (raw.test_images, raw.test_labels)
    if raw.validation_images is not None and raw.validation_labels is not None:
        found["validation"] = (raw.validation_images, raw.validation_labels)
    for part in ("test", "validation"):
        if part not in found:
            images, labels = found["train"]
            # Of few images a larger share is taken, since accuracy on a small split varies widely.
            share = 0.2 if part == "test" or len(labels) < _SMALL else 0.1
            stay, taken = split(labels, share, f"{seed_name} {part}", raw.class_names)
            found[part], found["train"] = (images[taken], labels[taken]), (images[stay], labels[stay])
    return {part: found[part] for part in _SPLITS}


def split(
    labels: npt.NDArray[np.int64], share: float, name: str, class_names: Sequence[str] = ()
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Take ``share`` of each class out of a data set, the same on every machine and for every trial.

    scikit-learn's ``StratifiedShuffleSplit`` draws otherwise: it would change the split of every published accuracy.

    Args:
        labels: ``(N,)`` classes from 0.
        share: Fraction taken, in (0, 1).
        name: Name of the data set and the split, from which the seed is derived.
        class_names: Names of the classes, for the message.

    Returns:
        Indices that stay and indices taken, each in ascending order.

    Raises:
        DataError: If a class has too few samples to be in both parts.
    """
    # RandomState's stream is frozen by numpy's own promise; that of Generator is not.
    random = np.random.RandomState(derive(0, "split", name))
    chosen: list[npt.NDArray[np.intp]] = []
    for label in range(int(labels.max(initial=-1)) + 1):
        members = np.flatnonzero(labels == label)
        count = max(1, round(share * len(members)))
        if len(members) <= count:
            shown = class_names[label] if class_names else label
            raise DataError(f"{name}: class {shown} has {len(members)} images; at least 3 are needed to split them")
        chosen.append(random.permutation(members)[:count])
    taken = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(labels)), taken), taken


def subset(labels: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.intp]:
    """Choose ``size`` images of a train split: the same for every trial, and part of every larger choice.

    Args:
        labels: ``(N,)`` classes.
        size: Number of images, at least one for each class.

    Returns:
        Their indices in ascending order; each class has its share of them, to within one image.
    """
    random = np.random.RandomState(derive(0, "subset"))
    places = np.empty(len(labels))
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        # The first of each class come first, and half of the order holds half of each class.
        places[members] = np.arange(len(members)) / len(members)
    return np.sort(np.argsort(places, kind="stable")[:size])


def _content(folder: Path, classes: int, progress: Progress | None) -> dict[str, Any]:
    """Compute the fingerprint of stored arrays, and mean and standard deviation of the train split per channel.

    The files are read in pieces. The statistics are exact: from the counts of the 256 values of a byte.

    Raises:
        ValueError: If a file is shorter than its header says.
    """
    digest = hashlib.sha256(f"classes {classes}".encode())
    done, total = 0, sum(_read_shape(folder / f"{part}.npy")[0] for part in _PARTS if part.endswith("images"))
    counts = np.zeros((0, 256), np.int64)
    for part in sorted(_PARTS):
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


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    np.lib.format.read_magic(file)
    return np.lib.format.read_array_header_1_0(file)


def _read_shape(file: Path) -> tuple[int, ...]:
    with file.open("rb") as content:
        return _read_header(content)[0]
