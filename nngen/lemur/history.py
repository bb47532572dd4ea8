"""Summary of a model's records in LEMUR: its last and its best epoch."""

from __future__ import annotations

from dataclasses import dataclass

from nngen.errors import UsageError
from nngen.lemur.reader import Lemur
from nngen.text import did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A model's last and best epoch on one data set; an epoch's accuracy is the best of its trials.

    Attributes:
        final_accuracy: Accuracy at ``final_epoch``, in [0, 1].
        best_epoch: The first epoch with ``best_accuracy``.
        best_accuracy: Highest accuracy of any epoch, in [0, 1].
    """

    model: str
    dataset: str
    final_epoch: int
    final_accuracy: float
    best_epoch: int
    best_accuracy: float


def history(lemur: Lemur, model: str, dataset: str = "cifar-10") -> History:
    """Summarize a model's records on a data set.

    Raises:
        UsageError: If LEMUR has no such model (the message names the nearest), or no record of it on the data set (the
            message names the data sets that have one).
    """
    if model not in lemur.models():
        near = did_you_mean(model, lemur.models(), otherwise="nngen families lists the base families")
        raise UsageError(f"LEMUR has no model {model!r}: {near}")
    epochs: dict[int, float] = {}
    for record in lemur.records(model, dataset):
        epochs[record.epoch] = max(record.accuracy, epochs.get(record.epoch, record.accuracy))
    if not epochs:
        others = ", ".join(lemur.datasets(model)) or "none"
        raise UsageError(f"LEMUR has no records of {model} on {dataset!r}; data sets with records of it: {others}")
    final = max(epochs)
    best = max(epochs, key=lambda epoch: (epochs[epoch], -epoch))
    return History(
        model=model,
        dataset=dataset,
        final_epoch=final,
        final_accuracy=epochs[final],
        best_epoch=best,
        best_accuracy=epochs[best],
    )
