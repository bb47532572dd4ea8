"""Who is best: trials of one candidate under one specification become one row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from nngen.archive import StoredTrial

__all__ = ["Row", "leaderboard"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A place on the leaderboard.

    Attributes:
        rank: From 1, among the rows of one data set.
        seeds: Different seeds that the means are taken over.
        validation_accuracy: Mean over the seeds, in [0, 1].
        validation_std: Sample standard deviation over the seeds; None for one seed.
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
    seeds: int
    validation_accuracy: float
    validation_std: float | None
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
            key = (spec.dataset, trial.candidate_id, str(spec.shape), spec.epochs, spec.batch, spec.lr)
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
        rows += [_row(rank, same) for rank, same in enumerate(ranked[:top], start=1)]
    return tuple(rows)


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
        seeds=len(same),
        validation_accuracy=fmean(accuracies),
        validation_std=stdev(accuracies) if len(accuracies) > 1 else None,
        test_accuracy=fmean(tested) if tested else None,
        seconds=fmean(trial.seconds or 0.0 for trial in same),
        parameters=first.parameters,
    )
