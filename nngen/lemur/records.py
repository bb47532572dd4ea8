"""Results as LEMUR stores them: names of result folders, files of trials, and the records made of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from nngen.errors import LemurError
from nngen.text import one_line
from nngen.types import Record

CLASSIFICATION = ("img-classification", "acc")
"""Task and metric of the records by which families are chosen."""

_RESULT_KEYS = frozenset(
    {"accuracy", "duration", "epoch", "uid", "duration_seconds", "metric_acc", "task", "dataset", "metric", "model"}
)
"""Keys of a trial that are results or names, not hyperparameters (2.1.2 and 2.2.11)."""


_MODEL = re.compile(r"[A-Za-z0-9][\w.,+-]{0,199}", re.ASCII)
_LONGEST_VALUE = 1000


class Results(NamedTuple):
    """The four names that LEMUR joins with underscores into the name of a folder of results."""

    task: str
    dataset: str
    metric: str
    model: str

    @classmethod
    def parse(cls, folder: str) -> Results | None:
        """Read a folder's name; None if it is not four names that LEMUR could have given."""
        names = folder.split("_")
        return cls(*names) if len(names) == 4 and all(map(is_name, names)) else None

    @property
    def classification(self) -> bool:
        return (self.task, self.metric) == CLASSIFICATION


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A model's last and best epoch on one data set; an epoch's accuracy is the best of its trials."""

    model: str
    dataset: str
    final_epoch: int
    final_accuracy: float  # accuracy at ``final_epoch``, in [0, 1]
    best_epoch: int  # the first epoch with ``best_accuracy``
    best_accuracy: float  # highest accuracy of any epoch, in [0, 1]


class ResultFile(NamedTuple):
    """The trials of one model at one epoch, as LEMUR wrote them."""

    results: Results
    epoch: int
    trials: list[dict[str, Any]]

    @property
    def scored(self) -> list[dict[str, Any]]:
        """Trials that have a finite accuracy, for classification one in [0, 1]."""
        low, high = (0, 1) if self.results.classification else (-(2**63), 2**63)
        pairs: Any = ((trial, trial.get("accuracy")) for trial in self.trials)
        return [trial for trial, accuracy in pairs if _is_number(accuracy) and low <= accuracy <= high]


def is_name(name: str) -> bool:
    """Return whether LEMUR could have given a model, a data set or the like this name, as all of 2.1.2 are."""
    return _MODEL.fullmatch(name) is not None


def parse_trials(file: str, content: bytes) -> list[dict[str, Any]]:
    """Read the JSON of one result file; ``file`` is its name for messages.

    Raises:
        LemurError: If it is not a list of JSON objects.
    """
    try:
        trials = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise LemurError(f"{file} is broken: {one_line(str(error))}") from error
    if not isinstance(trials, list) or not all(isinstance(trial, dict) for trial in trials):
        raise LemurError(f"{file} does not hold a list of trials")
    return trials


def to_records(file: ResultFile) -> list[Record]:
    """Convert the trials of one file that have an accuracy."""
    return [to_record(file.results, file.epoch, trial) for trial in file.scored]


def to_record(results: Results, epoch: int, trial: Mapping[str, Any]) -> Record:
    """Convert one trial; nested values (2.2.11's ``train_stat``) are results and are left out."""
    hyperparameters = {
        key: value for key, value in sorted(trial.items()) if key not in _RESULT_KEYS and _is_hyperparameter(key, value)
    }
    duration: Any = trial.get("duration")
    return Record(
        model=results.model,
        dataset=results.dataset,
        epoch=epoch,
        accuracy=float(trial["accuracy"]),
        duration_s=duration / 1e9 if _is_number(duration) and duration > 0 else 0.0,
        hyperparameters=hyperparameters,
    )


def _is_number(value: Any) -> bool:
    """Return whether a value is a finite number that a database can store; ``true`` is not one."""
    # Compared before anything else is done with it: a whole number of JSON may have thousands of digits.
    return isinstance(value, int | float) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _is_hyperparameter(key: str, value: Any) -> bool:
    texts = [text for text in (key, value) if isinstance(text, str)]
    fit = all(len(text) <= _LONGEST_VALUE and text.isprintable() for text in texts)
    return fit and (isinstance(value, str | bool) or _is_number(value))
