"""A file from outside becomes a candidate."""

from __future__ import annotations

import re
from pathlib import Path

from nngen.assembly.identity import canonical_hash
from nngen.assembly.provenance import assembled_here
from nngen.checks.rule import fail
from nngen.checks.rules.static.syntax import MAX_BYTES
from nngen.errors import UsageError
from nngen.isolation.level import Isolation
from nngen.lemur.layout import nn_id
from nngen.types import Candidate, Outcome

__all__ = ["check_isolation", "choose_isolation", "find_files", "read_candidate"]

_RULE = "file"
_GENERATED = re.compile(r"(?:[A-Za-z0-9.-]+-)?([0-9a-f]{32})")


def find_files(paths: list[Path]) -> list[Path]:
    """List the files meant: each path itself, or the ``*.py`` of a folder in alphabetical order.

    Raises:
        UsageError: If a path is not there, or a folder holds no such file.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            files = sorted(path.glob("*.py"))
            if not files:
                raise UsageError(f"{path} holds no .py file")
            found.extend(files)
        elif path.exists():
            found.append(path)
        else:
            raise UsageError(f"there is no file or folder {path}")
    return found


def read_candidate(path: Path) -> Candidate:
    """Read a file as a candidate; never more of it than a source may have.

    Its id is the file's name where that is LEMUR's name for this source, else LEMUR's bare id.

    Raises:
        UsageError: If it cannot be read.
        CheckFailed: If it is too long or no UTF-8 text.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise fail(Outcome.SYNTAX, _RULE, "is longer than 4 MiB, the most that is looked at")
    try:
        source = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise fail(Outcome.SYNTAX, _RULE, "is no UTF-8 text: save it as UTF-8", line=line) from None
    md5 = nn_id(source)
    named = _GENERATED.fullmatch(path.stem)
    return Candidate(
        id=path.stem if named and named.group(1) == md5 else md5,
        source=source,
        canonical=_canonical(source),
    )


def check_isolation(wanted: str) -> None:
    """Refuse a word that is no level and not ``auto``.

    Raises:
        UsageError: The message lists the levels.
    """
    levels = ("auto", *Isolation)
    if wanted not in levels:
        raise UsageError(f"there is no isolation {wanted!r}: choose {', '.join(levels)}")


def choose_isolation(wanted: str, source: str) -> Isolation:
    """Return the level at which a source runs.

    Args:
        wanted: A level, or ``auto``: process for what this package assembled, else sandbox.
        source: Not run here, nor parsed beyond its docstring.
    """
    if wanted != "auto":
        return Isolation(wanted)
    return Isolation.PROCESS if assembled_here(source) else Isolation.SANDBOX


def _canonical(source: str) -> str:
    """Hash the tree; a source that has none gets an empty hash, and its verdict from the checks."""
    try:
        return canonical_hash(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
