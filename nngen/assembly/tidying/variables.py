"""Which names of a piece of code are variables, and where they are set."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from nngen.assembly.walk import children, walk

__all__ = ["bound", "is_blind", "variables"]

_LOOKED_UP = frozenset({"locals", "vars", "dir", "eval", "exec"})


def is_blind(module: cst.Module) -> bool:
    """Whether names are looked up or set at run time, or TorchScript reads the source."""
    for node in walk(module):
        match node:
            case cst.Call(func=cst.Name(name)) if name in _LOOKED_UP:
                return True
            case cst.Attribute(attr=cst.Name("script")) | cst.Global():
                return True
    return False


def variables(root: cst.CSTNode) -> Iterator[cst.Name]:
    """Yield the nodes that name variables, set or read; not attributes, keywords of calls, or types."""
    stack = [root]
    while stack:
        node = stack.pop()
        match node:
            case cst.Name():
                yield node
            case cst.Attribute(value=value):
                stack.append(value)
            case cst.Arg(value=value):
                stack.append(value)
            case cst.Annotation():
                pass
            case _:
                stack.extend(children(node))


def bound(root: cst.CSTNode) -> Iterator[cst.Name]:
    """Yield the nodes that set variables, or declare them to be another scope's."""
    stack = [root]
    while stack:
        node = stack.pop()
        match node:
            case cst.AssignTarget(target=target) | cst.AnnAssign(target=target) | cst.AugAssign(target=target):
                yield from _names(target)
            case cst.For(target=target) | cst.CompFor(target=target) | cst.NamedExpr(target=target):
                yield from _names(target)
            case cst.AsName(name=target) | cst.ImportAlias(name=target) | cst.NameItem(name=target):
                yield from _names(target)
            case cst.Del(target=target) | cst.MatchAs(name=target) | cst.MatchStar(name=target):
                if target is not None:
                    yield from _names(target)
            case cst.FunctionDef(name=name) | cst.ClassDef(name=name) | cst.Param(name=name):
                yield name
        stack.extend(children(node))


def _names(target: cst.CSTNode) -> Iterator[cst.Name]:
    match target:
        case cst.Name():
            yield target
        case cst.Tuple(elements=elements) | cst.List(elements=elements):
            for element in elements:
                yield from _names(element.value)
        case cst.StarredElement(value=value):
            yield from _names(value)
