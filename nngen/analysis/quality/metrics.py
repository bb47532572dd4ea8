"""Metrics of a trained classifier on its validation images, from stored predictions, logits and labels."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from nngen.archive.records import StoredTrial
from nngen.archive.store import Archive
from nngen.files import read_regular
from nngen.text import listed
from nngen.training.state.checkpoints import LOGITS

Classes: TypeAlias = npt.NDArray[np.uint16]
Logits: TypeAlias = npt.NDArray[np.float32]

_TOP = 5
_BINS = 15  # bins of equal width of the calibration error (Guo et al. 2017)

_NAMED = 3
_HALF = 2
_HEADER = 2**16  # bytes beyond which the header of a file of logits is too long to be one of nngen


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassQuality:
    """Results of the validation images of one class."""

    name: str  # name of the class; its number where it has none
    images: int  # number of its images
    accuracy: float | None  # share of them that are predicted correctly (recall); None without images
    # classes that the others are taken for, with their numbers, the most frequent first
    taken_for: tuple[tuple[str, int], ...]

    @property
    def mistakes(self) -> str:
        """The most frequent mistakes, in words."""
        return listed([f"{name} ({count:,})" for name, count in self.taken_for], _NAMED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Metrics of a classifier on its validation images."""

    images: int
    accuracy: float
    balanced_accuracy: float  # mean of the classes' accuracies
    macro_f1: float  # mean of the classes' F1 scores
    # share of the images whose class is among the five most likely; None without logits, and where there are five
    # classes or fewer
    top5_accuracy: float | None
    # mean distance between confidence and accuracy over bins of confidence (ECE); None without logits
    calibration_error: float | None
    class_names: tuple[str, ...]  # names of the classes in the order of the matrix
    # confusion matrix: images of the class of a row that were predicted as the class of a column
    confusion: tuple[tuple[int, ...], ...]

    @property
    def classes(self) -> tuple[ClassQuality, ...]:
        """Results of each class, in the order of the matrix."""
        return tuple(self._class(number, row) for number, row in enumerate(self.confusion))

    def _class(self, number: int, row: Sequence[int]) -> ClassQuality:
        images = sum(row)
        others = sorted((-count, other) for other, count in enumerate(row) if count and other != number)
        return ClassQuality(
            name=self.class_names[number],
            images=images,
            accuracy=row[number] / images if images else None,
            taken_for=tuple((self.class_names[other], -negative) for negative, other in others),
        )

    @property
    def summary(self) -> dict[str, float | int | None]:
        """The metrics that are single numbers, by name."""
        names = ("images", "accuracy", "balanced_accuracy", "macro_f1", "top5_accuracy", "calibration_error")
        return {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Write the metrics as JSON types."""
        per_class = [
            {"class": one.name, "images": one.images, "accuracy": one.accuracy, "taken_for": dict(one.taken_for)}
            for one in self.classes
        ]
        return asdict(self) | {"per_class": per_class}


def measure(
    predicted: Classes, labels: Classes, *, logits: Logits | None = None, class_names: Sequence[str] = ()
) -> Quality:
    """Compute the metrics of predictions.

    Args:
        predicted: ``(N,)`` predicted classes, N of at least 1.
        labels: ``(N,)`` correct classes.
        logits: ``(N, classes)``.
        class_names: Names of all classes; their numbers by default.
    """
    from sklearn.metrics import confusion_matrix, f1_score, recall_score, top_k_accuracy_score

    count = max(len(class_names), int(labels.max()) + 1, int(predicted.max()) + 1)
    known, every = np.unique(labels), np.arange(count)
    top5 = error = None
    if logits is not None and logits.shape[1] >= count:
        every = np.arange(logits.shape[1])
        error = _calibration_error(logits, predicted == labels)
        if len(every) > _TOP:
            top5 = float(top_k_accuracy_score(labels, logits, k=_TOP, labels=every))
    return Quality(
        images=len(labels),
        accuracy=float(np.mean(predicted == labels)),
        # Over the classes that have images: sklearn's balanced_accuracy_score is the same, and warns of the others.
        balanced_accuracy=float(recall_score(labels, predicted, labels=known, average="macro", zero_division=0.0)),
        macro_f1=float(f1_score(labels, predicted, average="macro", zero_division=0.0)),
        top5_accuracy=top5,
        calibration_error=error,
        class_names=tuple(class_names) + tuple(map(str, every[len(class_names) :])),
        confusion=tuple(map(tuple, confusion_matrix(labels, predicted, labels=every).tolist())),
    )


def _calibration_error(logits: Logits, right: npt.NDArray[np.bool_]) -> float:
    """Return the mean distance of accuracy and confidence over bins, each with the weight of its images."""
    from scipy.special import softmax

    confidence = softmax(logits.astype(np.float64), axis=1).max(axis=1)
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    # The sum of accuracy less confidence over a bin is its distance times its images.
    return float(np.abs(np.bincount(bins, right - confidence, minlength=_BINS)).sum() / len(right))


def quality_of(archive: Archive, trial: StoredTrial) -> Quality | None:
    """Compute the metrics of a trial from what the archive and the folder of its weights hold.

    Returns:
        The metrics; None for a trial without an accuracy, and for one whose labels were not stored, as by earlier
        versions of nngen until its campaign is resumed.
    """
    labels = np.frombuffer(archive.validation_labels(trial.data_fingerprint), "<u2")
    predicted = np.frombuffer(archive.predictions(trial.id, "validation"), "<u2")
    if not trial.trained or not len(labels) or len(predicted) != len(labels):
        return None
    logits = kept_logits(archive, trial, predicted)
    return measure(predicted, labels, logits=logits, class_names=archive.class_names(trial.data_fingerprint))


def kept_logits(archive: Archive, trial: StoredTrial, predicted: Classes) -> Logits | None:
    """Return the logits of a trial's validation images, ``(N, classes)``; None where none are kept that fit.

    Args:
        archive: Archive with the trial; the folder of weights is beside it.
        trial: The trial.
        predicted: ``(N,)`` its predictions, with which the logits must agree.
    """
    width = archive.campaign(trial.campaign).classes
    size = _HALF * len(predicted) * width
    content = archive.logits(trial.id)
    if not content and archive.weights is not None:
        path = archive.weights / f"trial-{trial.copied_from or trial.id}" / f"{LOGITS}.safetensors"
        with suppress(OSError):
            # The candidate's process wrote the file. Its one tensor is at the end, so that its header is not needed.
            content = read_regular(path, size + _HEADER, root=archive.weights)[-size or None :]
    if not size or len(content) != size or int(predicted.max()) >= width:
        return None
    logits = np.frombuffer(content, "<f2").astype(np.float32).reshape(len(predicted), width)
    # Rounding to float16 may make ties, and never another order.
    own = logits[np.arange(len(predicted)), predicted]
    return logits if np.isfinite(logits).all() and np.array_equal(own, logits.max(axis=1)) else None
