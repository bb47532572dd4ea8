"""Who is best: trials of one candidate under one specification become one row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtrit

from nngen.archive import StoredTrial

__all__ = ["Row", "leaderboard"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A place on the leaderboard.

    Attributes:
        rank: From 1, among the rows of one data set.
        batch: Samples per step that were really used: less than asked for where memory did not suffice.
        seeds: Different seeds that the means are taken over.
        validation_accuracy: Mean over the seeds, in [0, 1].
        validation_std: Sample standard deviation over the seeds; None for one seed.
        validation_half: Half the width of the mean's 95 % interval, by the noise between seeds of all
            rows alike; None where no row has several seeds.
        test_accuracy: Mean over the trials whose test accuracy was revealed; None where none was.
        seconds: Mean wall time of a trial.
        parameters: Trainable parameters.
    """

    rank: int
    id: str
    experts: tuple[str, ...]
    dataset: str
    shape: str
    epochs: int
    batch: int
    seeds: int
    validation_accuracy: float
    validation_std: float | None
    validation_half: float | None = None
    test_accuracy: float | None
    seconds: float
    parameters: int | None

    def to_dict(self) -> dict[str, Any]:
        """Write the row as JSON's types."""
        return {name: getattr(self, name) for name in self.__slots__} | {"experts": list(self.experts)}


def leaderboard(trials: Iterable[StoredTrial], *, top: int | None = None) -> tuple[Row, ...]:
    """Rank what was trained, by mean validation accuracy within each data set.

    Args:
        trials: From any campaigns; what was not trained is passed over.
        top: Rows to keep per data set.
    """
    groups: dict[tuple[Any, ...], dict[int, StoredTrial]] = {}
    for trial in trials:
        spec = trial.spec
        if spec is not None and trial.trained:
            key = (spec.dataset, trial.candidate_id, str(spec.shape), spec.epochs, _batch(trial), spec.lr)
            kept = groups.setdefault(key, {})
            # The same seed again is the same work; a revealed test accuracy must not get lost with it.
            if spec.seed not in kept or kept[spec.seed].test_accuracy is None:
                kept[spec.seed] = trial
    by_dataset: dict[str, list[list[StoredTrial]]] = {}
    for key, kept in groups.items():
        by_dataset.setdefault(key[0], []).append(list(kept.values()))
    rows: list[Row] = []
    for dataset in sorted(by_dataset):
        ranked = sorted(by_dataset[dataset], key=lambda same: (-fmean(_accuracies(same)), same[0].id))
        rows += _with_intervals([_row(rank, same) for rank, same in enumerate(ranked, start=1)])[:top]
    return tuple(rows)


def _with_intervals(rows: Sequence[Row]) -> list[Row]:
    """Add intervals from the pooled variance between seeds, within each shape and number of epochs.

    Pooling lets a row of two seeds borrow the noise of the others; a row's own two would hardly know it.
    """
    squares: dict[tuple[str, int], float] = {}
    freedom: dict[tuple[str, int], int] = {}
    for row in rows:
        if row.validation_std is not None:
            key = (row.shape, row.epochs)
            squares[key] = squares.get(key, 0.0) + (row.seeds - 1) * row.validation_std**2
            freedom[key] = freedom.get(key, 0) + row.seeds - 1
    halves = {key: float(stdtrit(df, 0.975)) * math.sqrt(squares[key] / df) for key, df in freedom.items()}
    known = ((row, halves.get((row.shape, row.epochs))) for row in rows)
    return [row if half is None else replace(row, validation_half=half / math.sqrt(row.seeds)) for row, half in known]


def _batch(trial: StoredTrial) -> int:
    """Batch that a trial was trained with; archives from before it could be halved do not say."""
    assert trial.spec is not None
    return trial.spec.batch if trial.batch is None else trial.batch


def _accuracies(trials: Sequence[StoredTrial]) -> list[float]:
    return [trial.validation_accuracy for trial in trials if trial.validation_accuracy is not None]


def _row(rank: int, same: Sequence[StoredTrial]) -> Row:
    first = same[0]
    assert first.spec is not None and first.candidate_id is not None
    accuracies = _accuracies(same)
    tested = [trial.test_accuracy for trial in same if trial.test_accuracy is not None]
    return Row(
        rank=rank,
        id=first.candidate_id,
        experts=first.experts,
        dataset=first.spec.dataset,
        shape=str(first.spec.shape),
        epochs=first.spec.epochs,
        batch=_batch(first),
        seeds=len(same),
        validation_accuracy=fmean(accuracies),
        validation_std=stdev(accuracies) if len(accuracies) > 1 else None,
        test_accuracy=fmean(tested) if tested else None,
        seconds=fmean(trial.seconds or 0.0 for trial in same),
        parameters=first.parameters,
    )
