"""Content of a page of the dashboard, values of its query, and the cutting of long lists into pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, inf, isfinite
from typing import Any, TypeAlias

from nngen.analysis.ranking.columns import Column, columns_of
from nngen.analysis.ranking.rows import Row
from nngen.errors import UsageError

Query: TypeAlias = Mapping[str, str]

PAGE = 50
"""Rows of a page."""

LISTED = 200
"""Most rows of a table that has no pages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Content of a page."""

    template: str  # name of its template, without the suffix
    title: str  # title of the page
    values: dict[str, Any]  # values of the template by name
    figures: dict[str, str] = field(default_factory=dict)  # figures of the page as JSON, by name
    campaign: str = ""  # campaign whose changes the page follows; "" for all


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """One page of a list."""

    items: Sequence[Any]  # items of the page
    first: int  # number of the first of them, from 0
    count: int  # number of all items
    page: int  # number of the page, from 1
    last: int  # number of the last page
    query: Mapping[str, str]  # the query of the other pages, without their number


def number(query: Query, name: str, default: float) -> float:
    """Read a number of a query.

    Raises:
        UsageError: If it is not a number.
    """
    text = query.get(name, "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = inf
    if not isfinite(value):
        raise UsageError(f"{name} must be a number, not {text[:40]!r}")
    return value


def paged(items: Sequence[Any], query: Query, kept: Mapping[str, str]) -> Pages:
    """Cut a list into pages, and return the one that the query asks for; ``kept`` is the query of the others."""
    last = max(1, ceil(len(items) / PAGE))
    page = int(min(max(number(query, "page", 1), 1), last))
    first = (page - 1) * PAGE
    return Pages(items=items[first : first + PAGE], first=first, count=len(items), page=page, last=last, query=kept)


def table_columns(rows: Sequence[Row]) -> list[Column]:
    """Return the columns of a page's table; ids are links, and stand where a phone shows them."""
    columns = [column for column in columns_of(rows) if column.heading is not None]
    return sorted(columns, key=lambda column: {"rank": 0, "id": 1}.get(column.name, 2))
