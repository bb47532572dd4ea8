"""Stored trials as a tuple, and as a data frame for notebooks: one row a trial, or one an epoch."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from nngen.archive.records import StoredTrial
from nngen.errors import MissingExtraError

if TYPE_CHECKING:
    from pandas import DataFrame  # an optional extra, slow to import

_OWN = ("id", "campaign", "candidate_id", "experts", "state", "rung", "replicate", "copied_from")
_RESULT = ("validation_accuracy", "test_accuracy", "parameters", "seconds", "peak_mib", "energy_j", "suspect")
_TIMES = ("started_at", "finished_at")
_SPEC = ("dataset", "shape", "train_size", "epochs", "lr", "momentum", "augment", "class_weights", "device", "threads")


class Trials(tuple[StoredTrial, ...]):
    """Trials as the archive stores them, in its order."""

    __slots__ = ()

    def to_frame(self, *, curves: bool = False) -> DataFrame:
        """Return a pandas data frame with one row for each trial.

        Columns are the trial's own values (``id``, ``campaign``, ``candidate_id``, ``experts``, ``state``, ...), its
        settings (``dataset``, ``epochs``, ``lr``, ...), its results (``validation_accuracy``, ``seconds``, ...), and
        the numbers of its plan (``gate.width``, ``losses.balance``, ``recipe.mixup``, ...). Values that are not known
        yet are missing.

        Args:
            curves: Return one row for each epoch instead: ``id``, ``epoch`` and the values of that epoch.

        Raises:
            MissingExtraError: If pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ImportError:
            raise MissingExtraError("pandas", "frame") from None
        if curves:
            return DataFrame([{"id": trial.id} | asdict(point) for trial in self for point in trial.curve])
        return DataFrame([_row(trial) for trial in self])


def _row(trial: StoredTrial) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(trial, name) for name in _OWN}
    row |= {"state": trial.state.value, "outcome": trial.outcome and trial.outcome.value, "seed": trial.seed}
    row |= {name: None if trial.spec is None else getattr(trial.spec, name) for name in _SPEC}
    row |= {"shape": trial.spec and str(trial.spec.shape), "batch": trial.batch}
    row |= {name: getattr(trial, name) for name in (*_RESULT, *_TIMES)}
    parts = {name: getattr(trial.plan, name) for name in ("gate", "losses", "recipe")}
    return row | {
        f"{name}.{item.name}": getattr(part, item.name) for name, part in parts.items() for item in fields(part)
    }
