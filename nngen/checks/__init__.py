"""Checks of a candidate: static rules on the syntax tree, dynamic rules inside a worker.

Importing this package loads no torch; ``nngen.checks.dynamic`` does.
"""

from __future__ import annotations

from nngen.checks.rule import CheckFailed
from nngen.checks.static import static_check

__all__ = ["CheckFailed", "static_check"]
