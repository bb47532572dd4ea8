"""Columns of the leaderboard, for the table of the terminal, the report and the dashboard.

A column shows an attribute of ``Row``; the terminal's table and the report are made from ``COLUMNS``. CONTRIBUTING.md
lists the files that a measurement is added in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nngen.analysis import formatting
from nngen.analysis.ranking.rows import Row


def _always(_: Sequence[Row]) -> bool:
    return True


def _some(name: str) -> Callable[[Sequence[Row]], bool]:
    return lambda rows: any(getattr(row, name) for row in rows)


def _differing(name: str) -> Callable[[Sequence[Row]], bool]:
    return lambda rows: len({getattr(row, name) for row in rows}) > 1


def _versions(rows: Sequence[Row]) -> bool:
    return len({(row.dataset, row.data) for row in rows}) > len({row.dataset for row in rows})


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of the leaderboard's tables."""

    name: str  # attribute of ``Row``; the terminal's heading
    text: Callable[[Row], str]  # formats a row's value for the report; the terminal prints the value itself
    heading: str | None = None  # heading in the report; None to leave the column out of it
    terminal: bool = True  # whether the terminal's table shows the column
    style: str = "n"  # classes of the report's cells: ``n`` for numbers (right-aligned), ``words``, ``id``
    needed: Callable[[Sequence[Row]], bool] = _always  # tells whether a table of these rows needs the column


COLUMNS = (
    Column(name="rank", heading="rank", text=lambda row: str(row.rank)),
    Column(name="among", heading="among ranks", text=lambda row: row.among or "-", needed=_some("among")),
    Column(name="experts", heading="experts", text=lambda row: ", ".join(row.experts), style="words"),
    Column(name="dataset", text=lambda row: row.dataset, style="words"),
    Column(name="validation_accuracy", heading="validation", text=lambda row: f"{row.validation_accuracy:.4f}"),
    Column(name="interval", heading="95 % by images", text=lambda row: row.interval or "-", needed=_some("interval")),
    Column(name="images", heading="images", text=lambda row: formatting.count(row.images), terminal=False),
    Column(
        name="validation_half",
        heading="± 95 % by seeds",
        text=lambda row: formatting.accuracy(row.validation_half),
        terminal=False,
    ),
    Column(name="suspect", heading="suspect", text=lambda row: row.suspect, style="words", needed=_some("suspect")),
    Column(name="seeds", heading="seeds", text=lambda row: str(row.seeds)),
    Column(name="test_accuracy", heading="test", text=lambda row: formatting.accuracy(row.test_accuracy)),
    Column(name="data", heading="data", text=lambda row: row.data[:8], style="id", needed=_versions),
    Column(name="shape", heading="shape", text=lambda row: row.shape, style="id", needed=_differing("shape")),
    Column(name="epochs", heading="epochs", text=lambda row: str(row.epochs)),
    Column(
        name="horizon",
        heading="of epochs",
        text=lambda row: str(row.horizon or row.epochs),
        style="id",
        needed=_some("horizon"),
    ),
    Column(
        name="train_size",
        heading="training images",
        text=lambda row: "all" if row.train_size is None else formatting.count(row.train_size),
        needed=_some("train_size"),
    ),
    Column(name="batch", heading="batch", text=lambda row: str(row.batch)),
    Column(name="lr", heading="rate", text=lambda row: f"{row.lr:g}", style="id", needed=_differing("lr")),
    Column(
        name="momentum",
        heading="momentum",
        text=lambda row: f"{row.momentum:g}",
        style="id",
        needed=_differing("momentum"),
    ),
    Column(
        name="augment",
        heading="augmentation",
        text=lambda row: row.augment,
        style="words",
        needed=_differing("augment"),
    ),
    Column(
        name="class_weights",
        heading="class weights",
        text=lambda row: row.class_weights,
        style="words",
        needed=_differing("class_weights"),
    ),
    Column(name="seconds", heading="seconds", text=lambda row: f"{row.seconds:.1f}"),
    Column(name="parameters", heading="parameters", text=lambda row: formatting.count(row.parameters)),
    Column(name="id", heading="id", text=lambda row: row.id[:13], style="id"),
)
"""Columns in the order of both tables; JSON has every field of ``Row``."""


def columns_of(rows: Sequence[Row]) -> list[Column]:
    """Return the columns that a table of these rows needs."""
    return [column for column in COLUMNS if column.needed(rows)]
