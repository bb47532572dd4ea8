"""How LEMUR writes a result: the names of its folders, the keys of its trials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from nngen.errors import LemurError
from nngen.types import Record

__all__ = ["CLASSIFICATION", "Results", "pick", "read_trials", "to_record"]

CLASSIFICATION = ("img-classification", "acc")
"""Task and metric of the records that families are chosen by."""

_NOT_CHOSEN = frozenset(
    {"accuracy", "duration", "epoch", "uid", "duration_seconds", "metric_acc", "task", "dataset", "metric", "model"}
)
"""Keys of a trial that are results or names, not hyperparameters (2.1.2 and 2.2.11)."""


class Results(NamedTuple):
    """The four names LEMUR joins with underscores into the name of a folder of results."""

    task: str
    dataset: str
    metric: str
    model: str

    @classmethod
    def parse(cls, folder: str) -> Results | None:
        """Read a folder's name; None if it is not four names."""
        names = folder.split("_")
        return cls(*names) if len(names) == 4 else None

    @property
    def classification(self) -> bool:
        return (self.task, self.metric) == CLASSIFICATION


def pick(found: Iterable[Results]) -> Results | None:
    """Choose one of a model's results on a data set: classification accuracy where there is one."""
    return min(found, key=lambda results: (not results.classification, results), default=None)


def read_trials(results: Results, epoch: int, trials: Any) -> list[Record]:
    """Turn one file of trials into records.

    Raises:
        LemurError: If it is not a list of objects.
    """
    if not isinstance(trials, list) or not all(isinstance(trial, dict) for trial in trials):
        raise LemurError(f"{'_'.join(results)}/{epoch}.json does not hold a list of trials")
    return [to_record(results, epoch, trial) for trial in trials if isinstance(trial.get("accuracy"), int | float)]


def to_record(results: Results, epoch: int, trial: Mapping[str, Any]) -> Record:
    """Read one trial; nested values (2.2.11's ``train_stat``) are results and stay out."""
    chosen = {
        key: value
        for key, value in sorted(trial.items())
        if key not in _NOT_CHOSEN and isinstance(value, int | float | str)
    }
    return Record(
        model=results.model,
        dataset=results.dataset,
        epoch=epoch,
        accuracy=float(trial["accuracy"]),
        duration_s=(trial.get("duration") or 0) / 1e9,
        hyperparameters=chosen,
    )
