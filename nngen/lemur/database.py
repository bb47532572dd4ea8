"""LEMUR as ``ab.nn.db``, the SQLite file that nn-dataset 2.1.2 builds."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

from nngen.errors import LemurError
from nngen.lemur.reader import MAX_FILE_BYTES, Lemur
from nngen.lemur.records import ResultFile, Results, is_name
from nngen.text import one_line

_SCHEMA = {
    "nn": {"name", "code"},
    "stat": {"accuracy", "epoch", "duration", "task", "dataset", "nn", "transform", "metric", "prm"},
    "prm": {"uid", "name", "value"},
}

# A view may have rows without end, and a virtual table runs code.
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'"

_ROWS = """
    SELECT task, dataset, metric, nn, epoch, accuracy, duration, transform, prm FROM stat WHERE {condition}
    ORDER BY task, dataset, metric, nn, epoch, accuracy DESC, rowid
"""

# LEMUR writes a trial's parameters again at each epoch: hence DISTINCT.
_PARAMETERS = """
    SELECT DISTINCT uid, name, value FROM prm WHERE uid IN (SELECT prm FROM stat WHERE {condition})
"""

_log = logging.getLogger(__name__)


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
        real = {str(name) for (name,) in self._query(_TABLES)}
        for table, columns in _SCHEMA.items():
            found = {str(row[0]) for row in self._query("SELECT name FROM pragma_table_info(?)", table)}
            if missing := sorted(columns - found):
                reason = f"table {table} has no column {missing[0]}" if found else f"it has no table {table}"
                raise LemurError(f"{path} is not a database of nn-dataset 2.1.2: {reason}")
            if table not in real:
                raise LemurError(f"{path} is not a database of nn-dataset 2.1.2: {table} is not a plain table")

    def models(self) -> tuple[str, ...]:
        return tuple(row[0] for row in self._query("SELECT name FROM nn ORDER BY name") if _are_names(row))

    def source(self, model: str) -> str:
        # As bytes: a text that is not UTF-8 must not come as another one.
        for (code,) in self._query("SELECT CAST(code AS BLOB) FROM nn WHERE name = ?", model):
            try:
                return bytes(code or b"").decode()
            except UnicodeDecodeError as error:
                raise LemurError(f"{self.path}: the source of {model} is not text: {error}") from error
        raise LemurError(f"{self.path} has no model {model!r}")

    def results(self) -> tuple[Results, ...]:
        rows = self._query("SELECT DISTINCT task, dataset, metric, nn FROM stat ORDER BY task, dataset, metric, nn")
        return tuple(Results(*row) for row in rows if _are_names(row))

    def last_epochs(self) -> Mapping[Results, int]:
        columns = "task, dataset, metric, nn"
        rows = self._query(f"SELECT {columns}, max(epoch) FROM stat GROUP BY {columns}")  # noqa: S608
        return {Results(*row[:4]): row[4] for row in rows if _are_names(row[:4]) and isinstance(row[4], int)}

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
            parameters.setdefault(uid, {})[str(name)] = value
        odd, example = 0, ""
        rows = self._query(_ROWS.format(condition=condition), *values)
        for key, group in groupby(rows, key=lambda row: row[:5]):
            if not (_are_names(key[:4]) and isinstance(key[4], int) and 0 <= key[4] < 10**9):
                odd, example = odd + 1, example or one_line(", ".join(map(str, key)), 100)
                continue
            trials = [
                {**parameters.get(uid, {}), "transform": transform, "accuracy": reached, "duration": took, "uid": uid}
                for *_, reached, took, transform, uid in group
            ]
            yield ResultFile(Results(*key[:4]), key[4], trials)
        if odd:
            _log.warning("%s: results that LEMUR did not write are left out, %d: %s", self.path, odd, example)

    def _query(self, query: str, *values: str) -> Iterator[tuple[Any, ...]]:
        try:
            with closing(sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
                connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_FILE_BYTES)
                connection.text_factory = lambda text: text.decode(errors="replace")
                connection.execute("PRAGMA trusted_schema = OFF")
                yield from connection.execute(query, values)
        except (sqlite3.Error, OverflowError, ValueError) as error:
            reason = one_line(str(error))
            raise LemurError(f"{self.path} cannot be read as LEMUR's database: {reason}") from error


def _are_names(values: Sequence[Any]) -> bool:
    return all(isinstance(value, str) and is_name(value) for value in values)
