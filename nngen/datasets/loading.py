"""Loading of data sets from the cache, into which they are decoded the first time.

All workers then read the same files, and none of them holds a whole data set.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path

import numpy as np

from nngen.datasets.array_files import META, content_of, read_shape
from nngen.datasets.dataset import DAMAGE, Dataset, open_dataset
from nngen.datasets.registry import find_source
from nngen.datasets.source import Progress, Raw, Request, Source
from nngen.datasets.splits import Splits, three_splits
from nngen.errors import DataError, NngenError
from nngen.files import cache_dir, one_process
from nngen.text import one_line
from nngen.types import Shape

_LAYOUT = 1
_log = logging.getLogger(__name__)


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
    if (folder / META).is_file():
        try:
            return open_dataset(folder, progress)
        except DAMAGE as error:
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
        splits = three_splits(source.name, raw)
        with one_process(folder, f"another process reads {source.name}: waiting for it"):
            if not (folder / META).is_file():
                part = folder.with_name(f".{folder.name}.part")
                part.mkdir(exist_ok=True)
                try:
                    _store(source, raw, splits, part, progress)
                except (OSError, MemoryError, NngenError):
                    shutil.rmtree(part, ignore_errors=True)
                    raise
                shutil.rmtree(folder, ignore_errors=True)  # files of a damaged data set
                part.rename(folder)
        return open_dataset(folder)
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
        from nngen.datasets.image_files.decoding import decode_splits  # loads Pillow, which digits do without

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
        "default_shape": str(source.default_shape or Shape(*read_shape(folder / "train-images.npy")[1:])),
        "class_names": raw.class_names,
        "span": raw.span,
        "notes": notes,
        **content_of(folder, raw.classes, progress),
    }
    (folder / META).write_text(json.dumps(meta))
