"""Checked reading of the values of columns; a value that cannot be read is named with its column."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from nngen.errors import NngenError
from nngen.text import clean

T = TypeVar("T")

Row = sqlite3.Row | Mapping[str, Any]
"""A row of a table: its columns by name."""


class DamagedRowError(Exception):
    """A row that cannot be read; the text names the column and the reason."""


UNREADABLE = (
    *(ArithmeticError, AttributeError, DamagedRowError, LookupError),
    *(NngenError, RecursionError, TypeError, ValueError),
)
"""What reading a row raises where a value, or the name of a column, was damaged."""


def read(row: Row, column: str, parse: Callable[[Any], T]) -> T:
    """Read one column of a row.

    Raises:
        DamagedRowError: If the column does not hold what was written there.
    """
    try:
        return parse(row[column])
    except json.JSONDecodeError as error:
        raise DamagedRowError(f"{column} is not valid JSON") from error
    except RecursionError as error:
        raise DamagedRowError(f"{column} is nested too deeply") from error
    except UNREADABLE as error:
        raise DamagedRowError(f"{column} cannot be read ({clean(str(error), 120)})") from error


def checked(value: T) -> T:
    """Return a dataclass whose fields have the types that they are declared with.

    Raises:
        TypeError: If one has another type, as JSON that was changed by hand may give it.
    """
    kind: type = type(value)
    for name, fits in _fields(kind):
        found = getattr(value, name)
        if not fits(found):
            raise TypeError(f"{name} is {found!r:.60}")
    return value


@cache
def _fields(kind: type) -> list[tuple[str, Callable[[Any], bool]]]:
    hints = get_type_hints(kind)
    return [(item.name, _fitting(hints[item.name])) for item in fields(kind)]


def _fitting(hint: Any) -> Callable[[Any], bool]:
    """Return the function that tells whether a value has a type, made once for many values."""
    origin, parts = get_origin(hint), tuple(map(_fitting, (arg for arg in get_args(hint) if arg is not Ellipsis)))
    if origin in (Union, UnionType):
        return lambda value: any(fits(value) for fits in parts)
    if origin is tuple and Ellipsis in get_args(hint):
        return lambda value: isinstance(value, tuple) and all(map(parts[0], value))
    if origin is tuple:
        return lambda value: (
            isinstance(value, tuple)
            and len(value) == len(parts)
            and all(fits(item) for fits, item in zip(parts, value, strict=True))
        )
    if origin is not None and issubclass(origin, Mapping):
        keys, items = parts
        return lambda value: isinstance(value, Mapping) and all(map(keys, value)) and all(map(items, value.values()))
    if hint in (int, float):
        return lambda value: isinstance(value, (int, hint)) and not isinstance(value, bool)
    if isinstance(hint, type) and is_dataclass(hint):
        return lambda value: isinstance(value, hint) and checked(value) is value
    return lambda value: hint is Any or isinstance(value, hint)


def check_texts(row: Row) -> None:
    """Check that a row has no bytes that are not UTF-8, where those are read as lone surrogates.

    Raises:
        DamagedRowError: If it has some.
    """
    for column in row.keys():  # noqa: SIM118 - a row of SQLite iterates over its values
        value = row[column]
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise DamagedRowError(f"{column} is not UTF-8") from None


def share(value: Any) -> float | None:
    """Check an accuracy: None, or a number in [0, 1].

    Raises:
        ValueError: If it is something else.
    """
    if value is None or (isinstance(value, int | float) and 0 <= value <= 1):
        return value
    raise ValueError(f"{value!r:.40} is not between 0 and 1")


def amount(value: Any) -> Any:
    """Check a measured amount: None, or a finite number that is not negative.

    Raises:
        ValueError: If it is something else.
    """
    if value is None or (isinstance(value, int | float) and 0 <= value < math.inf):
        return value
    raise ValueError(f"{value!r:.40} is not an amount")


def text(value: Any) -> str:
    """Check a text.

    Raises:
        TypeError: If it is something else.
    """
    if isinstance(value, str):
        return value
    raise TypeError(f"{value!r:.40} is not a text")
