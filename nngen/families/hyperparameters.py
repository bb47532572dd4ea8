"""The hyperparameters a family is built with: LEMUR's best, completed."""

from __future__ import annotations

import ast

from nngen.types import Family

__all__ = ["DEFAULTS", "OTHER", "best_hyperparameters", "supported"]

DEFAULTS = {"lr": 0.01, "momentum": 0.9, "dropout": 0.2}
"""For names that LEMUR's best record lacks: what torchvision and its training recipes start from."""

OTHER = 0.1
"""For any other name: LEMUR draws them from [0, 1], and most are a share or a probability."""


def best_hyperparameters(family: Family) -> dict[str, float | int | str]:
    """Every hyperparameter the family asks for, from LEMUR's best record, completed by the defaults.

    What belongs to the trial rather than to the network (``batch``, ``transform``, ``epoch``) is
    left out. All 34 families of nn-dataset 2.1.2 have complete records.
    """
    recorded = family.best.hyperparameters if family.best is not None else {}
    return {name: recorded.get(name, DEFAULTS.get(name, OTHER)) for name in sorted(supported(family.source))}


def supported(source: str) -> frozenset[str]:
    """Read the names that ``supported_hyperparameters`` returns, without running it.

    A source that computes them, or cannot be parsed, gives ``lr`` and ``momentum``, which LEMUR always passes.
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
