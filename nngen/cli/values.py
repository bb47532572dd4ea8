"""Reads ``NAME=VALUE`` from the command line."""

from __future__ import annotations

from collections.abc import Sequence

from nngen.errors import UsageError

__all__ = ["parse_values"]


def parse_values(texts: Sequence[str]) -> dict[str, float | int | str]:
    """Read hyperparameters; a value that looks like a number is one.

    Raises:
        UsageError: If a text is not ``NAME=VALUE``.
    """
    values: dict[str, float | int | str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not (name.isidentifier() and sign and value):
            raise UsageError(f"{text!r} is not NAME=VALUE: write --prm dropout=0.2")
        values[name] = _value(value)
    return values


def _value(text: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
