"""Opens the file of an archive: checks its kind and version, migrates it, and turns SQLite's errors into messages."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from nngen.archive.schema import APPLICATION_ID, LEDGER, MIGRATIONS, applied, migrate
from nngen.errors import ArchiveError

__all__ = ["check_creatable", "connect", "default_path", "open_database", "sqlite_errors", "transaction"]

_LONGEST_NAME = 200
_BUSY_S = 60.0


def default_path() -> Path:
    """Return the path of the archive without ``--archive``: ``NNGEN_ARCHIVE`` or ``./nngen.db``."""
    return Path(os.environ.get("NNGEN_ARCHIVE") or "nngen.db")


@contextmanager
def sqlite_errors(path: Path | None) -> Iterator[None]:
    """Translate SQLite's errors into one line that names the file.

    Raises:
        ArchiveError: In place of any ``sqlite3.Error``.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise ArchiveError(f"archive {path or 'in memory'}: {error}") from error


@contextmanager
def transaction(db: sqlite3.Connection, path: Path | None) -> Iterator[None]:
    """Store all writes of a block, or none of them where it raises; within ``together``, with the other calls of it.

    Raises:
        ArchiveError: In place of any ``sqlite3.Error``.
    """
    with sqlite_errors(path):
        if db.in_transaction:
            db.execute("SAVEPOINT call")
            try:
                yield
            except BaseException:
                if db.in_transaction:  # a full disk has undone everything already
                    db.execute("ROLLBACK TO call")
                raise
            finally:
                if db.in_transaction:
                    db.execute("RELEASE call")
            return
        # IMMEDIATE: a transaction that reads first and writes then would not wait for its turn.
        db.execute("BEGIN IMMEDIATE")
        with db:
            yield


def open_database(path: Path, *, create: bool, readonly: bool) -> sqlite3.Connection:
    """Open the file, check that it is an archive of a known version, and migrate it.

    Raises:
        ArchiveError: If it is missing (and not to be created), a folder, not an SQLite database,
            another program's database, damaged, of a newer version, or cannot be written.
    """
    if path.is_dir():
        raise ArchiveError(f"{path} is a folder, not an archive: name a file with --archive")
    if not path.exists():
        if readonly or not create:
            raise ArchiveError(f"no archive at {path}: run a campaign first, or name one with --archive")
        check_creatable(path)
        _create(path)
    elif not readonly and not os.access(path, os.W_OK):
        raise ArchiveError(f"cannot write the archive {path}: permission denied")
    return _checked(path, readonly=readonly)


def check_creatable(path: Path) -> None:
    """Check that an archive could be created at ``path``, without creating it.

    Raises:
        ArchiveError: If the folder is not there or cannot be written, or the name is too long.
    """
    # Files with longer names are made beside it (a draft, SQLite's own).
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise ArchiveError(f"cannot create the archive {path}: its name has more than {_LONGEST_NAME} bytes")
    if not path.parent.is_dir():
        raise ArchiveError(f"cannot create the archive {path}: folder {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise ArchiveError(f"cannot create the archive {path}: the folder cannot be written")


def connect(place: Path | str, *, uri: bool = False) -> sqlite3.Connection:
    """Connect to SQLite with rows that have names, and with transactions that begin only where they are asked for."""
    db = sqlite3.connect(place, timeout=_BUSY_S, uri=uri, isolation_level=None)
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA foreign_keys = ON")
    return db


def _create(path: Path) -> None:
    """Create an empty archive at ``path``, unless another process was first.

    It is written to a draft beside it and linked, so that no process can open an archive without its tables.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        _checked(draft, readonly=False).close()
        try:
            path.hardlink_to(draft)
        except OSError:  # it is there already, or the file system has no links
            if not path.exists():
                draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)


def _checked(path: Path, *, readonly: bool) -> sqlite3.Connection:
    with ExitStack() as undo, sqlite_errors(path):
        db = undo.enter_context(closing(_connect(path, readonly=readonly)))
        try:
            if not readonly:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
            _recognise(db, path)
        except sqlite3.DatabaseError as error:
            if "not a database" in str(error):
                raise ArchiveError(f"{path} is not an archive (not an SQLite database)") from error
            raise
        _migrate(db, path, readonly=readonly)
        undo.pop_all()
    return db


def _connect(path: Path, *, readonly: bool) -> sqlite3.Connection:
    if not readonly:
        return connect(path)
    address = path.absolute().as_uri()
    if _writable(path):
        # Not mode=ro: such a reader cannot remove the -wal and -shm files that it creates.
        db = connect(f"{address}?mode=rw", uri=True)
        db.execute("PRAGMA query_only = ON")
        return db
    # In WAL mode a reader needs a -shm file. In a folder that cannot be written nobody else writes
    # either, and SQLite may take the file as it is, unless a driver left a -wal file behind.
    left = path.with_name(f"{path.name}-wal").exists()
    return connect(f"{address}?mode=ro{'' if left else '&immutable=1'}", uri=True)


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def _recognise(db: sqlite3.Connection, path: Path) -> None:
    if db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID:
        newer = sorted(applied(db) - MIGRATIONS.keys())
        if newer:
            raise ArchiveError(f"{path} was written by a newer nngen (it knows {newer[0]}): upgrade nngen-moe")
    elif db.execute("SELECT 1 FROM sqlite_master WHERE name NOT IN (?, 'sqlite_sequence')", [LEDGER]).fetchone():
        raise ArchiveError(
            f"{path} is an SQLite database, but not an archive of nngen: name another file with --archive"
        )


def _migrate(db: sqlite3.Connection, path: Path, *, readonly: bool) -> None:
    done = applied(db)
    if done >= MIGRATIONS.keys():
        return
    if not readonly:
        # Two processes may open a new file at the same time: the second finds the work done.
        with transaction(db, path):
            migrate(db)
        return
    # Readers migrate too, so that every command reads an archive of an earlier version.
    if not done:
        raise ArchiveError(f"{path} is empty: run a campaign on it first")
    if not _writable(path):
        raise ArchiveError(f"{path} was written by an older nngen and cannot be migrated here: copy it elsewhere")
    _checked(path, readonly=False).close()
