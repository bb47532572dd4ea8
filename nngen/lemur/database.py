"""LEMUR as ``ab.nn.db``, the SQLite file that nn-dataset 2.1.2 builds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from nngen.errors import LemurError
from nngen.lemur.records import CLASSIFICATION, Results, pick, to_record
from nngen.types import Record

__all__ = ["DatabaseLemur"]

_SCHEMA = {
    "nn": {"name", "code"},
    "stat": {"accuracy", "epoch", "duration", "task", "dataset", "nn", "transform", "metric", "prm"},
    "prm": {"uid", "name", "value"},
}

_OF = "task = ? AND dataset = ? AND metric = ? AND nn = ? AND accuracy IS NOT NULL"

_TRIALS = f"""
    SELECT prm, epoch, accuracy, duration, transform FROM stat WHERE {_OF}
    ORDER BY epoch, accuracy DESC, rowid
"""  # noqa: S608  # both halves are constants above

_PARAMETERS = f"""
    SELECT DISTINCT uid, name, value FROM prm WHERE uid IN (SELECT prm FROM stat WHERE {_OF})
"""  # noqa: S608  # LEMUR writes a trial's parameters again at each epoch: hence DISTINCT


class DatabaseLemur:
    """An ``ab.nn.db`` of nn-dataset 2.1.2, opened for reading only."""

    identity: str | None = None
    """LEMUR adds rows to its database as it trains, so nothing derived from it is kept."""

    def __init__(self, path: Path) -> None:
        """Look at the database.

        Raises:
            LemurError: If it is no SQLite file, or its tables are not those of nn-dataset 2.1.2.
        """
        self.path = path
        self.name = path.name
        for table, columns in _SCHEMA.items():
            found = {str(row[0]) for row in self._query("SELECT name FROM pragma_table_info(?)", table)}
            if missing := sorted(columns - found):
                what = f"table {table} has no column {missing[0]}" if found else f"it has no table {table}"
                raise LemurError(f"{path} is no database of nn-dataset 2.1.2: {what}")

    def models(self) -> tuple[str, ...]:
        return tuple(str(row[0]) for row in self._query("SELECT name FROM nn ORDER BY name"))

    def source(self, model: str) -> str:
        for row in self._query("SELECT code FROM nn WHERE name = ?", model):
            return str(row[0])
        raise LemurError(f"{self.path} holds no model {model!r}")

    def records(self, model: str, dataset: str = "cifar-10") -> tuple[Record, ...]:
        keys = self._query("SELECT DISTINCT task, metric FROM stat WHERE nn = ? AND dataset = ?", model, dataset)
        results = pick(Results(task, dataset, metric, model) for task, metric in keys)
        if results is None:
            return ()
        parameters: dict[str, dict[str, Any]] = {}
        for uid, name, value in self._query(_PARAMETERS, *results):
            parameters.setdefault(uid, {})[name] = value
        found = []
        for uid, epoch, accuracy, duration, transform in self._query(_TRIALS, *results):
            trial = {"accuracy": accuracy, "duration": duration, "transform": transform, **parameters.get(uid, {})}
            found.append(to_record(results, epoch, trial))
        return tuple(found)

    def recorded_models(self, dataset: str = "cifar-10") -> tuple[str, ...]:
        query = "SELECT DISTINCT nn FROM stat WHERE task = ? AND metric = ? AND dataset = ? ORDER BY nn"
        return tuple(str(row[0]) for row in self._query(query, *CLASSIFICATION, dataset))

    def datasets(self, model: str) -> tuple[str, ...]:
        query = "SELECT DISTINCT dataset FROM stat WHERE nn = ? ORDER BY dataset"
        return tuple(str(row[0]) for row in self._query(query, model))

    def _query(self, query: str, *values: str) -> Iterator[tuple[Any, ...]]:
        try:
            with closing(sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
                rows = connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise LemurError(f"{self.path} cannot be read as LEMUR's database: {error}") from error
        return iter(rows)
