"""Attributes that nothing reads are left out: numbers and the like that a constructor keeps for no one.

Never a module, a parameter or anything else that a state may hold, and never what a string spells, PyTorch reads, or a
mixture puts right (``device``).
"""

# ruff: noqa: N802 -- libcst calls its visitors' methods by the names of its node classes

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import libcst as cst

from nngen.assembly.tidying.routines import PYTORCH
from nngen.assembly.tidying.variables import is_blind, variables
from nngen.assembly.walk import walk

__all__ = ["drop_unread"]

_KEPT = frozenset({"device", "training"})
_GIVEN = frozenset({"in_shape", "out_shape", "prm"})
"""What a network is built with: numbers, and strings."""
_PLAIN = frozenset({"int", "float", "bool", "str"})
_BASES = frozenset({"nn.Module", "torch.nn.Module"})


def drop_unread(module: cst.Module) -> cst.Module:
    """Leave out attributes that are set and never read; the program is the same."""
    if is_blind(module) or any(_is_dynamic(node) for node in walk(module)):
        return module
    found: Counter[str] = Counter()
    taken: set[str] = set()
    for node in walk(module):
        match node:
            case cst.Attribute(attr=cst.Name(name)):
                found[name] += 1
            case cst.SimpleString() | cst.FormattedStringText():
                taken |= set(re.findall(r"\w+", node.value))
            case cst.ClassDef(body=body):
                taken |= {item.value for line in body.body if not _is_function(line) for item in variables(line)}
    lines = [(line, name) for kind in module.body if _is_module(kind) for line, name in _stores(kind)]
    often = Counter(name for _, name in lines)
    unread = {
        name
        for name, number in often.items()
        if number == found[name] and name not in taken | PYTORCH | _KEPT and not name.startswith("__")
    }
    gone = {id(line) for line, name in lines if name in unread}
    return module.visit(_Dropped(gone)) if gone else module


def _is_dynamic(node: cst.CSTNode) -> bool:
    match node:
        case cst.Call(func=cst.Name("getattr" | "setattr" | "hasattr"), args=[_, cst.Arg(value=value), *_]):
            return not isinstance(value, cst.SimpleString)
        case cst.Attribute(attr=cst.Name("__dict__")):
            return True
    return False


def _is_function(line: cst.CSTNode) -> bool:
    return isinstance(line, cst.FunctionDef)


def _is_module(kind: cst.CSTNode) -> bool:
    bases = [cst.Module([]).code_for_node(base.value) for base in kind.bases] if isinstance(kind, cst.ClassDef) else []
    return len(bases) == 1 and bases[0] in _BASES


def _stores(kind: cst.CSTNode) -> Iterator[tuple[cst.CSTNode, str]]:
    """Yield the lines of ``__init__`` that set an attribute to a plain value, and what they set."""
    assert isinstance(kind, cst.ClassDef)
    for method in kind.body.body:
        if not isinstance(method, cst.FunctionDef) or method.name.value != "__init__":
            continue
        plain = {item.name.value for item in method.params.params if _is_plain(item)}
        plain |= _GIVEN & {item.name.value for item in method.params.params if kind.name.value.endswith("Net")}
        found: list[tuple[cst.CSTNode, str, set[str]]] = []
        read: set[str] = set(_GIVEN)
        for line in method.body.body:
            names = {node.value for node in variables(line)}
            match line:
                case cst.SimpleStatementLine(body=[cst.Assign(targets=[cst.AssignTarget(target=target)], value=value)]):
                    pass
                case cst.SimpleStatementLine(body=[cst.AnnAssign(target=target, value=cst.BaseExpression() as value)]):
                    pass
                case _:
                    read |= names
                    continue
            match target:
                case cst.Attribute(value=cst.Name("self"), attr=cst.Name(name)) if _has_no_state(value, plain):
                    found.append((line, name, names - {"self"}))
                    continue
                case cst.Name(name):
                    (plain.add if _has_no_state(value, plain) else plain.discard)(name)
            read |= names
        # An argument that nothing else reads would be left without a use.
        yield from ((line, name) for line, name, names in found if names <= read)


def _is_plain(param: cst.Param) -> bool:
    match param.annotation:
        case cst.Annotation(annotation=cst.Name(kind)):
            return kind in _PLAIN
    return isinstance(param.default, cst.Integer | cst.Float | cst.SimpleString)


def _has_no_state(value: cst.BaseExpression, plain: set[str]) -> bool:
    """Whether it is a number or the like, and nothing happens where it is made."""
    match value:
        case cst.Integer() | cst.Float() | cst.SimpleString():
            return True
        case cst.Name(name):
            return name in plain or name in ("True", "False", "None")
        case cst.Subscript(value=cst.Name(name), slice=[cst.SubscriptElement(slice=cst.Index(value=index))]):
            return name in plain & _GIVEN and isinstance(index, cst.Integer | cst.SimpleString)
        case cst.BinaryOperation(left=left, right=right):
            return _has_no_state(left, plain) and _has_no_state(right, plain)
    return False


class _Dropped(cst.CSTTransformer):
    """Takes lines out."""

    def __init__(self, gone: set[int]) -> None:
        super().__init__()
        self._gone = gone

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.SimpleStatementLine | cst.RemovalSentinel:
        return cst.RemoveFromParent() if id(original_node) in self._gone else updated_node
