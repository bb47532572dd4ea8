"""Parts that every archive is read and written with: checked values, places of files, messages of SQLite, the lock."""

from __future__ import annotations

import fcntl
import json
import math
import os
import sqlite3
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nngen.archive.connection import WAY_OUT, _unused, check_creatable, open_database, sqlite_errors, transaction
from nngen.archive.lock import driver_lock, driver_of
from nngen.archive.rows.columns import DamagedRowError, amount, check_texts, checked, read, share, text
from nngen.errors import ArchiveError


@dataclass
class Inner:
    count: int


@dataclass
class Outer:
    """A dataclass with a field of each sort that archives hold."""

    number: float = 0.0
    count: int = 0
    name: str | None = None
    many: tuple[int, ...] = ()
    pair: tuple[int, str] = (1, "a")
    weights: Mapping[str, float] | None = None
    inner: Inner | None = None
    any: Any = None


@pytest.mark.parametrize(
    ("field", "right", "wrong"),
    [
        ("number", [1, 0.5, -2], ["1", None, True]),
        ("count", [0, -7], [0.5, "1", False, None]),
        ("name", ["x", None], [3, ["x"]]),
        ("many", [(), (1, 2)], [[1], (1, "2"), (0.5,), None]),
        ("pair", [(2, "b")], [(2,), (2, "b", 3), ("b", 2), [2, "b"]]),
        ("weights", [None, {}, {"a": 1.5, "b": 2}], [{"a": "b"}, {1: 2.0}, [1]]),
        ("inner", [None, Inner(1)], [{"count": 1}, 3]),
        ("any", [None, 1, "x", [1]], []),
    ],
)
def test_fields_have_the_types_that_they_are_declared_with(field, right, wrong):
    for value in right:
        made = Outer(**{field: value})
        assert checked(made) is made
    for value in wrong:
        with pytest.raises(TypeError, match=f"{field} is "):
            checked(Outer(**{field: value}))
    with pytest.raises(TypeError, match="count is 'x'"):
        checked(Outer(inner=Inner("x")))


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (share, [None, 0, 1, 0.25], [-0.1, 1.1, math.nan, math.inf, "0.5"]),
        (amount, [None, 0, 3.5, 1e300], [-0.1, math.nan, math.inf, "1"]),
        (text, ["", "x"], [None, 3, b"x"]),
    ],
)
def test_values_outside_of_their_range_are_refused(check, right, wrong):
    for value in right:
        assert check(value) is value
    for value in wrong:
        with pytest.raises((ValueError, TypeError), match=r"is not (between 0 and 1|an amount|a text)"):
            check(value)


def test_what_cannot_be_read_names_its_column():
    row = {"a": "{", "b": "[" * 100_000, "c": 2, "d": "3"}
    assert read(row, "d", int) == 3
    for column, parse, words in (
        ("a", json.loads, "a is not valid JSON"),
        ("b", json.loads, "b is nested too deeply"),
        ("c", share, r"c cannot be read \(2 is not between 0 and 1\)"),
        ("x", int, "x cannot be read"),
    ):
        with pytest.raises(DamagedRowError, match=words):
            read(row, column, parse)

    def refuse(value):
        raise ValueError("x" * 200)

    with pytest.raises(DamagedRowError) as caught:
        read(row, "c", refuse)
    assert str(caught.value) == f"c cannot be read ({'x' * 119}…)"


def test_lone_surrogates_are_bytes_that_were_no_utf_8():
    check_texts({"a": "plain", "b": "Größe", "c": b"\xff", "d": 3, "e": None})
    with pytest.raises(DamagedRowError, match="b is not UTF-8"):
        check_texts({"a": "plain", "b": "x\udcff"})


def test_names_of_archives_have_a_largest_length(tmp_path):
    check_creatable(tmp_path / ("x" * 200))
    for name in ("x" * 201, "ä" * 101):
        with pytest.raises(ArchiveError, match="its name has more than 200 bytes"):
            check_creatable(tmp_path / name)


def test_a_free_name_is_counted_up(tmp_path):
    place = tmp_path / "a.rescued"
    for name in ("a.rescued", "a.rescued-2", "a.rescued-3"):
        assert _unused(place).name == name
        (tmp_path / name).touch()


def test_a_call_within_others_may_find_everything_undone(tmp_path):
    """A full disk ends the whole transaction; the error of the call is raised, not one about it."""
    db = open_database(tmp_path / "a.db", create=True, readonly=False)
    with transaction(db), pytest.raises(ZeroDivisionError), transaction(db):
        db.execute("ROLLBACK")
        raise ZeroDivisionError
    assert not db.in_transaction
    db.close()


@pytest.mark.parametrize(
    ("error", "way_out"),
    [
        (sqlite3.DatabaseError("database disk image is malformed"), f": {WAY_OUT}"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), f": {WAY_OUT}"),
        (sqlite3.OperationalError("disk I/O error"), ": free some space on its disk, and try again"),
        (sqlite3.OperationalError("database or disk is full"), ": free some space on its disk, and try again"),
        (sqlite3.OperationalError("no such table: x"), ""),
    ],
)
def test_errors_of_sqlite_are_one_line_with_the_way_out(tmp_path, error, way_out):
    with pytest.raises(ArchiveError) as raised, sqlite_errors(tmp_path / "a.db"):
        raise error
    assert str(raised.value) == f"archive {tmp_path / 'a.db'}: {error}{way_out}"
    with pytest.raises(ArchiveError, match="archive in memory: "), sqlite_errors(None):
        raise error


