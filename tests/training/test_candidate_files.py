"""Candidates from files: regular files only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nngen.errors import UsageError
from nngen.training.candidate_files import find_files, read_candidate


def test_links_fifos_and_devices_in_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("password")
    folder = tmp_path / "candidates"
    folder.mkdir()
    (folder / "a.py").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(UsageError, match=r"a\.py is not a regular file"):
        find_files([folder])
    (folder / "a.py").unlink()
    os.mkfifo(folder / "a.py")
    with pytest.raises(UsageError, match=r"a\.py is not a regular file"):
        find_files([folder])
    with pytest.raises(UsageError, match="not a regular file"):
        read_candidate(folder / "a.py")


def test_a_name_that_is_too_long_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="no file or folder xxx"):
        find_files([Path("x" * 300)])
