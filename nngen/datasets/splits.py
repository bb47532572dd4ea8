"""Train, validation and test split of a data set, and parts of a train split: the same draw on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nngen.datasets.source import Images, Raw
from nngen.errors import DataError
from nngen.seeds import derive
from nngen.text import counted

Splits: TypeAlias = dict[str, tuple[Images, npt.NDArray[np.int64]]]
"""Images and labels of each split."""

SPLITS = ("train", "validation", "test")
_SMALL = 5_000


def three_splits(name: str, raw: Raw) -> Splits:
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
    return {part: found[part] for part in SPLITS}


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
            found = counted(len(members), "image")
            raise DataError(f"{name}: class {shown} has {found}; at least 3 are needed to split them")
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
