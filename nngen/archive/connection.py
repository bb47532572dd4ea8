"""Opens the file of an archive: checks its kind and version, migrates it, and turns SQLite's errors into messages."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlite_utils import Database

from nngen.archive.schema import APPLICATION_ID, migrations
from nngen.errors import ArchiveError

__all__ = ["check_creatable", "default_path", "open_database", "sqlite_errors", "transaction"]

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
def transaction(db: Database, path: Path | None) -> Iterator[None]:
    """Store all writes of a block, or none of them where it raises.

    Raises:
        ArchiveError: In place of any ``sqlite3.Error``.
    """
    with sqlite_errors(path):
        # IMMEDIATE: a transaction that reads first and writes then would not wait for its turn.
        db.conn.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            db.rollback()
            raise
        db.commit()


def open_database(path: Path, *, create: bool, readonly: bool) -> Database:
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
        with sqlite_errors(path):
            _create(path)
    elif not readonly and not os.access(path, os.W_OK):
        raise ArchiveError(f"cannot write the archive {path}: permission denied")
    with sqlite_errors(path):
        try:
            return _checked(path, readonly=readonly)
        except sqlite3.DatabaseError as error:
            if "not a database" in str(error):
                raise ArchiveError(f"{path} is not an archive (not an SQLite database)") from error
            raise


def _checked(path: Path, *, readonly: bool) -> Database:
    with ExitStack() as undo:
        db = _database(_connect(path, readonly=readonly))
        undo.callback(db.close)
        if not readonly:
            db.conn.execute("PRAGMA journal_mode = WAL")
            db.conn.execute("PRAGMA synchronous = FULL")
        _recognise(db, path)
        _migrate(db, path, readonly=readonly)
        undo.pop_all()
    return db


def _create(path: Path) -> None:
    """Create an empty archive at ``path``, unless another process was first.

    It is written to a draft beside it and linked, so that no process can open an archive without its tables.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        db = _checked(draft, readonly=False)
        db.close()
        try:
            path.hardlink_to(draft)
        except OSError:  # it is there already, or the file system has no links
            if not path.exists():
                draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)


def check_creatable(path: Path) -> None:
    """Check that an archive could be created at ``path``, without creating it.

    Raises:
        ArchiveError: If the folder is not there or cannot be written.
    """
    if not path.parent.is_dir():
        raise ArchiveError(f"cannot create the archive {path}: folder {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise ArchiveError(f"cannot create the archive {path}: the folder cannot be written")


def _connect(path: Path, *, readonly: bool) -> sqlite3.Connection:
    if not readonly:
        return sqlite3.connect(path, timeout=_BUSY_S)
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        # Not mode=ro: such a reader cannot remove the -wal and -shm files that it creates.
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_S)
        connection.execute("PRAGMA query_only = ON")
        return connection
    # In WAL mode a reader needs a -shm file. In a folder that cannot be written nobody else writes
    # either, and SQLite may take the file as it is, unless a driver left a -wal file behind.
    left = path.with_name(f"{path.name}-wal").exists()
    uri = f"{path.absolute().as_uri()}?mode=ro{'' if left else '&immutable=1'}"
    return sqlite3.connect(uri, uri=True, timeout=_BUSY_S)


def _database(connection: sqlite3.Connection) -> Database:
    connection.execute("PRAGMA foreign_keys = ON")
    return Database(connection, execute_plugins=False)


def _recognise(db: Database, path: Path) -> None:
    marked = db.conn.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
    others = set(db.table_names()) - {migrations.migrations_table, "sqlite_sequence"}
    if not marked and others:
        raise ArchiveError(
            f"{path} is an SQLite database, but not an archive of nngen: name another file with --archive"
        )
    if marked:
        known = {migration.name for migration in migrations._migrations}
        newer = sorted({migration.name for migration in migrations.applied(db)} - known)
        if newer:
            raise ArchiveError(f"{path} was written by a newer nngen (it knows {newer[0]}): upgrade nngen-moe")


def _migrate(db: Database, path: Path, *, readonly: bool) -> None:
    if not migrations.pending(db):
        return
    if readonly:
        # Readers migrate too, so that every command reads an archive of an earlier version.
        if not migrations.applied(db):
            raise ArchiveError(f"{path} is empty: run a campaign on it first")
        if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
            raise ArchiveError(f"{path} was written by an older nngen and cannot be migrated here: copy it elsewhere")
        _checked(path, readonly=False).close()
        return
    db.conn.execute("BEGIN IMMEDIATE")  # two processes may open a new file at the same time
    with db.conn:
        migrations.apply(db)
