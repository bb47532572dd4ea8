"""Hyperparameters for building a family: those of LEMUR's best record, completed by defaults."""

from __future__ import annotations

import ast

from nngen.types import Family

__all__ = ["best_hyperparameters", "supported"]

DEFAULTS = {"lr": 0.01, "momentum": 0.9, "dropout": 0.2}
"""Values for names that LEMUR's best record lacks: the initial values of torchvision and its training recipes."""

OTHER = 0.1
"""Value for any other name: LEMUR draws them from [0, 1], and most are a fraction or a probability."""


def best_hyperparameters(family: Family) -> dict[str, float | int | str]:
    """Return a value for every hyperparameter that the family supports.

    Hyperparameters of the trial rather than of the network (``batch``, ``transform``, ``epoch``) are
    left out. All 34 families of nn-dataset 2.1.2 have complete records.
    """
    recorded = family.best.hyperparameters if family.best is not None else {}
    return {name: recorded.get(name, DEFAULTS.get(name, OTHER)) for name in sorted(supported(family.source))}


def supported(source: str) -> frozenset[str]:
    """Return the names in the set that ``supported_hyperparameters`` returns, without running it.

    For a source that computes them, or does not parse, they are ``lr`` and ``momentum``, which LEMUR always passes.
    """
    fallback = frozenset({"lr", "momentum"})
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return fallback
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "supported_hyperparameters":
            for statement in ast.walk(node):
                if isinstance(statement, ast.Return) and isinstance(statement.value, ast.Set):
                    names = [item.value for item in statement.value.elts if isinstance(item, ast.Constant)]
                    return frozenset(name for name in names if isinstance(name, str)) or fallback
    return fallback
