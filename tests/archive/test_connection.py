"""Connections to an archive's file: their settings, and messages compared as a whole."""

import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from nngen.archive import Archive
from nngen.archive.connection import check_creatable, connect, open_database, sqlite_errors, transaction
from nngen.errors import ArchiveError


def pragma(db, *names):
    return [db.execute(f"PRAGMA {name}").fetchone()[0] for name in names]


@pytest.fixture
def path(tmp_path):
    open_database(tmp_path / "a.db", create=True, readonly=False).close()
    return tmp_path / "a.db"


def test_a_writer_waits_a_minute_and_keeps_what_it_wrote(path):
    db = open_database(path, create=False, readonly=False)
    names = ("busy_timeout", "foreign_keys", "journal_mode", "synchronous", "query_only")
    assert pragma(db, *names) == [60_000, 1, "wal", 2, 0]
    assert (db.isolation_level, db.row_factory, db.path, db.lost) == (None, sqlite3.Row, path, "")
    assert db.file == (path.stat().st_dev, path.stat().st_ino)
    db.close()
    assert [file.name for file in path.parent.iterdir()] == ["a.db"]


def test_a_reader_writes_nothing_and_leaves_no_file(path):
    db = open_database(path, create=False, readonly=True)
    assert pragma(db, "busy_timeout", "query_only", "locking_mode") == [60_000, 1, "normal"]
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        db.execute("DELETE FROM trials")
    db.close()
    assert [file.name for file in path.parent.iterdir()] == ["a.db"]


def test_a_reader_of_a_folder_that_cannot_be_written_takes_the_file_as_it_is(path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    asked, made = [], sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda place, **how: asked.append((place, how["uri"])) or made(place, **how)
    )
    open_database(path, create=False, readonly=True).close()
    wal = path.with_name("a.db-wal")
    wal.touch()
    open_database(path, create=False, readonly=True).close()
    address = path.as_uri()
    assert asked == [(f"{address}?mode=ro&immutable=1", True)] * 2
    assert not wal.exists() or wal.stat().st_size == 0
    wal.write_bytes(b"x")
    open_database(path, create=False, readonly=True).close()
    assert asked[2:] == [(f"{address}?mode=ro", True)]


@pytest.mark.parametrize("kept", ["file", "folder"])
def test_a_reader_needs_to_write_both_the_file_and_its_folder(kept, path, monkeypatch):
    asked, made = [], sqlite3.connect
    monkeypatch.setattr(os, "access", lambda place, _: place == (path if kept == "file" else path.parent))
    monkeypatch.setattr(sqlite3, "connect", lambda place, **how: asked.append(place) or made(place, **how))
    open_database(path, create=False, readonly=True).close()
    assert asked == [f"{path.as_uri()}?mode=ro&immutable=1"]


@pytest.mark.parametrize(
    ("refused", "mode"), [(0, "normal"), (1, "exclusive"), (2, "normal")], ids=["first", "alone", "as it is"]
)
def test_a_reader_without_room_beside_the_file_tries_less_and_closes_what_it_tried(refused, mode, path, monkeypatch):
    left, made = [True] * refused, []
    monkeypatch.setattr("nngen.archive.connection._has_room", lambda db: made.append(db) or not (left and left.pop()))
    db = open_database(path, create=False, readonly=True)
    assert pragma(db, "locking_mode", "query_only") == [mode, refused < 2]
    assert len(made) == min(refused + 1, 2)
    for tried in made[:refused]:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            tried.execute("SELECT 1")
    db.close()


def add_event(path, kind):
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("INSERT INTO events (at, kind, detail) VALUES ('now', ?, '{}')", [kind])


@pytest.mark.parametrize("links", [False, True])
@pytest.mark.parametrize("met", [False, True], ids=["alone", "another process was first"])
def test_a_new_archive_is_the_draft_unless_another_process_was_first(met, links, tmp_path, monkeypatch):
    """On file systems without links, too; the draft has all its tables before it gets its name."""
    path, link = tmp_path / "a.db", Path.hardlink_to

    def meet(place, draft):
        assert [place, draft.parent] == [path, tmp_path]
        add_event(draft, "draft")
        if met:
            path.write_bytes(draft.read_bytes())
            add_event(path, "theirs")
        if not links:
            raise OSError("no links here")
        link(place, draft)

    monkeypatch.setattr(Path, "hardlink_to", meet)
    with Archive.open(path) as archive:
        kinds = [kind for (kind,) in archive._db.execute("SELECT kind FROM events ORDER BY id")]
    assert kinds == (["draft", "theirs"] if met else ["draft"])
    assert [file.name for file in tmp_path.iterdir()] == ["a.db"]


