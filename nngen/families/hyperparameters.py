"""Hyperparameters for building a family: those of LEMUR's best record, completed by defaults."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable
from dataclasses import replace

from nngen.errors import UsageError
from nngen.text import did_you_mean, parse_python
from nngen.types import Family, Hyperparameters

DEFAULTS = {"lr": 0.01, "momentum": 0.9, "dropout": 0.2}
"""Values for names that LEMUR's best record lacks: the initial values of torchvision and its training recipes."""

OTHER = 0.1
"""Value for any other name: LEMUR draws them from [0, 1], and most are a fraction or a probability."""


_RANGES = {"lr": (1e-9, 10.0), "momentum": (0.0, 1.0), "dropout": (0.0, 1.0), "batch": (1, 2**20), "epoch": (1, 10**6)}
"""Ranges of recorded values of some names, bounds included; a record beyond them is not used."""

_OF_TRIAL = {"lr": "--lr", "momentum": "--momentum", "batch": "--batch", "epoch": "--epochs", "transform": "--augment"}
"""Hyperparameters of a mixture's trial, which its experts share, with their flags."""

_LONGEST = 100


def best_hyperparameters(family: Family, names: Iterable[str] | None = None) -> dict[str, float | int | str]:
    """Return a value for every hyperparameter that the family supports.

    Hyperparameters of the trial rather than of the network (``batch``, ``transform``, ``epoch``) are
    left out. All 34 families of nn-dataset 2.1.2 have complete records. Names are read from the source unless given.
    """
    return complete(supported(family.source) if names is None else names, recorded(family))


def recorded(family: Family) -> Hyperparameters:
    """Return LEMUR's best values for a family, without those of an impossible type or range, or those asked for."""
    found = {**(family.best.hyperparameters if family.best is not None else {}), **family.asked}
    return {name: value for name, value in found.items() if _possible(name, value)}


def with_hyperparameters(families: Iterable[Family], values: Hyperparameters) -> tuple[Family, ...]:
    """Return families whose networks are built with values asked for, each with those that its source names.

    Raises:
        UsageError: If no family has one of them, or a value is not possible.
    """
    families = tuple(families)
    own = {family.name: supported(family.source) - _OF_TRIAL.keys() for family in families}
    for name, value in values.items():
        if name in _OF_TRIAL:
            raise UsageError(f"--prm {name}: a mixture takes it from {_OF_TRIAL[name]}")
        if not any(name in names for names in own.values()):
            there = sorted(set().union(*own.values()))
            hint = did_you_mean(name, there, otherwise=f"there are {', '.join(there) or 'none'}")
            raise UsageError(f"no family of the pool has a hyperparameter {name!r}: {hint}")
        if name in _RANGES and not _possible(name, value):
            raise UsageError(f"--prm {name}={value}: {name} lies between {' and '.join(map(str, _RANGES[name]))}")
    asked = {name: {key: values[key] for key in values.keys() & names} for name, names in own.items()}
    return tuple(replace(family, asked=asked[family.name]) for family in families)


def complete(names: Iterable[str], values: Hyperparameters) -> dict[str, float | int | str]:
    """Return a value for each name, sorted by name: the given one, or a default."""
    return {name: values.get(name, DEFAULTS.get(name, OTHER)) for name in sorted(names)}


def _possible(name: str, value: object) -> bool:
    if name in _RANGES:
        low, high = _RANGES[name]
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    if isinstance(value, str):
        return len(value) <= _LONGEST and value.isprintable()
    return isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))


def supported(source: str) -> frozenset[str]:
    """Return the names in the collection that ``supported_hyperparameters`` returns, without running it.

    For a source that computes them, or does not parse, they are ``lr`` and ``momentum``, which LEMUR always passes.
    """
    fallback = frozenset({"lr", "momentum"})
    try:
        tree = parse_python(source)
    except SyntaxError:
        return fallback
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "supported_hyperparameters":
            for statement in ast.walk(node):
                if isinstance(statement, ast.Return) and (names := _literal_names(statement.value)):
                    return names
    return fallback


def _literal_names(value: ast.expr | None) -> frozenset[str]:
    """Return the names that an expression spells out; none where they must be computed."""
    match value:
        case ast.Set(elts=items) | ast.List(elts=items) | ast.Tuple(elts=items):
            names = (item.value for item in items if isinstance(item, ast.Constant))
            return frozenset(name for name in names if isinstance(name, str))
        case ast.Call(func=ast.Name(id="set" | "frozenset"), args=[collection], keywords=[]):
            return _literal_names(collection)
        case ast.Call(func=ast.Attribute(value=ast.Constant(value=str(text)), attr="split"), args=[], keywords=[]):
            return frozenset(text.split())
    return frozenset()
