"""Output of the commands: results on stdout as a table or as JSON, notes on stderr; foreign text is made safe to show.

A result that cannot be written (a reader that went away, a full disk, a closed stream) does not stop a command:
``lost_output`` tells ``run`` about it at the end. Notes that cannot be written are dropped.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from nngen.text import clean, one_line

LONGEST_LINE = 4000
"""Characters of the longest note, error line and table cell; a mixture of 64 families with their names fits."""

_NOT_ASCII = re.compile(r"[^\x20-\x7e\n]")

_lost: list[OSError] = []


class _Droppable(io.TextIOWrapper):
    """Stderr whose errors are ignored: a campaign goes on when its progress cannot be written."""

    def write(self, text: str, /) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def guard_streams() -> None:
    """Make stdin, stdout and stderr usable in a process that was started without them, and stderr never raise."""
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # Else the next file that is opened, the archive perhaps, gets the number and whatever is written to it.
            # Stdout is opened for reading, so that results are known to be lost.
            os.set_inheritable(os.open(os.devnull, mode), True)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    stderr = os.fdopen(2, "wb", closefd=False)
    sys.stderr = _Droppable(stderr, "utf-8", "backslashreplace", line_buffering=True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def lost_output() -> OSError | None:
    """Return the error that kept results from being written since the last call, and forget it."""
    error = _lost[0] if _lost else None
    _lost.clear()
    return error


def emit(text: str) -> bool:
    """Write a result to stdout as it is; return whether its reader can take more."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        _lost.append(error)
    return not _lost


def say(line: str = "", *, limit: int | None = LONGEST_LINE) -> None:
    """Print a line, or several, on stdout without control characters."""
    emit(clean(line, limit, lines=True) + "\n")


def note(line: str, *, prefix: str = "nngen: ") -> None:
    """Print one line on stderr about what a command does or leaves out."""
    print(clean(f"{prefix}{line}", LONGEST_LINE), file=sys.stderr, flush=True)


def to_json(value: Any, indent: int | None = 2) -> str:
    """Write JSON as people read it, except for characters that a terminal would obey: those are escaped."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _NOT_ASCII.sub(lambda found: found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1], text)


def print_json(value: Any) -> None:
    """Print ``value`` as indented JSON on stdout."""
    emit(f"{to_json(value)}\n")


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Print rows as a table on stdout; numbers are right-aligned, None is a dash.

    Args:
        rows: One mapping per line.
        columns: The keys to show, in order; those of the first row by default. Underscores become spaces in the
            heading.
    """
    columns = list(rows[0]) if columns is None else columns
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        numeric = any(isinstance(row.get(column), int | float) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    # Drawn into a string first: rich itself ends the process when a pipe breaks.
    drawn, terminal = io.StringIO(), sys.stdout.isatty()
    width = None if terminal else 200
    Console(file=drawn, force_terminal=terminal, width=width, highlight=False, markup=False).print(table)
    emit(drawn.getvalue())


def _cell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4f}"
        case int():
            return f"{value:,}"
        case list() | tuple():
            return one_line(", ".join(map(str, value)), LONGEST_LINE)
        case _:
            return one_line(str(value), LONGEST_LINE)
