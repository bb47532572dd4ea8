"""Checks of a candidate: static rules on the syntax tree, dynamic rules inside a worker.

Importing this package loads no torch; ``dynamic_check`` does, when it is called.
"""

from __future__ import annotations

from pathlib import Path

from nngen.checks.rule import CheckFailed
from nngen.checks.static import static_check
from nngen.types import Hyperparameters, Shape, Verdict

__all__ = ["CheckFailed", "dynamic_check", "static_check"]


def dynamic_check(
    path: Path,
    *,
    shape: Shape,
    classes: int,
    hyperparameters: Hyperparameters | None = None,
    device: str = "cpu",
) -> Verdict:
    """Import the file and check that it builds, keeps its shapes and learns; see ``nngen.checks.dynamic``."""
    from nngen.checks.dynamic import dynamic_check as check

    return check(path, shape=shape, classes=classes, hyperparameters=hyperparameters or {}, device=device)
