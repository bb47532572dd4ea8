"""Walks a libcst tree without rebuilding it, several times faster than a visitor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import libcst as cst

__all__ = ["children", "walk"]


def walk(root: cst.CSTNode, skip: Callable[[cst.CSTNode], bool] | None = None) -> Iterator[cst.CSTNode]:
    """Yield a node and everything below it, in no particular order; white space is passed over.

    Args:
        root: Where to start.
        skip: Tells which nodes are left out, with everything below them.
    """
    stack: list[cst.CSTNode] = [root]
    while stack:
        node = stack.pop()
        if skip is not None and skip(node):
            continue
        yield node
        stack.extend(children(node))


def children(node: cst.CSTNode) -> list[cst.CSTNode]:
    """Return what is right below a node, in the order of its fields, without white space."""
    found: list[cst.CSTNode] = []
    for name in _fields(type(node)):
        child = getattr(node, name)
        if isinstance(child, cst.CSTNode):
            found.append(child)
        elif isinstance(child, list | tuple):
            found.extend(item for item in child if isinstance(item, cst.CSTNode))
    return found


@cache
def _fields(kind: type[cst.CSTNode]) -> tuple[str, ...]:
    if kind.__name__ in ("SimpleWhitespace", "ParenthesizedWhitespace", "TrailingWhitespace", "EmptyLine"):
        return ()
    names = tuple(kind.__dataclass_fields__)
    return tuple(name for name in names if "whitespace" not in name and name not in ("lpar", "rpar", "leading_lines"))
