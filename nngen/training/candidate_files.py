"""Candidates from files: finds files, and reads them as candidates."""

from __future__ import annotations

import re
from pathlib import Path

from nngen.assembly.identity import canonical_hash
from nngen.checks.rule import fail
from nngen.errors import UsageError
from nngen.files import path_kind, read_regular
from nngen.lemur.layout import nn_id
from nngen.text import decode_python
from nngen.types import MAX_SOURCE_BYTES, Candidate, Outcome

_RULE = "file"
_GENERATED = re.compile(r"(?:[A-Za-z0-9.-]+-)?([0-9a-f]{32})")


def find_files(paths: list[Path]) -> list[Path]:
    """List files: each path itself, or the ``*.py`` of a folder in alphabetical order.

    Raises:
        UsageError: If a path does not exist, or a folder has no such file.
    """
    found: list[Path] = []
    for path in paths:
        if path_kind(path) == "folder":
            files = sorted(path.glob("*.py"))
            if not files:
                raise UsageError(f"{path} has no .py file")
            # A link may lead out of the folder, and a FIFO or a device never ends.
            if odd := [file for file in files if file.is_symlink() or not file.is_file()]:
                raise UsageError(f"{odd[0]} is not a regular file: remove it, or name the files one by one")
            found.extend(files)
        elif path_kind(path) == "file":
            found.append(path)
        else:
            raise UsageError(f"no file or folder {path}")
    return found


def read_candidate(path: Path) -> Candidate:
    """Read a file as a candidate; never more of it than the longest source allowed.

    Its id is the file's name where that ends with LEMUR's id of this source, else that id.

    Raises:
        UsageError: If it cannot be read.
        CheckFailed: If it is too long or is not text.
    """
    try:
        data = read_regular(path, MAX_SOURCE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_SOURCE_BYTES:
        raise fail(Outcome.SYNTAX, _RULE, f"is longer than {MAX_SOURCE_BYTES // 2**20} MiB, the longest source allowed")
    try:
        source = decode_python(data)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise fail(
            Outcome.SYNTAX, _RULE, f"is not {error.encoding.upper()} text: save it as UTF-8", line=line
        ) from None
    except ValueError as error:
        raise fail(Outcome.SYNTAX, _RULE, f"cannot be read as Python: {error}") from None
    md5 = nn_id(source)
    named = _GENERATED.fullmatch(path.stem)
    try:
        canonical = canonical_hash(source)
    except SyntaxError:
        canonical = ""  # no syntax tree to hash: the checks give the verdict
    return Candidate(id=path.stem if named and named.group(1) == md5 else md5, source=source, canonical=canonical)