def test_files_that_cannot_be_opened_are_one_line(path, tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.db").touch()
    missing = "run a campaign first, or name one with --archive"
    cases = [
        (tmp_path / "folder", False, f"{tmp_path / 'folder'} is a folder, not an archive: name a file with --archive"),
        (tmp_path / "none.db", True, f"no archive at {tmp_path / 'none.db'}: {missing}"),
        (tmp_path / "empty.db", True, f"{tmp_path / 'empty.db'} is empty: run a campaign on it first"),
        (
            tmp_path / "no" / "x.db",
            False,
            f"cannot create the archive {tmp_path / 'no' / 'x.db'}: folder {tmp_path / 'no'} does not exist",
        ),
    ]
    for place, readonly, message in cases:
        with pytest.raises(ArchiveError) as caught:
            open_database(place, create=True, readonly=readonly)
        assert str(caught.value) == message
    with pytest.raises(ArchiveError, match=f"^no archive at {tmp_path / 'none.db'}: {missing}$"):
        open_database(tmp_path / "none.db", create=False, readonly=False)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ArchiveError, match=f"^cannot write the archive {path}: permission denied$"):
        open_database(path, create=True, readonly=False)
    with pytest.raises(ArchiveError, match=r"^cannot create the archive .*/new.db: the folder cannot be written$"):
        check_creatable(tmp_path / "new.db")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.db", "empty.db", "folder"]


def test_an_empty_file_becomes_an_archive(tmp_path):
    (tmp_path / "empty.db").touch()
    with Archive.open(tmp_path / "empty.db") as archive:
        assert archive.campaigns() == ()


def test_a_lock_that_is_held_too_long_says_for_how_long(path):
    with pytest.raises(ArchiveError) as caught, sqlite_errors(path):
        raise sqlite3.OperationalError("database is locked")
    assert str(caught.value) == (
        f"archive {path}: database is locked for 60 s by another process, which migrates, copies or writes it: try"
        " again later"
    )


def test_what_cannot_be_saved_anywhere_is_said_at_every_write(path, monkeypatch):
    db = open_database(path, create=False, readonly=False)
    path.unlink()

    def refuse(*_):
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(sqlite3, "connect", refuse)
    message = (
        f"the archive {path} was removed or replaced while it was written; and what was stored could not be saved"
        " elsewhere"
    )
    for _ in range(2):
        with pytest.raises(ArchiveError) as caught, transaction(db):
            db.execute("INSERT INTO events (at, kind, detail) VALUES ('now', 'x', '{}')")
        assert str(caught.value) == message == db.lost
    assert db.execute("SELECT count(*) FROM events").fetchone()[0] == 1  # the second wrote nothing
    db.close()


@pytest.mark.parametrize("gone", [False, True])
def test_a_rescue_lies_beside_the_archive_or_in_the_temporary_folder(gone, tmp_path, monkeypatch):
    folder, temporary = tmp_path / "folder", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    db = open_database(folder / "a.db", create=True, readonly=False)
    for file in folder.iterdir():
        file.unlink()
    if gone:
        folder.rmdir()
        here.rmdir()
        monkeypatch.setattr("pathlib.Path.cwd", lambda: here)
    target = (temporary if gone else folder) / "a.db.rescued"
    with pytest.raises(ArchiveError) as caught, transaction(db):
        db.execute("INSERT INTO events (at, kind, detail) VALUES ('now', 'x', '{}')")
    assert str(caught.value) == (
        f"the archive {folder / 'a.db'} was removed or replaced while it was written; what was stored is in {target}:"
        f" move it to {folder / 'a.db'} and run the same command again"
    )
    db.close()
    saved = connect(target)
    assert saved.execute("SELECT kind FROM events").fetchall()[0]["kind"] == "x"
    saved.close()