def test_a_call_within_others_is_undone_alone(tmp_path):
    db = open_database(tmp_path / "a.db", create=True, readonly=False)

    def add(kind):
        db.execute("INSERT INTO events (at, kind, detail) VALUES ('now', ?, '{}')", [kind])

    with transaction(db):
        add("first")
        with pytest.raises(ZeroDivisionError), transaction(db):
            add("second")
            raise ZeroDivisionError
        with transaction(db):
            add("third")
    with pytest.raises(ZeroDivisionError), transaction(db):
        add("fourth")
        raise ZeroDivisionError
    assert not db.in_transaction
    assert [kind for (kind,) in db.execute("SELECT kind FROM events ORDER BY id")] == ["first", "third"]
    db.close()


def test_the_lock_is_a_file_beside_the_archive_that_names_its_owner(tmp_path):
    archive = tmp_path / "a.db"
    assert driver_of(archive, "one") is None
    with driver_lock(archive, "one"), driver_lock(archive, "two"):
        files = sorted(tmp_path.iterdir())
        assert len(files) == 2
        for file in files:
            assert file.name.startswith(".a.db.") and file.name.endswith(".lock")
            assert file.read_text() == str(os.getpid())
        assert driver_of(archive, "one") == driver_of(archive, "two") == os.getpid()
        assert driver_of(archive, "three") is None
    assert list(tmp_path.iterdir()) == []
    assert driver_of(archive, "one") is None
    with driver_lock(archive, "one"):
        (file,) = tmp_path.iterdir()
    file.write_text("12345")  # left by a machine that lost its power
    assert driver_of(archive, "one") is None
    with driver_lock(archive, "one"):
        assert file.read_text() == str(os.getpid())
    with pytest.raises(ArchiveError, match="cannot write the lock"), driver_lock(tmp_path / "none" / "a.db", "one"):
        pass


def test_the_lock_has_the_same_name_in_every_version(tmp_path):
    """SHA-256 of a name begins as ``printf one | sha256sum`` prints it; what an older driver left is overwritten."""
    file = tmp_path / ".a.db.7692c3ad.lock"
    file.write_text("9" * 40)
    with driver_lock(tmp_path / "a.db", "one"):
        assert file.read_text() == str(os.getpid())
    mask = os.umask(0)
    try:
        with driver_lock(tmp_path / "a.db", "one"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o644
    finally:
        os.umask(mask)
    assert list(tmp_path.iterdir()) == []


def handles():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(("content", "owner"), [(b"", "unknown"), (b" 12 ", "12"), (b"7" * 50, "7" * 32)])
def test_a_driver_that_is_refused_names_the_owner_and_keeps_no_handle(content, owner, tmp_path, monkeypatch):
    archive, before = tmp_path / "a.db", handles()
    file = tmp_path / ".a.db.7692c3ad.lock"
    with monkeypatch.context() as changed:
        changed.setattr("fcntl.lockf", lambda *_: (_ for _ in ()).throw(BlockingIOError))
        file.write_bytes(content)
        with pytest.raises(ArchiveError) as caught, driver_lock(archive, "one"):
            pass
    assert str(caught.value) == (f"campaign one is being run by another process (pid {owner}): wait for it or stop it")
    assert file.read_bytes() == content
    assert driver_of(archive, "one") is None
    with driver_lock(archive, "one"):
        assert handles() == before + 1
    assert handles() == before


@pytest.mark.parametrize("replaced", [False, True])
def test_a_lock_whose_name_is_gone_or_anothers_is_taken_again(replaced, tmp_path, monkeypatch):
    """The former owner removes the file between the opening and the locking, and a third process may make a new one."""
    archive, file, before = tmp_path / "a.db", tmp_path / ".a.db.7692c3ad.lock", handles()
    asked, lockf = [], fcntl.lockf

    def late(handle, how):
        lockf(handle, how)
        asked.append(os.fstat(handle).st_ino)
        if len(asked) == 1:
            if replaced:
                (tmp_path / "new").touch()
                (tmp_path / "new").rename(file)
            else:
                file.unlink()

    monkeypatch.setattr("fcntl.lockf", late)
    with driver_lock(archive, "one"):
        assert len(asked) == 2
        assert file.stat().st_ino == asked[1]
        assert file.read_text() == str(os.getpid())
        assert handles() == before + 1
    assert handles() == before
    assert list(tmp_path.iterdir()) == []


def test_another_process_sees_the_driver(tmp_path):
    archive = tmp_path / "a.db"
    with driver_lock(archive, "one"):
        child = os.fork()
        if child == 0:
            from nngen.archive import lock

            lock._HELD.clear()  # what a process of its own would know
            os._exit(0 if driver_of(archive, "one") == os.getppid() else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
