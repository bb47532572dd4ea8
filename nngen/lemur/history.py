"""What LEMUR recorded of a model, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass

from nngen.errors import UsageError
from nngen.lemur.source import Lemur
from nngen.text import did_you_mean

__all__ = ["History", "history"]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A model's last and best epoch on one data set; an epoch's accuracy is the best of its trials.

    Attributes:
        final_epoch: The last epoch recorded.
        best_epoch: The first epoch that reached ``best_accuracy``.
    """

    model: str
    dataset: str
    final_epoch: int
    final_accuracy: float
    best_epoch: int
    best_accuracy: float


def history(lemur: Lemur, model: str, dataset: str = "cifar-10") -> History:
    """Sum up a model's records on a data set.

    Raises:
        UsageError: If LEMUR knows no such model (the message names the nearest), or has no record of
            it on the data set (the message names those it has).
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
