"""LEMUR as ``ab.nn.db``, the SQLite file that nn-dataset 2.1.2 builds."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

from nngen.errors import LemurError
from nngen.lemur.reader import Lemur
from nngen.lemur.records import ResultFile, Results

_SCHEMA = {
    "nn": {"name", "code"},
    "stat": {"accuracy", "epoch", "duration", "task", "dataset", "nn", "transform", "metric", "prm"},
    "prm": {"uid", "name", "value"},
}

_ROWS = """
    SELECT task, dataset, metric, nn, epoch, accuracy, duration, transform, prm FROM stat WHERE {condition}
    ORDER BY task, dataset, metric, nn, epoch, accuracy DESC, rowid
"""

# LEMUR writes a trial's parameters again at each epoch: hence DISTINCT.
_PARAMETERS = """
    SELECT DISTINCT uid, name, value FROM prm WHERE uid IN (SELECT prm FROM stat WHERE {condition})
"""


class DatabaseLemur(Lemur):
    """An ``ab.nn.db`` of nn-dataset 2.1.2, opened for reading only.

    LEMUR adds rows to it while it trains, so nothing derived from it is cached.
    """

    def __init__(self, path: Path) -> None:
        """Check the tables of the database.

        Raises:
            LemurError: If it is not an SQLite file, or its tables are not those of nn-dataset 2.1.2.
        """
        super().__init__(path)
        for table, columns in _SCHEMA.items():
            found = {str(row[0]) for row in self._query("SELECT name FROM pragma_table_info(?)", table)}
            if missing := sorted(columns - found):
                reason = f"table {table} has no column {missing[0]}" if found else f"it has no table {table}"
                raise LemurError(f"{path} is not a database of nn-dataset 2.1.2: {reason}")

    def models(self) -> tuple[str, ...]:
        return tuple(str(row[0]) for row in self._query("SELECT name FROM nn ORDER BY name"))

    def source(self, model: str) -> str:
        for row in self._query("SELECT code FROM nn WHERE name = ?", model):
            return str(row[0])
        raise LemurError(f"{self.path} has no model {model!r}")

    def results(self) -> tuple[Results, ...]:
        rows = self._query("SELECT DISTINCT task, dataset, metric, nn FROM stat ORDER BY task, dataset, metric, nn")
        return tuple(Results(*map(str, row)) for row in rows)

    def read_results(
        self, datasets: Collection[str] | None = None, models: Collection[str] | None = None
    ) -> Iterator[ResultFile]:
        condition = "accuracy IS NOT NULL"
        values: list[str] = []
        for column, names in (("dataset", datasets), ("nn", models)):
            if names is not None:
                condition += f" AND {column} IN ({', '.join('?' * len(names))})"
                values += names
        parameters: dict[str, dict[str, Any]] = {}
        for uid, name, value in self._query(_PARAMETERS.format(condition=condition), *values):
            parameters.setdefault(uid, {})[name] = value
        rows = self._query(_ROWS.format(condition=condition), *values)
        for key, group in groupby(rows, key=lambda row: row[:5]):
            trials = [
                {**parameters.get(uid, {}), "transform": transform, "accuracy": reached, "duration": took, "uid": uid}
                for *_, reached, took, transform, uid in group
            ]
            yield ResultFile(Results(*map(str, key[:4])), int(key[4]), trials)

    def _query(self, query: str, *values: str) -> Iterator[tuple[Any, ...]]:
        try:
            with closing(sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
                yield from connection.execute(query, values)
        except sqlite3.Error as error:
            raise LemurError(f"{self.path} cannot be read as LEMUR's database: {error}") from error
