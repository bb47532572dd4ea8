import os

import pytest

from nngen.files import write_atomically


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
