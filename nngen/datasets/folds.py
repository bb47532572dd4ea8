"""Folds of a data set for cross-validation: data sets of their own, whose validation split is one part in K."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nngen.datasets.source import Raw, Request, Source
from nngen.errors import DataError, UsageError
from nngen.seeds import derive

if TYPE_CHECKING:
    from nngen.types import Shape

FORM = "fold-I-of-K:NAME"
MOST = 20
_NAME = re.compile(r"fold-?([1-9]\d?)-?of-?([1-9]\d?):(.+)", re.IGNORECASE)


def fold_name(name: str, number: int, folds: int) -> str:
    """Return the name of a fold; ``number`` counts from 1."""
    return f"fold-{number}-of-{folds}:{name}"


def parse_fold(text: str) -> tuple[int, int, str] | None:
    """Read number, number of folds and name of the whole data set; None for what is not a fold.

    Raises:
        UsageError: If the fold does not exist.
    """
    found = _NAME.fullmatch(text)
    if found is None:
        return None
    number, folds, name = int(found[1]), int(found[2]), found[3]
    if not (2 <= folds <= MOST and number <= folds):
        raise UsageError(f"{text[:60]!r} is not a fold: {FORM} with K from 2 to {MOST} and I from 1 to K")
    if _NAME.fullmatch(name):
        raise UsageError(f"{text[:60]!r} is a fold of a fold: name the whole data set")
    return number, folds, name


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldSource:
    """One fold of a data set: its training and validation images together, of which one part in K validates.

    The parts are stratified and the same on every machine; each image validates in one fold. The test split is that of
    the whole data set in every fold.
    """

    asked: Request  # request of the whole data set
    source: Source  # its source
    number: int  # number of the fold, from 1
    folds: int  # number of folds

    @property
    def name(self) -> str:
        return fold_name(self.source.name, self.number, self.folds)

    @property
    def default_shape(self) -> Shape | None:
        return self.source.default_shape

    def key(self) -> str:
        return self.source.key()

    def decode(self) -> Raw:
        from sklearn.model_selection import StratifiedKFold

        from nngen.datasets.loading import load_dataset  # it imports the registry, which imports this module

        asked = self.asked
        whole = load_dataset(asked.name, data_root=asked.root, shape=asked.shape, progress=asked.progress)
        labels = np.concatenate([whole.train_labels, whole.validation_labels])
        counts = np.bincount(labels, minlength=whole.classes)
        if (fewest := int(counts.min())) < self.folds:
            names = whole.class_names or tuple(map(str, range(whole.classes)))
            raise DataError(
                f"{whole.name}: class {names[int(counts.argmin())]} has {fewest} images besides those of the test"
                f" split; {self.folds} folds need {self.folds}"
            )
        seed = derive(0, "folds", self.folds) % 2**32
        # The rows are dealt by their labels, as the folds of every data set with these labels.
        parts = StratifiedKFold(self.folds, shuffle=True, random_state=seed).split(np.zeros(len(labels)), labels)
        stay, taken = list(parts)[self.number - 1]
        images = np.concatenate([whole.train_images, whole.validation_images])
        dealt = f"fold {self.number} of {self.folds}: {len(taken):,} of {len(labels):,} images validate"
        return Raw(
            classes=whole.classes,
            images=images[stay],
            labels=labels[stay],
            validation_images=images[taken],
            validation_labels=labels[taken],
            test_images=np.asarray(whole.test_images),
            test_labels=np.asarray(whole.test_labels),
            class_names=whole.class_names,
            span=whole.span,
            notes=(*whole.notes, dealt) if whole.notes else (),
        )
