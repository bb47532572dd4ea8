"""Export into LEMUR's SQLite database, in one transaction, under the lock file that LEMUR 2.2.11 uses."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from nngen.errors import ExportError
from nngen.export.folder import Written
from nngen.export.selection import Export
from nngen.lemur.layout import LemurVersion, entry, nn_id, stat_id

_WAIT_S = 60.0
_WORK_S = 60.0
_BESIDE = (".lock", "-journal", "-wal", "-shm")  # endings of the files that LEMUR and SQLite write beside a database

_TABLES = {
    "nn": {"name", "code", "id"},
    "transform": {"name", "code", "id"},
    "metric": {"name", "code", "id"},
    "prm": {"uid", "name", "value"},
    "stat": {"id", "accuracy", "epoch", "duration", "task", "dataset", "nn", "transform", "metric", "prm"},
}
_TRAIN_STAT = "train_stat"
_NOT_PRM = frozenset({"uid", "accuracy", "duration", _TRAIN_STAT})


def export_to_database(
    path: Path, exports: Sequence[Export], version: LemurVersion, *, wait_s: float = _WAIT_S
) -> tuple[Written, ...]:
    """Insert sources, transforms, hyperparameters and results, all or none.

    Raises:
        ExportError: If the database is missing, of another version, locked, not writable, or contains a
            different source under a model's name.
    """
    if not path.is_file():
        raise ExportError(f"database {path} does not exist: let LEMUR build it (import ab.nn.api), or name a folder")
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        raise ExportError(f"the database {path} cannot be written: permission denied")
    if links := [place for end in _BESIDE if (place := path.with_name(path.name + end)).is_symlink()]:
        raise ExportError(f"{links[0]} is a link, and links are not followed here: remove it")
    end = time.monotonic() + wait_s + _WORK_S
    try:
        with _lock(path, wait_s), closing(sqlite3.connect(path, timeout=wait_s, isolation_level=None)) as db:
            # A database may bring triggers and views of its own, and some of them never end.
            db.set_progress_handler(lambda: time.monotonic() > end, 100_000)
            _check(db, path, version)
            db.execute("BEGIN IMMEDIATE")
            with db:
                return tuple(_insert(db, path, export, version) for export in exports)
    except sqlite3.Error as error:
        raise ExportError(f"cannot export to {path}: {error}; nothing was changed") from error


@contextmanager
def _lock(path: Path, wait_s: float) -> Iterator[None]:
    """Lock ``ab.nn.db.lock`` as 2.2.11 does; the file stays, as LEMUR leaves it."""
    name = path.with_name(f"{path.name}.lock")
    try:
        handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise ExportError(f"cannot lock {path}: {error.strerror}") from error
    try:
        end = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() > end:
                    raise ExportError(f"{path} is locked by another program: try again when it is done") from error
                time.sleep(0.1)
        yield
    finally:
        os.close(handle)


def _check(db: sqlite3.Connection, path: Path, version: LemurVersion) -> None:
    for table, columns in _TABLES.items():
        if missing := sorted(columns - _columns(db, table)):
            raise ExportError(f"{path} is not a database of nn-dataset {version}: table {table} lacks {missing[0]}")
    found = LemurVersion.V2_2_11 if _columns(db, _TRAIN_STAT) else LemurVersion.V2_1_2
    if found is not version:
        raise ExportError(f"{path} is a database of nn-dataset {found}, not {version}: use --lemur {found}")


def _columns(db: sqlite3.Connection, table: str) -> set[str]:
    return {str(row[0]) for row in db.execute("SELECT name FROM pragma_table_info(?)", [table])}


def _insert(db: sqlite3.Connection, path: Path, export: Export, version: LemurVersion) -> Written:
    if not _has(db, "metric", export.results.metric):
        raise ExportError(f"{path} has no metric {export.results.metric}: let LEMUR import its own results first")
    if export.transform.source is None and not _has(db, "transform", export.transform.name):
        export = export.standing_in()
    _add_code(db, path, "nn", export.candidate.id, export.candidate.source)
    if export.transform.source is not None:
        _add_code(db, path, "transform", export.transform.name, export.transform.source)
    key = stat_id(export.results, export.score)
    if db.execute("SELECT 1 FROM stat WHERE id = ?", [key]).fetchone():
        return Written(export=export, new=False, place="stat")
    written = entry(export.results, export.score, version)
    for name, value in written.items():
        if name not in _NOT_PRM and value is not None:
            _add_prm(db, written["uid"], name, value)
    task, dataset, metric, model = export.results
    score = (export.score.accuracy, export.score.epoch, export.score.duration_ns)
    db.execute(
        "INSERT INTO stat (id, accuracy, epoch, duration, task, dataset, nn, transform, metric, prm) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [key, *score, task, dataset, model, export.transform.name, metric, written["uid"]],
    )
    if version is LemurVersion.V2_2_11:
        _add_train_stat(db, key, export)
    return Written(export=export, new=True, place="stat")


def _has(db: sqlite3.Connection, table: str, name: str) -> bool:
    return db.execute(f"SELECT 1 FROM {table} WHERE name = ?", [name]).fetchone() is not None  # noqa: S608


def _add_code(db: sqlite3.Connection, path: Path, table: str, name: str, code: str) -> None:
    there = db.execute(f"SELECT code FROM {table} WHERE name = ?", [name]).fetchone()  # noqa: S608
    if there is None:
        db.execute(f"INSERT INTO {table} (name, code, id) VALUES (?, ?, ?)", [name, code, nn_id(code)])  # noqa: S608
    elif there[0] != code:
        raise ExportError(f"{path} has a different source under the name {name}: remove it there first")


def _add_prm(db: sqlite3.Connection, uid: str, name: str, value: Any) -> None:
    # LEMUR adds the same rows again with every trial; one of each is enough.
    row = [uid, name, value]
    if not db.execute("SELECT 1 FROM prm WHERE uid = ? AND name = ? AND value = ?", row).fetchone():
        db.execute("INSERT INTO prm (uid, name, value) VALUES (?, ?, ?)", row)


def _add_train_stat(db: sqlite3.Connection, key: str, export: Export) -> None:
    known = _columns(db, _TRAIN_STAT)
    values = {name: value for name, value in export.score.train_stat.items() if name in known}
    names, marks = ", ".join(["stat_id", *values]), ", ".join("?" * (1 + len(values)))
    db.execute(f"INSERT INTO {_TRAIN_STAT} ({names}) VALUES ({marks})", [key, *values.values()])  # noqa: S608
