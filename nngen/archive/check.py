"""Check of every row of an archive, and a copy of those that can be read.

The file is read table by table and row by row, behind the back of everything else: neither a damaged page nor a
damaged value keeps the rest from being read.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nngen.archive.connection import SQLITE_ERRORS, Connection, connect, connect_to_read, open_database, transaction
from nngen.archive.external import replay_from_row
from nngen.archive.records import TrialState
from nngen.archive.rows.builders import campaign_from_row, event_from_row, names_from_row
from nngen.archive.rows.columns import UNREADABLE, DamagedRowError, check_texts, read, share
from nngen.archive.rows.trials import TrialRows, point_from_row
from nngen.archive.rows.values import plan_from_text, verdict_from_row
from nngen.archive.schema import APPLICATION_ID, LEDGER, MIGRATIONS, applied, migrate
from nngen.errors import ArchiveError, UsageError
from nngen.text import one_line

# Rows that others refer to stand first.
_TABLES = (
    *("families", "plans", "candidates", "candidate_experts", "verdicts", "campaigns", "trials", "curves"),
    *("predictions", "logits", "labels", "class_names", "image_features", "reveals", "events"),
    *("foreign_models", "foreign_series", "foreign_settings", "foreign_trials", "replays"),
)

_OPTIONAL = {"candidates": "plan_id", "candidate_experts": "fingerprint", "trials": "copied_from"}
"""Column of a table that may be left out where the row that it refers to is lost."""

_RESULTS = ("curves", "predictions", "logits", "reveals")  # tables of what belongs to a finished trial

_OPEN_TRIAL = ("id", "campaign", "position", "rung", "replicate", "plan_id", "given_isolation", "given_seed")
"""Columns that a trial keeps which is to be trained again."""

_MOST_PROBLEMS = 1000


@dataclass(slots=True, kw_only=True)
class Check:
    """Result of a check or a salvage."""

    path: Path  # file that was checked
    rows: dict[str, int] = field(default_factory=dict)  # number of rows that can be read, by table
    problems: dict[str, str] = field(default_factory=dict)  # what is wrong, by row or table; at most 1,000 are kept
    damaged: int = 0  # number of rows that cannot be read, as far as they can be counted
    # number of trials whose result was lost, so that they are to be trained again in the salvaged archive
    again: int = 0
    saved: Path | None = None  # file of the salvaged archive; None for a check

    def note(self, where: str, reason: object, count: int = 1) -> None:
        """Add a problem with so many rows."""
        self.damaged += count
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems[where] = one_line(str(reason), 200)


def check(path: Path) -> Check:
    """Read every row of an archive.

    Raises:
        ArchiveError: If there is none, or the file cannot be opened at all.
    """
    found = Check(path=path)
    with _opened(path, found) as db:
        with suppress(*SQLITE_ERRORS):
            lines = [line for (line,) in db.execute("PRAGMA integrity_check(20)") if line != "ok"]
            for number, line in enumerate(lines, start=1):
                found.note(f"file {number}", line, 0)
        for table, _, _, reason in _walk(db, found):
            found.rows[table] = found.rows.get(table, 0) + (not reason)
    return found


def salvage(path: Path, out: Path) -> Check:
    """Copy the rows that can be read into a new archive.

    A trial whose plan can be read but whose result cannot is stored as ready, to be trained again.

    Raises:
        UsageError: If ``out`` exists.
        ArchiveError: If the archive does not exist, cannot be opened at all, or ``out`` cannot be written.
    """
    if out.exists():
        raise UsageError(f"{out} exists already: name another file with --out, or move it away")
    found = Check(path=path, saved=out)
    draft = out.with_name(f".{out.name}.part")
    draft.unlink(missing_ok=True)
    try:
        with (
            _opened(path, found) as db,
            closing(open_database(draft, create=True, readonly=False)) as target,
            transaction(target),
        ):
            _copy(db, target, found)
        draft.rename(out)
    finally:
        draft.unlink(missing_ok=True)
    return found


def _copy(source: Connection, target: Connection, found: Check) -> None:
    again: dict[int, str] = {}
    for table, key, row, reason in _walk(source, found):
        new = row
        if reason and table == "trials" and row.keys() >= {*_OPEN_TRIAL, "candidate_id", "given_isolation"}:
            new = {name: row[name] for name in _OPEN_TRIAL} | {"state": TrialState.READY.value}
            new["candidate_id"] = row["candidate_id"] if row["given_isolation"] else None
        if (reason and new is row) or (table in _RESULTS and row.get("trial_id") in again):
            continue
        failure = _insert(target, table, new)
        if failure:
            found.note(key, failure, 0 if reason else 1)
            continue
        found.rows[table] = found.rows.get(table, 0) + 1
        if reason:
            again[row["id"]] = reason
    found.again = len(again)
    for trial_id, reason in again.items():
        target.execute(
            "INSERT INTO events (at, campaign, trial_id, kind, detail) SELECT ?, campaign, id, 'trial.requeued', "
            "json_object('reason', ?) FROM trials WHERE id = ?",
            [datetime.now(UTC).isoformat(timespec="milliseconds"), f"its row was damaged: {reason}", trial_id],
        )


def _insert(db: Connection, table: str, row: Mapping[str, Any]) -> str:
    """Add a row, if need be without the reference that it can do without; return why it cannot be added."""
    reason = ""
    for values in (row, {**row, _OPTIONAL[table]: None}) if table in _OPTIONAL else (row,):
        sql = f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})"  # noqa: S608
        try:
            db.execute(sql, list(values.values()))
        except (*SQLITE_ERRORS, OverflowError, UnicodeError) as error:
            reason = str(error)
        else:
            return ""
    return reason


@contextmanager
def _opened(path: Path, found: Check) -> Iterator[Connection]:
    """Open a file for reading as it is; an archive of an earlier version as a copy that is migrated."""
    if not path.is_file():
        raise ArchiveError(f"no archive at {path}: name one with --archive")
    with ExitStack() as stack:
        db = stack.enter_context(closing(connect_to_read(path)))
        try:
            known, done = db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID, applied(db)
        except SQLITE_ERRORS as error:
            raise ArchiveError(
                f"archive {path} cannot be read at all ({one_line(str(error))}): restore a copy"
            ) from error
        if not known:
            raise ArchiveError(f"{path} is not an archive of nngen: name one with --archive")
        if not done:
            found.note(f"table {LEDGER}", "it is missing or empty", 0)
        if not done >= MIGRATIONS.keys():
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            copy = stack.enter_context(closing(connect(Path(folder) / "copy.db")))
            db.backup(copy)
            db = copy
            for step in (MIGRATIONS[name] for name in MIGRATIONS if name not in done):
                # Each step begins with what fails where it was applied before.
                with suppress(ArchiveError, LookupError, TypeError, ValueError), transaction(db):
                    step(db)
        db.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        yield db


def _walk(db: Connection, found: Check) -> Iterator[tuple[str, str, dict[str, Any], str]]:
    """Iterate over all rows: table, name of the row for messages, its columns, and why it cannot be read."""
    trials, plans = TrialRows(), dict[str, str]()
    for table, columns in _columns().items():
        for row in _rows(db, table, found):
            key, reason = f"{table} {one_line(str(next(iter(row.values()))), 60)}", ""
            try:
                if missing := columns - row.keys():  # a byte of the schema may be damaged too
                    raise DamagedRowError(f"column {min(missing)} is missing")
                check_texts(row)
                if table == "plans":
                    plans[row["id"]] = row["plan"]
                elif table == "trials":
                    trials.trial({**row, "plan": plans.get(row["plan_id"]), "test_accuracy": None}, ())
                _validate(table, row)
            except UNREADABLE as error:
                reason = str(error)
                found.note(key, reason)
            yield table, key, row, reason


def _columns() -> dict[str, set[str]]:
    """Return the columns that each table has in a new archive."""
    with closing(connect(":memory:")) as db:
        migrate(db)
        return {table: {row["name"] for row in db.execute(f"PRAGMA table_info({table})")} for table in _TABLES}


def _rows(db: Connection, table: str, found: Check) -> Iterator[dict[str, Any]]:
    """Iterate over the rows of a table that SQLite can find.

    Where a page is damaged the walk ends; a second walk, from the other end, finds the rows behind the damage.
    """
    key = "series_id, epoch, setting_id, accuracy, duration_s" if table == "foreign_trials" else "rowid"
    seen: set[tuple[Any, ...]] = set()
    for order in ("ASC", "DESC"):
        keys = ", ".join(f"{name} {order}" for name in key.split(", "))
        try:
            for row in db.execute(f"SELECT *, {key} FROM {table} ORDER BY {keys}"):  # noqa: S608
                place = tuple(row)[-len(key.split(", ")) :]
                if place in seen:
                    return
                seen.add(place)
                columns = row.keys()[: len(row) - len(place)]
                yield dict(zip(columns, tuple(row), strict=False))
            return
        except SQLITE_ERRORS as error:
            found.note(f"table {table}", error, 0)


def _validate(table: str, row: Mapping[str, Any]) -> None:
    """Read a row as the archive does, where it can be read without others.

    Raises:
        DamagedRowError: If it cannot be read.
    """
    match table:
        case "families":
            read(row, "best", lambda text: text and json.loads(text))
        case "plans":
            read(row, "plan", plan_from_text)
        case "verdicts":
            verdict_from_row(row)
        case "campaigns":
            campaign_from_row(row)
        case "curves":
            point_from_row(row)
        case "class_names":
            names_from_row(row)
        case "reveals":
            read(row, "test_accuracy", share)
        case "events":
            event_from_row(row)
        case "foreign_settings":
            read(row, "hyperparameters", json.loads)
        case "replays":
            replay_from_row(row)
