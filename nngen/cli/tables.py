"""Tables as text for ``print_table``: widths, cells, and the columns that a narrow terminal does not show."""

from __future__ import annotations

import sys
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Any

from rich.cells import cell_len

from nngen.text import one_line

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
        return max(map(width_of, {*self.heading.split(), *self.cells}))

    @cached_property
    def narrowest(self) -> int:
        """Width below which the column is left out: two names for a list, all of any other cell."""
        if not self.folds:
            return self.widest
        names = (name for cell in self.cells for name in cell.split())
        return min(self.widest, max([_LIST_WIDTH, *map(width_of, names)]))

    @cached_property
    def prose(self) -> bool:
        return not self.folds and any(width_of(cell) > _PROSE and " " in cell for cell in self.cells)

    def draw(self, text: str, width: int) -> tuple[str, ...]:
        """Return the lines of a cell, each padded to ``width``."""
        if len(text) <= width and text.isascii():  # most cells; a table may have half a million
            return (text.rjust(width) if self.numeric else text.ljust(width),)
        lines: Sequence[str] = (text,)
        if width_of(text) > width:
            lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
        pads = [" " * (width - width_of(line)) for line in lines]
        return tuple(pad + line if self.numeric else line + pad for line, pad in zip(lines, pads, strict=True))


def draw_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None, width: int) -> tuple[str, list[str]]:
    """Draw rows as a table; numbers are right-aligned, None is a dash.

    Cells are never cut or folded, except that a list continues on the next line after a comma. A table that is too wide
    first loses sentences, which are listed below it, then ``OPTIONAL_COLUMNS`` in their order, then columns from the
    right, but none of ``KEPT_COLUMNS``.

    Args:
        rows: One mapping per line.
        columns: The keys to show, in order; those of the first row where it is None. Underscores become spaces in the
            heading.
        width: Width in cells of a terminal; 0 for a table that is as wide as it needs.

    Returns:
        The table with the sentences below it, and the headings of the columns that are left out.
    """
    table = [_column(name, rows) for name in (rows[0] if columns is None else columns)]
    dropped: list[_Column] = []
    for column in _least_important(table):
        if not width or _total(table) <= width:
            break
        table.remove(column)
        dropped.append(column)
    lines = _lines(table, width)
    label = next((column for column in table if column.folds), table[0])
    for column in dropped:
        if column.prose:
            lines += _listed(column, label, width)
    return "\n".join(lines) + "\n", [column.heading for column in dropped if not column.prose]


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


def width_of(text: str) -> int:
    """Return the number of a terminal's cells that a text takes; rich's own count is slow for 100,000 rows."""
    return len(text) if text.isascii() else cell_len(text)
