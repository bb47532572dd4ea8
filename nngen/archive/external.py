"""Models and results imported from LEMUR, stored apart from the trials of this package.

They have no plan, no campaign and no validation split, and their accuracies are on LEMUR's test split, so they are
never mixed with own trials by default. Like every record of the archive they are append-only.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nngen.archive.connection import sqlite_errors, transaction
from nngen.types import Record

__all__ = ["Added", "ExternalModel", "ExternalResult", "ExternalResults"]

_RECORDS = """
    SELECT foreign_models.name, foreign_series.dataset, epoch, accuracy, duration_s, hyperparameters
    FROM foreign_trials
    JOIN foreign_series ON foreign_series.id = series_id
    JOIN foreign_models ON foreign_models.id = model_id
    JOIN foreign_settings ON foreign_settings.id = setting_id
    WHERE task = ?1 AND metric = ?2 AND (?3 IS NULL OR dataset = ?3) AND (?4 IS NULL OR name = ?4)
      AND (?5 IS NULL OR epoch = ?5)
    ORDER BY name, dataset, epoch, accuracy DESC, setting_id
"""

_MODELS = "SELECT id, origin, name, kind, nn_id, canonical, source FROM foreign_models"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalModel:
    """A model from another source.

    Attributes:
        origin: Name of the wheel, checkout or database it was read from.
        name: Name of the model there.
        kind: ``base``, ``hetero`` (a mixture of different families), ``mixture`` or ``generated``.
        nn_id: LEMUR's id of the source.
        canonical: SHA-256 over the parsed tree; None where it does not parse.
        source: Text of the model's file.
    """

    origin: str
    name: str
    kind: str
    nn_id: str
    canonical: str | None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalResult:
    """One trial at one epoch, to be added to the archive.

    Attributes:
        model_id: Number of the model, as ``ExternalResults.add_models`` returns it.
        task: Task, as LEMUR names it.
        dataset: Data set, as LEMUR names it.
        metric: Metric of ``accuracy``.
        epoch: Epochs trained, from 1.
        accuracy: Value of the metric on LEMUR's test split.
        duration_s: Seconds of training until this epoch.
        uid: LEMUR's id of the hyperparameters.
        hyperparameters: All values that LEMUR recorded, ``transform`` and ``batch`` among them.
    """

    model_id: int
    task: str
    dataset: str
    metric: str
    epoch: int
    accuracy: float
    duration_s: float
    uid: str
    hyperparameters: Mapping[str, float | int | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """Number of results offered, and of those that were new."""

    offered: int
    new: int


class ExternalResults:
    """The imported part of an archive, available as ``Archive.external``."""

    def __init__(self, db: sqlite3.Connection, path: Path | None) -> None:
        self._db, self._path = db, path
        self._series: dict[tuple[int, str, str, str], int] = {}
        self._settings: dict[tuple[str, str], int] | None = None

    def add_models(self, models: Iterable[ExternalModel]) -> dict[str, int]:
        """Add models, all or none; models that are stored already are not added again.

        Returns:
            Number of every model offered, by name.

        Raises:
            ArchiveError: If the archive cannot be written.
        """
        sql = (
            "INSERT OR IGNORE INTO foreign_models (origin, name, kind, nn_id, canonical, source, created_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)"
        )
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        offered = list(models)
        rows = ((m.origin, m.name, m.kind, m.nn_id, m.canonical, m.source, now) for m in offered)
        with self._transaction() as connection:
            connection.executemany(sql, rows)
            known = {
                (origin, name, nn_id): number
                for number, origin, name, nn_id in connection.execute(
                    "SELECT id, origin, name, nn_id FROM foreign_models"
                )
            }
        return {model.name: known[model.origin, model.name, model.nn_id] for model in offered}

    def add_results(self, results: Iterable[ExternalResult]) -> Added:
        """Add results, all or none; equal results are stored once.

        Raises:
            ArchiveError: If the archive cannot be written.
        """
        offered = 0
        with self._transaction() as connection:
            before = connection.total_changes
            lines: list[tuple[int, int, int, float, float]] = []
            for result in results:
                offered += 1
                series, setting = self._series_id(connection, result), self._setting_id(connection, result)
                lines.append((series, result.epoch, setting, result.accuracy, result.duration_s))
            made = connection.total_changes - before
            connection.executemany("INSERT OR IGNORE INTO foreign_trials VALUES (?, ?, ?, ?, ?)", lines)
            new = connection.total_changes - before - made
        return Added(offered=offered, new=new)

    def models(self, kind: str | None = None) -> Iterator[ExternalModel]:
        """Iterate over the models in the order of their names; of one kind, or all."""
        rows = self._each(f"{_MODELS} WHERE ?1 IS NULL OR kind = ?1 ORDER BY name, id", kind)
        for _, origin, name, found, nn_id, canonical, source in rows:
            yield ExternalModel(origin=origin, name=name, kind=found, nn_id=nn_id, canonical=canonical, source=source)

    def records(
        self,
        *,
        dataset: str | None = None,
        model: str | None = None,
        epoch: int | None = None,
        task: str = "img-classification",
        metric: str = "acc",
    ) -> Iterator[Record]:
        """Iterate over the results by model, data set and epoch, best first; each argument is a filter."""
        for name, found, at, accuracy, duration_s, text in self._each(_RECORDS, task, metric, dataset, model, epoch):
            yield Record(
                model=name,
                dataset=found,
                epoch=at,
                accuracy=accuracy,
                duration_s=duration_s,
                hyperparameters=json.loads(text),
            )

    def counts(self) -> dict[str, int]:
        """Count models, series, settings and trials."""
        tables = {"models": "foreign_models", "series": "foreign_series", "settings": "foreign_settings"}
        tables["trials"] = "foreign_trials"
        return {what: next(self._each(f"SELECT count(*) FROM {table}"))[0] for what, table in tables.items()}  # noqa: S608

    # Inside

    def _series_id(self, connection: sqlite3.Connection, result: ExternalResult) -> int:
        key = (result.model_id, result.task, result.dataset, result.metric)
        if key not in self._series:
            connection.execute(
                "INSERT OR IGNORE INTO foreign_series (model_id, task, dataset, metric) VALUES (?, ?, ?, ?)", key
            )
            self._series[key] = connection.execute(
                "SELECT id FROM foreign_series WHERE model_id = ? AND task = ? AND dataset = ? AND metric = ?", key
            ).fetchone()[0]
        return self._series[key]

    def _setting_id(self, connection: sqlite3.Connection, result: ExternalResult) -> int:
        if self._settings is None:
            rows = connection.execute("SELECT uid, hyperparameters, id FROM foreign_settings")
            self._settings = {(uid, text): number for uid, text, number in rows}
        text = json.dumps(dict(result.hyperparameters), sort_keys=True, separators=(",", ":"))
        key = (result.uid, text)
        if key not in self._settings:
            cursor = connection.execute("INSERT INTO foreign_settings (uid, hyperparameters) VALUES (?, ?)", key)
            self._settings[key] = int(cursor.lastrowid or 0)
        return self._settings[key]

    def _each(self, sql: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        with sqlite_errors(self._path):
            yield from self._db.execute(sql, values)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with transaction(self._db, self._path):
                yield self._db
        except BaseException:
            # The numbers drawn in this transaction are rolled back with it.
            self._series.clear()
            self._settings = None
            raise
