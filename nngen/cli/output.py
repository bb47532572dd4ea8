"""Output of the commands: results on stdout as a table or as JSON, notes on stderr; foreign text is made safe to show.

A result that cannot be written (a reader that went away, a full disk, a closed stream) does not stop a command:
``lost_output`` tells ``run`` about it at the end. Notes that cannot be written are dropped.

``--quiet`` and ``--verbose`` set how much is printed on stderr, for the whole process, before a command runs.
"""

from __future__ import annotations

import enum
import io
import json
import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, TextIO

from cyclopts import Parameter

from nngen.cli.tables import LONGEST_LINE, draw_table, width_of
from nngen.text import clean, one_line

_NOT_ASCII = re.compile(r"[^\x20-\x7e\n]")

_lost: list[OSError] = []
_suggested: list[str] = []


class Talk(enum.IntEnum):
    """Amount of text on stderr."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


_talk = [Talk.NORMAL]
_emitted = [False]


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


def set_talk(level: Talk) -> None:
    """Set how much is printed on stderr from now on."""
    _talk[0] = level


def talk() -> Talk:
    """Return how much is printed on stderr."""
    return _talk[0]


def begin_output() -> None:
    """Forget what an earlier command of this process printed and set."""
    _talk[0], _emitted[0] = Talk.NORMAL, False


def lost_output() -> OSError | None:
    """Return the error that kept results from being written since the last call, and forget it."""
    error = _lost[0] if _lost else None
    _lost.clear()
    return error


def emit(text: str) -> bool:
    """Write a result to stdout as it is; return whether its reader can take more."""
    _emitted[0] = True
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        _lost.append(error)
    return not _lost


def say(line: str = "", *, limit: int | None = LONGEST_LINE) -> None:
    """Print a line, or several, on stdout without control characters; without a limit they are not broken either."""
    text = clean(line, limit, lines=True)
    emit((text if limit is None else _broken(text, sys.stdout)) + "\n")


def note(line: str, *, prefix: str = "nngen: ", least: Talk = Talk.NORMAL) -> None:
    """Print one line on stderr about what a command does or leaves out; with --quiet none is printed.

    Args:
        line: The line.
        prefix: Text before it.
        least: Amount of text from which on it is printed: ``VERBOSE`` for details, ``QUIET`` for errors.
    """
    if _talk[0] < least:
        return
    text = clean(f"{prefix}{line}", LONGEST_LINE)
    # A command that is suggested stays in one line, to be copied.
    print(text if prefix.startswith("next") else _broken(text, sys.stderr), file=sys.stderr, flush=True)


def detail(line: str) -> None:
    """Print one line on stderr where --verbose asks for details."""
    note(line, least=Talk.VERBOSE)


def print_error(message: str, *, kind: str, code: int, as_json: bool) -> None:
    """Print an error as one line on stderr, and as JSON on stdout where no result was printed.

    Args:
        message: The error.
        kind: Its class: ``UsageError``, ``DataError``, ...
        code: Exit code of the command.
        as_json: Whether the command was asked for JSON.
    """
    note(one_line(message, LONGEST_LINE), least=Talk.QUIET)
    if as_json and not _emitted[0]:
        print_json({"error": {"kind": kind, "message": message, "exit_code": code}})


def _broken(text: str, stream: TextIO) -> str:
    """Break lines at spaces for a terminal, which breaks them within words and numbers."""
    try:
        width = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):  # not a terminal
        return text
    fill = textwrap.TextWrapper(width or 80, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(fill.fill(line) if width_of(line) > fill.width else line for line in text.split("\n"))


def suggest(*words: object) -> None:
    """Name the command that usually comes next; ``run`` prints it on stderr where the command succeeds."""
    _suggested[:] = [shlex.join(str(word) for word in words)]


def suggestion() -> str | None:
    """Return the command that was suggested since the last call, and forget it."""
    return _suggested.pop() if _suggested else None


def to_json(value: Any, indent: int | None = 2) -> str:
    """Write JSON as people read it, except for characters that a terminal would obey: those are escaped."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _NOT_ASCII.sub(lambda found: found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1], text)


def print_json(value: Any) -> None:
    """Print ``value`` as indented JSON on stdout."""
    emit(f"{to_json(value)}\n")


Flag = Annotated[bool, Parameter(negative="", show_default=False)]
"""An option without a value and without a negative form."""


@Parameter(name="*", group="Output")
@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """Form of the output, and how much is printed beside it.

    Attributes:
        json: Print the result as JSON; an error, too.
        quiet: Print neither progress nor notes, only results and errors.
        verbose: Print details on stderr: values of options that come from elsewhere than the command line, the archive
            that is used, time and memory at the end, and where an error arose.
    """

    json: Flag = False
    quiet: Annotated[Flag, Parameter(name=("--quiet", "-q"))] = False
    verbose: Annotated[Flag, Parameter(name=("--verbose", "-v"))] = False

    def print_rows(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
        """Print whole rows as JSON, or their columns as a table."""
        if self.json:
            print_json(rows)
        else:
            print_table(rows, columns)


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Print rows as a table on stdout: see ``draw_table``; a line on stderr names the columns that are left out.

    The table has the width of the terminal, or of ``COLUMNS``; in a pipe or a file it is as wide as it needs.

    Args:
        rows: One mapping per line.
        columns: The keys to show, in order; those of the first row by default.
    """
    width = shutil.get_terminal_size((0, 0)).columns
    text, left_out = draw_table(rows, columns, width)
    emit(text)
    if left_out:
        note(f"left out at {width} columns: {', '.join(left_out)}; a wider terminal shows them")
