"""Leaderboard: trials of one candidate under one specification become one row, ranked by validation accuracy.

A column is added in one place, ``Row`` and ``COLUMNS``; the terminal's table and the report are made from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtrit

from nngen.analysis import formatting
from nngen.analysis.suspicion import suspicions
from nngen.archive.records import StoredTrial, TrialScore
from nngen.types import Fidelity


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A place on the leaderboard.

    Attributes:
        rank: Rank among the rows of one data set, from 1.
        batch: Batch size that was used: smaller than requested where memory did not suffice.
        seeds: Number of different seeds behind the means.
        validation_accuracy: Mean over the seeds, in [0, 1].
        validation_std: Sample standard deviation over the seeds; None for one seed.
        validation_half: Half the width of the mean's 95 % interval, from the pooled noise between the
            seeds of all rows; None where no row has several seeds.
        test_accuracy: Mean over the trials with a revealed test accuracy; None without one.
        seconds: Mean wall time of a trial, in seconds.
        suspect: Reason why the accuracy is not comparable with that of others; empty for most.
        train_size: Number of images of the train split that were trained on; None for all.
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
    suspect: str = ""
    train_size: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Convert the row to JSON types."""
        return asdict(self) | {"experts": list(self.experts)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of the leaderboard's tables.

    Attributes:
        name: Attribute of ``Row``; the terminal's heading.
        text: Formats a row's value.
        heading: Heading in the report; None to leave the column out of it.
        terminal: Whether the terminal's table shows the column.
        style: Classes of the report's cells: ``n`` for numbers (right-aligned), ``words``, ``id``.
        rare: Whether the column is left out where no row has a value.
    """

    name: str
    text: Callable[[Row], str]
    heading: str | None = None
    terminal: bool = True
    style: str = "n"
    rare: bool = False


COLUMNS = (
    Column(name="rank", heading="rank", text=lambda row: str(row.rank)),
    Column(name="experts", heading="experts", text=lambda row: ", ".join(row.experts), style="words"),
    Column(name="dataset", text=lambda row: row.dataset, style="words"),
    Column(name="validation_accuracy", heading="validation", text=lambda row: f"{row.validation_accuracy:.4f}"),
    Column(
        name="validation_half",
        heading="± 95 %",
        text=lambda row: formatting.accuracy(row.validation_half),
        terminal=False,
    ),
    Column(name="suspect", heading="suspect", text=lambda row: row.suspect, style="words", rare=True),
    Column(name="seeds", heading="seeds", text=lambda row: str(row.seeds)),
    Column(name="test_accuracy", heading="test", text=lambda row: formatting.accuracy(row.test_accuracy)),
    Column(name="epochs", heading="epochs", text=lambda row: str(row.epochs)),
    Column(
        name="train_size",
        heading="training images",
        text=lambda row: "" if row.train_size is None else formatting.count(row.train_size),
        rare=True,
    ),
    Column(name="batch", text=lambda row: str(row.batch)),
    Column(name="seconds", heading="seconds", text=lambda row: f"{row.seconds:.1f}"),
    Column(name="parameters", heading="parameters", text=lambda row: formatting.count(row.parameters)),
    Column(name="id", heading="id", text=lambda row: row.id[:13], style="id"),
)
"""Columns in the order of both tables; JSON has every field of ``Row``."""


def columns_of(rows: Sequence[Row]) -> list[Column]:
    """Return the columns that a table of these rows needs."""
    return [column for column in COLUMNS if not column.rare or any(column.text(row) for row in rows)]


def leaderboard(trials: Iterable[StoredTrial | TrialScore], *, top: int | None = None) -> tuple[Row, ...]:
    """Rank trained candidates by mean validation accuracy within each data set, and keep the ``top`` rows of each."""
    groups: dict[tuple[Any, ...], dict[int, StoredTrial | TrialScore]] = {}
    for trial in trials:
        spec = trial.spec
        if spec is not None and trial.validation_accuracy is not None:
            key = (spec.dataset, trial.candidate_id, spec.shape, spec.train_size, spec.epochs, _batch(trial), spec.lr)
            kept = groups.setdefault(key, {})
            # The same seed again is the same work; a revealed test accuracy must not be lost with it.
            if trial.seed not in kept or kept[trial.seed].test_accuracy is None:
                kept[trial.seed] = trial
    reasons = _reasons(groups.values())
    by_dataset: dict[str, list[list[StoredTrial | TrialScore]]] = {}
    for key, kept in groups.items():
        by_dataset.setdefault(key[0], []).append(list(kept.values()))
    rows: list[Row] = []
    for dataset in sorted(by_dataset):
        ranked = sorted(by_dataset[dataset], key=lambda same: (-fmean(_accuracies(same)), same[0].id))
        halves = _half_widths(ranked)
        for rank, same in enumerate(ranked[:top], start=1):
            row = _row(rank, same, reasons)
            half = halves.get((row.shape, row.epochs))
            rows.append(row if half is None else replace(row, validation_half=half / math.sqrt(row.seeds)))
    return tuple(rows)


def _reasons(groups: Iterable[Mapping[int, StoredTrial | TrialScore]]) -> dict[int, str]:
    """Return the reasons why trials are suspect among those of their fidelity, by the trial's id."""
    peers: dict[Fidelity, list[StoredTrial | TrialScore]] = {}
    for trial in (trial for kept in groups for trial in kept.values()):
        if trial.spec is not None:
            peers.setdefault(trial.spec.fidelity, []).append(trial)
    return {key: reason for same in peers.values() for key, reason in suspicions(same).items()}


def _half_widths(groups: Iterable[Sequence[StoredTrial | TrialScore]]) -> dict[tuple[str, int], float]:
    """Return half the width of one seed's 95 % interval, by shape and number of epochs.

    It comes from the pooled variance between seeds: a row of two seeds would hardly know its own noise.
    """
    squares: dict[tuple[str, int], float] = {}
    freedom: dict[tuple[str, int], int] = {}
    for same in groups:
        if len(same) > 1 and same[0].spec is not None:
            key, accuracies = (str(same[0].spec.shape), same[0].spec.epochs), _accuracies(same)
            mean = fmean(accuracies)
            squares[key] = squares.get(key, 0.0) + math.fsum((one - mean) ** 2 for one in accuracies)
            freedom[key] = freedom.get(key, 0) + len(same) - 1
    return {key: float(stdtrit(df, 0.975)) * math.sqrt(squares[key] / df) for key, df in freedom.items()}


def _batch(trial: StoredTrial | TrialScore) -> int:
    """Return the batch size used in training; archives older than halved batches do not record it."""
    assert trial.spec is not None
    return trial.spec.batch if trial.batch is None else trial.batch


def _accuracies(trials: Sequence[StoredTrial | TrialScore]) -> list[float]:
    return [trial.validation_accuracy for trial in trials if trial.validation_accuracy is not None]


def _row(rank: int, same: Sequence[StoredTrial | TrialScore], reasons: Mapping[int, str]) -> Row:
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
        suspect=next((reasons[trial.id] for trial in same if trial.id in reasons), ""),
        train_size=first.spec.train_size,
    )
