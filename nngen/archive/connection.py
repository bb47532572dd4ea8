"""Opens the file of an archive: checks its kind and version, migrates it, and turns SQLite's errors into messages."""

from __future__ import annotations

import itertools
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from nngen.archive.schema import APPLICATION_ID, LEDGER, MIGRATIONS, applied, migrate
from nngen.errors import ArchiveError
from nngen.text import one_line

_LONGEST_NAME = 200
_BUSY_S = 60.0

WAY_OUT = "restore a copy, or run nngen archive check --salvage"
"""Ends the messages about damaged archives."""

SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""Errors of SQLite; the second is raised where a message would hold a damaged name."""


def default_path() -> Path:
    """Return the path of the archive without ``--archive``: ``NNGEN_ARCHIVE`` or ``./nngen.db``."""
    return Path(os.environ.get("NNGEN_ARCHIVE") or "nngen.db")


class Connection(sqlite3.Connection):
    """A connection to the file of an archive.

    Attributes:
        path: Path of the file; None in memory.
        file: Device and inode of the file that was opened; None in memory.
        lost: Message of the error that every write raises after the file was removed or replaced.
    """

    path: Path | None = None
    file: tuple[int, int] | None = None
    lost: str = ""


@contextmanager
def sqlite_errors(path: Path | None) -> Iterator[None]:
    """Translate SQLite's errors into one line that names the file.

    Raises:
        ArchiveError: In place of any ``sqlite3.Error``.
    """
    try:
        yield
    except SQLITE_ERRORS as error:
        damaged = isinstance(error, UnicodeDecodeError) or "malformed" in str(error)
        unwritten = "disk I/O error" in str(error) or "disk is full" in str(error)
        way_out = f": {WAY_OUT}" if damaged else ": free some space on its disk, and try again" if unwritten else ""
        if "locked" in str(error):
            way_out = f" for {_BUSY_S:g} s by another process, which migrates, copies or writes it: try again later"
        raise ArchiveError(f"archive {path or 'in memory'}: {one_line(str(error))}{way_out}") from error


@contextmanager
def transaction(db: Connection) -> Iterator[None]:
    """Store all writes of a block, or none of them where it raises; within ``together``, with the other calls of it.

    Raises:
        ArchiveError: In place of any ``sqlite3.Error``, and where the file was removed or replaced.
    """
    with sqlite_errors(db.path):
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
        begin(db)
        with db:
            yield
        check_place(db)


def begin(db: Connection) -> None:
    """Begin a transaction.

    Raises:
        ArchiveError: If the file was removed or replaced.
    """
    if db.lost:
        raise ArchiveError(db.lost)
    # IMMEDIATE: a transaction that reads first and writes then would not wait for its turn.
    db.execute("BEGIN IMMEDIATE")


def check_place(db: Connection) -> None:
    """Check after a write that the archive still has its name; if not, save it beside.

    SQLite goes on writing to a file that was removed or moved, as to any open file, and nobody would find the results.

    Raises:
        ArchiveError: If the file was removed or replaced; the message names the rescue file.
    """
    if db.path is None or db.file is None or _identity(db.path) == db.file:
        return
    # The folder may be gone too.
    for folder in (db.path.parent, Path.cwd(), Path(tempfile.gettempdir())):
        target = _unused(folder / f"{db.path.name}.rescued")
        try:
            with closing(sqlite3.connect(target)) as copy:
                db.backup(copy)
        except (OSError, sqlite3.Error):
            continue
        saved = f"what was stored is in {target}: move it to {db.path} and run the same command again"
        break
    else:
        saved = "and what was stored could not be saved elsewhere"
    db.lost = f"the archive {db.path} was removed or replaced while it was written; {saved}"
    raise ArchiveError(db.lost)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _unused(path: Path) -> Path:
    places = itertools.chain([path], (path.with_name(f"{path.name}-{number}") for number in itertools.count(2)))
    return next(place for place in places if not place.exists())


def open_database(path: Path, *, create: bool, readonly: bool) -> Connection:
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


def connect(place: Path | str, *, uri: bool = False) -> Connection:
    """Connect to SQLite with rows that have names, and with transactions that begin only where they are asked for."""
    db = sqlite3.connect(place, timeout=_BUSY_S, uri=uri, isolation_level=None, factory=Connection)
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


def _checked(path: Path, *, readonly: bool) -> Connection:
    with ExitStack() as undo, sqlite_errors(path):
        db = undo.enter_context(closing(connect_to_read(path) if readonly else connect(path)))
        try:
            if not readonly:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
            _recognise(db, path)
        except SQLITE_ERRORS as error:
            if "not a database" in str(error):
                raise ArchiveError(f"{path} is not an archive (not an SQLite database)") from error
            raise
        db.path, db.file = path, _identity(path)
        _migrate(db, path, readonly=readonly)
        undo.pop_all()
    return db


def connect_to_read(path: Path) -> Connection:
    """Connect to a file that is only read, and leave no other file beside it."""
    address, log = path.absolute().as_uri(), path.with_name(f"{path.name}-wal")
    left = log.exists() and log.stat().st_size > 0
    for mode in ("NORMAL", "EXCLUSIVE") if _writable(path) else ():
        # Not mode=ro: such a reader cannot remove the -wal and -shm files that it creates.
        db = connect(f"{address}?mode=rw", uri=True)
        db.execute("PRAGMA query_only = ON")
        # In WAL mode a reader needs a -shm file, for which a full disk has no room; if it is the only reader, it
        # keeps the content in memory.
        db.execute(f"PRAGMA locking_mode = {mode}")
        if _has_room(db):
            return db
        db.close()
    # In a folder that cannot be written nobody else writes either, and SQLite may take the file as it is, unless a
    # driver left a -wal file behind.
    return connect(f"{address}?mode=ro{'' if left else '&immutable=1'}", uri=True)


def _has_room(db: Connection) -> bool:
    """Whether the files beside the archive that a reader needs could be written."""
    try:
        db.execute("PRAGMA application_id").fetchone()
    except sqlite3.DatabaseError as error:  # any other is raised, and explained, by the next query
        return not error.sqlite_errorname.startswith(("SQLITE_IOERR_SHM", "SQLITE_CANTOPEN", "SQLITE_FULL"))
    return True


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def _recognise(db: Connection, path: Path) -> None:
    if db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID:
        newer = sorted(applied(db) - MIGRATIONS.keys())
        if newer:
            raise ArchiveError(f"{path} was written by a newer nngen (it knows {newer[0]}): upgrade nngen-moe")
    elif db.execute("SELECT 1 FROM sqlite_master WHERE name NOT IN (?, 'sqlite_sequence')", [LEDGER]).fetchone():
        raise ArchiveError(
            f"{path} is an SQLite database, but not an archive of nngen: name another file with --archive"
        )


def _migrate(db: Connection, path: Path, *, readonly: bool) -> None:
    done = applied(db)
    if not done and db.execute("SELECT 1 FROM sqlite_master WHERE name = 'trials'").fetchone():
        raise ArchiveError(f"archive {path}: its table {LEDGER} is missing or empty: {WAY_OUT}")
    if done >= MIGRATIONS.keys():
        return
    if not readonly:
        # Two processes may open a new file at the same time: the second finds the work done.
        with transaction(db):
            migrate(db)
        return
    # Readers migrate too, so that every command reads an archive of an earlier version.
    if not done:
        raise ArchiveError(f"{path} is empty: run a campaign on it first")
    if not _writable(path):
        raise ArchiveError(f"{path} was written by an older nngen and cannot be migrated here: copy it elsewhere")
    _checked(path, readonly=False).close()
