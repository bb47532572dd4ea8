"""Candidates from files: regular files only."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from nngen.assembly.identity import canonical_hash
from nngen.checks.rule import CheckFailed
from nngen.errors import UsageError
from nngen.training import candidate_files
from nngen.training.candidate_files import find_files, read_candidate
from nngen.types import Candidate, Outcome


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


def test_files_of_folders_are_listed_by_name_and_others_as_they_are(tmp_path: Path) -> None:
    folder, empty = tmp_path / "folder", tmp_path / "empty"
    for path in (folder, empty):
        path.mkdir()
    for name in ("b.py", "a.py", "c.txt"):
        (folder / name).touch()
    link = tmp_path / "link"
    link.symlink_to(folder / "c.txt")
    assert find_files([link, folder]) == [link, folder / "a.py", folder / "b.py"]
    with pytest.raises(UsageError, match=rf"^{empty} has no \.py file$"):
        find_files([folder, empty])
    with pytest.raises(UsageError, match=rf"^no file or folder {tmp_path / 'none'}$"):
        find_files([tmp_path / "none"])


SOURCE = "x = 1\n"
MD5 = hashlib.md5(b"x=1").hexdigest()


@pytest.mark.parametrize(
    ("stem", "id_"),
    [
        (MD5, MD5),
        (f"MoE-hetero4.1-{MD5}", f"MoE-hetero4.1-{MD5}"),
        (f"MoE-{'0' * 32}", MD5),  # the id of another source
        (f"a b-{MD5}", MD5),
        ("net", MD5),
    ],
)
def test_a_candidate_is_named_by_its_file_where_that_has_its_id(stem: str, id_: str, tmp_path: Path) -> None:
    path = tmp_path / f"{stem}.py"
    path.write_text(SOURCE)
    assert read_candidate(path) == Candidate(id=id_, source=SOURCE, canonical=canonical_hash(SOURCE))


def test_a_candidate_that_does_not_parse_has_no_canonical_form(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = (")
    found = read_candidate(tmp_path / "a.py")
    assert (found.source, found.canonical) == ("x = (", "")


@pytest.mark.parametrize(
    ("data", "message", "line"),
    [
        (b"#" * (4 * 2**20 + 1), "is longer than 4 MiB, the longest source allowed", None),
        (b"a\nb\n\xff\n", "is not UTF-8 text: save it as UTF-8", 3),
        (b"\xff", "is not UTF-8 text: save it as UTF-8", 1),
        (b"\n\xff", "is not UTF-8 text: save it as UTF-8", 2),
        (b"# coding: nothing\n", "cannot be read as Python: unknown encoding: nothing", None),
    ],
)
def test_what_is_not_a_text_of_python_is_a_syntax_verdict(
    data: bytes, message: str, line: int | None, tmp_path: Path
) -> None:
    (tmp_path / "a.py").write_bytes(data)
    with pytest.raises(CheckFailed) as caught:
        read_candidate(tmp_path / "a.py")
    verdict = caught.value.verdict
    assert (verdict.outcome, verdict.rule, verdict.line) == (Outcome.SYNTAX, "file", line)
    assert verdict.message.endswith(message)


def test_one_byte_more_than_allowed_is_read_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Path, int]] = []
    monkeypatch.setattr(candidate_files, "read_regular", lambda *given: asked.append(given) or b"x = 1\n")
    assert read_candidate(Path("a.py")).source == "x = 1\n"
    assert asked == [(Path("a.py"), 4 * 2**20 + 1)]


def test_the_longest_source_allowed_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"#" * (4 * 2**20))
    assert len(read_candidate(tmp_path / "a.py").source) == 4 * 2**20
