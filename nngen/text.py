"""Text helpers shared by all packages: nearest names, lists of names, clean texts, foreign Python and TOML."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import tomllib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any

MAX_PARSED = 200_000
"""Characters of the longest foreign source that is parsed outside of a worker; LEMUR's longest has 178,375."""

_MAX_DOTS = 1000
_MAX_NESTED = 50

_DECLARED = re.compile(r"^([ \t\f]*#.*?coding[:=][ \t]*)[-\w.]+", re.ASCII)
_SLOW_CODECS = frozenset({"idna", "punycode"})
"""Codecs whose time grows with the square of the length; no source is written in them."""

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\?)?|[@-Z\\-_])")


def did_you_mean(name: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """Suggest the known names nearest to an unknown one; upper and lower case count as equal.

    Args:
        name: The name that was not found.
        known: The names there are.
        otherwise: Returned where no name is near.

    Returns:
        ``did you mean A or B?`` with at most three names, or ``otherwise``.
    """
    by_fold = {item.casefold(): item for item in known}
    close = get_close_matches(name.casefold(), by_fold, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(by_fold[fold] for fold in close)}?" if close else otherwise


def clean(text: str, limit: int | None = 300, *, lines: bool = False) -> str:
    """Make foreign text safe to show on a terminal, a page, a plot or in an error line.

    Escape sequences are removed; control characters, marks of writing direction, lone surrogates and other characters
    that do not print become spaces.

    Args:
        text: Text of an archive, a candidate, a server or a file.
        limit: Most characters of the result, of which the last is then an ellipsis; None for no limit.
        lines: Whether line breaks and tabs stay.
    """
    if text.isprintable() and (limit is None or len(text) <= limit):
        return text  # most texts; tables have a million of them
    if limit is not None:
        text = text[: 10 * limit]  # the text may be as long as its author likes
    kept = "\n\t" if lines else ""
    text = "".join(char if char.isprintable() or char in kept else " " for char in _ESCAPES.sub("", text))
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"


def one_line(text: str, limit: int = 300) -> str:
    """Make foreign text fit to print in one line: ``clean``, and white space becomes single spaces."""
    text = " ".join(clean(text, 10 * limit).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def listed(names: Sequence[str], limit: int | None = None) -> str:
    """Join names as ``A, B and C``; of more than ``limit`` names the last become ``4 more``."""
    if limit is not None and len(names) > limit:
        names = [*names[: limit - 1], f"{len(names) - limit + 1} more"]
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: ``1 epoch``, ``2,000 epochs``; ``plural`` is for a noun without a plain s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def split_names(text: str) -> tuple[str, ...]:
    """Split a comma-separated list; white space around names and empty names are dropped."""
    return tuple(name for item in text.split(",") if (name := item.strip()))


def public_name(dataset: str) -> str:
    """Return a data set's name without the folders of this machine: ``photos`` for ``folder:/home/me/photos``."""
    _, sign, path = dataset.partition(":")
    return re.sub(r"[^A-Za-z0-9.-]+", "-", PurePath(path).name).strip("-") or "images" if sign else dataset


def decode_python(data: bytes) -> str:
    """Decode a Python file as Python does: by its byte order mark or its declared encoding, else as UTF-8.

    Returns:
        The text without a byte order mark; a declaration of another encoding now names UTF-8.

    Raises:
        UnicodeDecodeError: If the bytes are not text in that encoding.
        ValueError: If the declared encoding is not known; the message is one phrase.
    """
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    except SyntaxError as error:
        data.decode("utf-8-sig")  # where that is the reason, its error names the place
        raise ValueError(one_line(str(error))) from None
    if encoding in _SLOW_CODECS:
        raise ValueError(f"unknown encoding: {encoding}")
    try:
        text = data.decode(encoding)
    except LookupError as error:  # a codec that gives no text
        raise ValueError(one_line(str(error))) from None
    if encoding.startswith("utf-8"):
        return text
    first, second, *rest = [*text.split("\n", 2), ""]
    if _DECLARED.match(first):
        first = _DECLARED.sub(r"\1utf-8", first)
    else:
        second = _DECLARED.sub(r"\1utf-8", second)
    return "\n".join([first, second, *rest])


def parse_python(source: str) -> ast.Module:
    """Parse foreign Python in this process, where no limit of memory or time holds.

    Raises:
        SyntaxError: If it is longer than ``MAX_PARSED``, nested too deep, not text, or not Python.
    """
    if len(source) > MAX_PARSED:
        raise SyntaxError(f"longer than {MAX_PARSED:,} characters, the most that is parsed outside of a worker")
    try:
        return ast.parse(source)
    except (ValueError, RecursionError, MemoryError) as error:
        raise SyntaxError(str(error) or "nested too deep") from None


def parse_toml(text: str) -> dict[str, Any]:
    """Parse foreign TOML.

    Raises:
        ValueError: If it is not TOML, nested too deep, or holds a number of more than 64 bits; the message is one
            phrase.
    """
    # tomllib takes time that grows with the square of the parts of a key, a.b.c
    if any(line.count(".") > _MAX_DOTS for line in text.splitlines()):
        raise ValueError(f"one of its lines has more than {_MAX_DOTS} dots")
    big, deep = "it holds a whole number of more than 64 bits", f"it is nested more than {_MAX_NESTED} deep"
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"it is not valid TOML ({one_line(str(error))})") from None
    except RecursionError:
        raise ValueError(deep) from None
    except ValueError:  # Python's own limit on the digits of a number that is read
        raise ValueError(big) from None
    level: list[Any] = [table]
    for _ in range(_MAX_NESTED):
        level = [item for outer in level for item in (outer.values() if isinstance(outer, dict) else outer)]
        if any(isinstance(item, int) and not -(2**63) <= item < 2**63 for item in level):
            raise ValueError(big)
        level = [item for item in level if isinstance(item, dict | list)]
    if level:
        raise ValueError(deep)
    return table
