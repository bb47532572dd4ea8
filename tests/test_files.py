"""Atomic writes, cache folder and package folders."""

import os

import pytest

from nngen.files import draft_folder, write_atomically


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
