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
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Annotated, Any, TextIO

from cyclopts import Parameter
from rich.cells import cell_len

from nngen.text import clean, one_line

LONGEST_LINE = 4000
"""Characters of the longest note, error line and table cell; a mixture of 64 families with their names fits."""

OPTIONAL_COLUMNS = (
    *("parameters", "batch", "canonical", "entropy", "transform", "seconds", "train_loss", "shape", "created_at"),
    *("sampler", "seed", "usage", "best_epoch", "adapter", "seeds", "epochs", "train_accuracy", "rule", "dataset"),
)
"""Columns that a table loses on a narrow terminal, in this order; then others, from the right."""

KEPT_COLUMNS = ("id", "class", "probability", "validation_accuracy", "verdict", "effect")
"""Columns that a table never loses: it is wider than the terminal instead."""

_GAP = 2
_PROSE = 32
_LIST_WIDTH = 24

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
    return "\n".join(fill.fill(line) if _length(line) > fill.width else line for line in text.split("\n"))


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


@dataclass(frozen=True, kw_only=True)
class _Column:
    """A column of a table, with its cells as text."""

    name: str  # key of the rows
    cells: Sequence[str]  # one text per row
    numeric: bool  # whether the column is right-aligned
    folds: bool  # whether the cells are lists, which may continue on the next line after a comma

    @cached_property
    def heading(self) -> str:
        return self.name.replace("_", " ")

    @cached_property
    def widest(self) -> int:
        return max(map(_length, {*self.heading.split(), *self.cells}))

    @cached_property
    def narrowest(self) -> int:
        """Width below which the column is left out: two names for a list, all of any other cell."""
        if not self.folds:
            return self.widest
        names = (name for cell in self.cells for name in cell.split())
        return min(self.widest, max([_LIST_WIDTH, *map(_length, names)]))

    @cached_property
    def prose(self) -> bool:
        return not self.folds and any(_length(cell) > _PROSE and " " in cell for cell in self.cells)

    def draw(self, text: str, width: int) -> tuple[str, ...]:
        """Return the lines of a cell, each padded to ``width``."""
        if len(text) <= width and text.isascii():  # most cells; a table may have half a million
            return (text.rjust(width) if self.numeric else text.ljust(width),)
        lines: Sequence[str] = (text,)
        if _length(text) > width:
            lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
        pads = [" " * (width - _length(line)) for line in lines]
        return tuple(pad + line if self.numeric else line + pad for line, pad in zip(lines, pads, strict=True))


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Print rows as a table on stdout; numbers are right-aligned, None is a dash.

    The table has the width of the terminal, or of ``COLUMNS``; in a pipe or a file it is as wide as it needs. Cells
    are never cut or folded, except that a list continues on the next line after a comma. A table that is too wide
    first loses sentences, which are listed below it, then ``OPTIONAL_COLUMNS`` in their order, then columns from the
    right, but none of ``KEPT_COLUMNS``; a line on stderr names these.

    Args:
        rows: One mapping per line.
        columns: The keys to show, in order; those of the first row by default. Underscores become spaces in the
            heading.
    """
    table = [_column(name, rows) for name in (rows[0] if columns is None else columns)]
    width = shutil.get_terminal_size((0, 0)).columns
    dropped: list[_Column] = []
    for column in _least_important(table):
        if not width or _total(table) <= width:
            break
        table.remove(column)
        dropped.append(column)
    emit("\n".join(_lines(table, width)) + "\n")
    label = next((column for column in table if column.folds), table[0])
    for column in dropped:
        if column.prose:
            emit("".join(f"{line}\n" for line in _listed(column, label, width)))
    if names := [column.heading for column in dropped if not column.prose]:
        note(f"left out at {width} columns: {', '.join(names)}; a wider terminal shows them")


def _column(name: str, rows: Sequence[Mapping[str, Any]]) -> _Column:
    values = [row.get(name) for row in rows]
    return _Column(
        name=name,
        cells=[_cell(value) for value in values],
        numeric=any(isinstance(value, int | float) for value in values),
        folds=any(isinstance(value, list | tuple) for value in values) or name == "experts",
    )


def _least_important(table: Sequence[_Column]) -> list[_Column]:
    """Return the columns in the order in which a narrow table loses them; the first column stays."""
    loses = [column for column in table[1:] if column.name not in KEPT_COLUMNS]
    prose = [column for column in loses if column.prose]
    optional = [column for name in OPTIONAL_COLUMNS for column in loses if column.name == name and not column.prose]
    return prose + optional + [column for column in reversed(loses) if column not in prose + optional]


def _total(table: Sequence[_Column]) -> int:
    return sum(column.narrowest for column in table) + _GAP * (len(table) - 1)


def _lines(table: Sequence[_Column], width: int) -> list[str]:
    """Draw the table: heading, rule, rows; lists get the space that is left over."""
    spare = max(0, width - _total(table)) if width else sys.maxsize
    widths = [min(column.widest, column.narrowest + spare) for column in table]
    blanks = [" " * room for room in widths]
    drawn = [
        [column.draw(text, room) for text in (column.heading, *column.cells)]
        for column, room in zip(table, widths, strict=True)
    ]
    lines = [
        (" " * _GAP).join(part or blank for part, blank in zip(parts, blanks, strict=True)).rstrip()
        for row in zip(*drawn, strict=True)
        for parts in zip_longest(*row)
    ]
    heading = max(len(column[0]) for column in drawn)
    rule = "\u2500" * (sum(widths) + _GAP * (len(table) - 1))
    return [*lines[:heading], rule, *lines[heading:], ""]


def _length(text: str) -> int:
    """Return the number of a terminal's cells that a text takes; rich's own count is slow for 100,000 rows."""
    return len(text) if text.isascii() else cell_len(text)


def _listed(column: _Column, label: _Column, width: int) -> list[str]:
    """Return the sentences of a column, each once, below the rows that it concerns."""
    concerned: dict[str, list[str]] = defaultdict(list)
    for text, row in zip(column.cells, label.cells, strict=True):
        if text not in ("", "-"):
            concerned[text].append(row)
    lines = [f"{'; '.join(rows) if label.folds else ', '.join(rows)}: {text}" for text, rows in concerned.items()]
    wrapped = [textwrap.wrap(line, width, subsequent_indent="  ", break_on_hyphens=False) for line in lines]
    return [f"{column.heading}:", *(line for lines in wrapped for line in lines), ""]


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
