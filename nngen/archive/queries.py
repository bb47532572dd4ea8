"""Queries of an archive whose rows may be damaged: what cannot be read is left out, and named."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from nngen.archive.connection import WAY_OUT, Connection, sqlite_errors
from nngen.archive.rows.columns import UNREADABLE, check_texts
from nngen.errors import ArchiveError, UsageError
from nngen.text import did_you_mean, one_line

T = TypeVar("T")

_CHUNK = 1000  # rows that are fetched at a time


class Queries:
    """Queries of one archive, and the rows that could not be read.

    Attributes:
        damaged: Rows that could not be read so far, by table and key, with the reason.
    """

    def __init__(self, db: Connection, *, readonly: bool = False) -> None:
        self._db, self.path, self.readonly = db, db.path, readonly
        self.damaged: dict[str, str] = {}

    @property
    def weights(self) -> Path | None:
        """Folder of checkpoints and weights, beside the file; None for an archive in memory."""
        return self.path and self.path.with_name(f"{self.path.name}.weights")

    @property
    def damage(self) -> str:
        """One line on the rows that could not be read so far; empty where all could."""
        if not self.damaged:
            return ""
        (row, reason), count = next(iter(self.damaged.items())), len(self.damaged)
        rest = f" (and {count - 1:,} more)" if count > 1 else ""
        return f"archive {self._named}: {row}: {reason}{rest}: {WAY_OUT}"

    @property
    def _named(self) -> str:
        return str(self.path or "this archive")

    def _chunks(self, sql: str, values: Sequence[Any]) -> Iterator[list[sqlite3.Row]]:
        """Iterate over the rows of a query, many at a time; what is not UTF-8 in a text becomes lone surrogates."""
        count = 0
        with sqlite_errors(self.path):
            cursor = self._db.execute(sql, values)
            try:
                while rows := cursor.fetchmany(_CHUNK):
                    yield rows
                    count += len(rows)
                return
            except sqlite3.OperationalError as error:
                if "decode to UTF-8" not in str(error):
                    raise
            self._db.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
            cursor = self._db.execute(sql, values)
            if count:  # zero would stand for all
                cursor.fetchmany(count)
            while rows := cursor.fetchmany(_CHUNK):
                yield rows

    def _all(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        return list(chain.from_iterable(self._chunks(sql, values)))

    def _one(self, sql: str, *values: Any) -> sqlite3.Row | None:
        return next(iter(self._all(sql, *values)), None)

    def _built(
        self, table: str, sql: str, values: Sequence[Any], build: Callable[[sqlite3.Row], T], *, strict: bool = False
    ) -> Iterator[T]:
        """Build values from the rows of a query, whose first column names the row of ``table``.

        A row that cannot be read is left out and noted in ``damaged`` where the archive was opened for reading. A
        driver must not go on without a row, and whoever asks for one row alone gets the reason.

        Raises:
            ArchiveError: If a row cannot be read and the archive is written, or the row was asked for alone.
        """
        for rows in self._chunks(sql, values):
            yield from self._readable(table, rows, build, strict=strict)

    def _readable(
        self, table: str, rows: Sequence[sqlite3.Row], build: Callable[[sqlite3.Row], T], *, strict: bool
    ) -> list[T]:
        plain = self._db.text_factory is str
        with suppress(*UNREADABLE):
            if plain:  # nearly always no row is damaged; otherwise the same rows are built one by one
                return list(map(build, rows))
        found = []
        for row in rows:
            try:
                if not plain:
                    check_texts(row)
                found.append(build(row))
            except UNREADABLE as error:
                self.damaged[f"{table} {one_line(str(row[0]), 60)}"] = one_line(str(error))
                if strict or not self.readonly:
                    raise ArchiveError(self.damage) from error
        return found

    def _asked(self, table: str, sql: str, key: Any, build: Callable[[sqlite3.Row], T]) -> T | None:
        return next(self._built(table, sql, (key,), build, strict=True), None)

    def _grouped(
        self, parts: str, whole: str, key: str, order: str, where: str, values: Sequence[Any]
    ) -> Mapping[Any, list[sqlite3.Row]]:
        """Return the rows of the table ``parts`` by the row of ``whole`` that they belong to."""
        sql = f"SELECT {parts}.* FROM {parts} JOIN {whole} ON {whole}.id = {key} WHERE {where} ORDER BY {order}"  # noqa: S608
        groups: defaultdict[Any, list[sqlite3.Row]] = defaultdict(list)
        for row in chain.from_iterable(self._chunks(sql, values)):
            groups[row[key]].append(row)
        return groups

    def _unknown(self, what: str, name: str, names: str, *values: str) -> UsageError:
        """Make the error for a name that is not there, with the nearest of the names that a query returns."""
        known = [row[0] for row in self._all(names, *values)]
        some = f"it holds {', '.join(known[:5])}{', ...' if len(known) > 5 else ''}"
        hint = did_you_mean(name, known, otherwise=some if known else f"it holds no {what}s yet")
        return UsageError(f"no {what} {name!r} in {self._named}: {hint}")
