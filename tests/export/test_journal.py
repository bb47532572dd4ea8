"""Staged writes: what is read and put, what a failure leaves behind, and the order in which files reach the disk."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from nngen.errors import ExportError
from nngen.export import journal
from nngen.export.journal import staging

WORK = ".nngen-export"


def tree(root: Path) -> dict[str, bytes]:
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def test_reads_see_the_files_as_they_will_be(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"abcdefgh")
    with staging(tmp_path) as target:
        assert (target.read("old"), target.read("none"), target.read("no/folder")) == (b"abcdefgh", None, None)
        assert [target.read("old", limit) for limit in (0, 3, 7, 8)] == [b"a", b"abcd", b"abcdefgh", b"abcdefgh"]
        assert target.put("old", b"abcd") is True  # the beginning of a longer file is another content
        assert target.put("old", b"abcd") is False
        assert target.put("new/file", b"") is True
        assert (target.read("old"), target.read("new/file")) == (b"abcd", b"")
        assert tree(tmp_path) == {"old": b"abcdefgh"}
    assert tree(tmp_path) == {"old": b"abcd", "new/file": b""}
    with staging(tmp_path) as target:
        assert target.put("old", b"abcd") is False


def test_a_file_is_read_up_to_256_mib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int] = []
    with staging(tmp_path) as target:
        monkeypatch.setattr(journal, "read_regular", lambda path, limit, *, root: limits.append(limit) or b"x")
        assert target.read("file") == b"x"
    assert limits == [256 * 1024 * 1024 + 1]


def test_new_files_have_the_mode_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with staging(tmp_path) as target:
            target.put("file", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


@pytest.mark.parametrize("there", [None, "empty", "a file"])
def test_an_export_that_fails_leaves_the_folder_as_it_was(tmp_path: Path, there: str | None) -> None:
    root = tmp_path / "out"
    if there:
        root.mkdir()
    if there == "a file":
        (root / "mine").write_bytes(b"1")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ZeroDivisionError), staging(root) as target:
        target.put("file", b"x")
        raise ZeroDivisionError
    assert sorted(tmp_path.rglob("*")) == before
    with staging(root):  # nothing to write
        pass
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("error", "about"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "{root}: No space left on device"),
        (OSError(errno.ENOSPC, "No space left on device", "a/file"), "a/file: No space left on device"),
        (OSError("out of order"), "{root}: out of order"),
    ],
)
def test_a_disk_that_refuses_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, about: str
) -> None:
    def refused(number: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(ExportError) as failure, staging(tmp_path / "out") as target:
        target.put("file", b"x")
    reason = about.format(root=tmp_path / "out")
    assert str(failure.value) == f"cannot export to {reason}; name another folder with --out"
    assert not (tmp_path / "out").exists()


def test_what_a_failure_interrupted_is_completed_by_the_next_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def at_last(source: str, target: str, **folders: int) -> None:
        if target == "second":
            raise OSError(errno.EIO, "Input/output error", source)
        replace(source, target, **folders)

    with monkeypatch.context() as patch, pytest.raises(ExportError, match=r"to 000001\.part: Input/output"):
        patch.setattr(os, "replace", at_last)
        with staging(tmp_path) as target:
            for name in ("first", "second", "third"):
                target.put(f"a/{name}", name.encode())
    work = {"000001.part": b"second", "000002.part": b"third"}
    moves = {"000000.part": "a/first", "000001.part": "a/second", "000002.part": "a/third"}
    work["journal.json"] = json.dumps(moves).encode()
    assert tree(tmp_path) == {"a/first": b"first"} | {f"{WORK}/{name}": content for name, content in work.items()}
    with staging(tmp_path) as target:
        assert target.read("a/third") == b"third"
        assert not [*(tmp_path / WORK).iterdir()]
    assert tree(tmp_path) == {f"a/{name}": name.encode() for name in ("first", "second", "third")}


def test_staged_files_without_a_journal_are_deleted_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / WORK / "folder").mkdir(parents=True)
    for name in ("000000.part", "journal.part", "notes"):
        (tmp_path / WORK / name).write_bytes(b"of a killed export")
    with staging(tmp_path) as target:
        assert {file.name for file in (tmp_path / WORK).iterdir()} == {"folder", "notes"}
        target.put("file", b"x")
    assert tree(tmp_path) == {"file": b"x"}


def test_of_a_journal_with_one_wrong_move_none_is_carried_out(tmp_path: Path) -> None:
    root = tmp_path / "out"
    (root / WORK).mkdir(parents=True)
    for name in ("000000.part", "000001.part"):
        (root / WORK / name).write_bytes(b"x")
    (root / WORK / "journal.json").write_text(json.dumps({"000000.part": "file", "000001.part": "link/file"}))
    (root / "link").symlink_to(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(ExportError) as failure, staging(root):
        pass
    reason = "link is a link, and links are not followed here"
    assert str(failure.value) == f"{root}/link/file cannot be read: {reason}; name another folder with --out"
    assert tree(tmp_path) == before


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Calls that make a change last or visible, in order; a file's with the number of its bytes."""
    found: list[str] = []
    fsync, replace, unlink = os.fsync, os.replace, os.unlink

    def place(number: int) -> str:
        return Path(f"/proc/self/fd/{number}").readlink().relative_to(tmp_path).as_posix()

    def synced(number: int) -> None:
        about = os.fstat(number)
        size = f" ({about.st_size} bytes)" if stat.S_ISREG(about.st_mode) else ""
        found.append(f"sync {place(number)}{size}")
        fsync(number)

    def replaced(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        found.append(f"move {place(src_dir_fd)}/{source} to {place(dst_dir_fd)}/{target}")
        replace(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def unlinked(name: str, *, dir_fd: int) -> None:
        found.append(f"delete {place(dir_fd)}/{name}")
        unlink(name, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", synced)
        patch.setattr(os, "replace", replaced)
        patch.setattr(os, "unlink", unlinked)
        yield found


def test_all_files_are_on_disk_before_the_journal_and_in_place_before_it_goes(
    tmp_path: Path, events: list[str]
) -> None:
    with staging(tmp_path / "out") as target:
        target.put("a/x", b"12345")
        target.put("a/y", b"123")
    length = len(json.dumps({"000000.part": "a/x", "000001.part": "a/y"}))
    assert events[:9] == [
        f"sync out/{WORK}/000000.part (5 bytes)",
        f"sync out/{WORK}/000001.part (3 bytes)",
        f"sync out/{WORK}/journal.part ({length} bytes)",
        f"move out/{WORK}/journal.part to out/{WORK}/journal.json",
        f"sync out/{WORK}",
        f"move out/{WORK}/000000.part to out/a/x",
        f"move out/{WORK}/000001.part to out/a/y",
        "sync out/a",
        f"delete out/{WORK}/journal.json",
    ]
