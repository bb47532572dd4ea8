"""Atomic writes, cache folder and package folders."""

import os
from pathlib import Path

import pytest

from nngen.files import draft_folder, read_regular, write_atomically


def test_a_written_file_is_whole_and_has_the_mode_that_the_umask_gives(tmp_path):
    previous = os.umask(0o022)
    try:
        write_atomically(tmp_path / "new" / "page.html", b"text")
    finally:
        os.umask(previous)
    path = tmp_path / "new" / "page.html"
    assert path.read_bytes() == b"text"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == ["page.html"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    (tmp_path / "page").mkdir()
    with pytest.raises(OSError, match="page"):
        write_atomically(tmp_path / "page", b"text")
    assert [entry.name for entry in tmp_path.iterdir()] == ["page"]


def _fill(folder, text, **options):
    with draft_folder(folder, **options) as draft:
        (draft / "page").write_text(text)
        assert draft.parent == folder.parent


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(KeyError), draft_folder(tmp_path / "new" / "set") as draft:
        (draft / "page").write_text("half")
        raise KeyError
    assert list((tmp_path / "new").iterdir()) == []
    _fill(tmp_path / "new" / "set", "whole")
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["set"]


@pytest.mark.parametrize(("replace", "text"), [(False, "first"), (True, "second")])
def test_a_folder_that_is_there_stays_unless_it_is_replaced(tmp_path, replace, text):
    _fill(tmp_path / "set", "first")
    _fill(tmp_path / "set", "second", replace=replace)
    assert (tmp_path / "set" / "page").read_text() == text
    assert [entry.name for entry in tmp_path.iterdir()] == ["set"]


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"12345")
    assert read_regular(tmp_path / "plain", 3) == b"123"
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match=r"not a regular file|Is a directory"):
            read_regular(path, 3)
    with pytest.raises(OSError, match="No such file"):
        read_regular(tmp_path / "missing", 3)


def test_links_are_followed_only_where_the_user_named_the_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    root = tmp_path / "root"
    (root / "inside").mkdir(parents=True)
    (root / "inside/plain").write_bytes(b"plain")
    (root / "file").symlink_to(tmp_path / "secret")
    (root / "folder").symlink_to(tmp_path)
    assert read_regular(root / "file", 10) == b"secret"
    assert read_regular(root / "inside/plain", 10, root=root) == b"plain"
    for name in ("file", "folder/secret"):
        with pytest.raises(OSError, match="is a link, and links are not followed here"):
            read_regular(root / name, 10, root=root)
    with pytest.raises(OSError, match="not below"):
        read_regular(root / "inside/../../secret", 10, root=root)
