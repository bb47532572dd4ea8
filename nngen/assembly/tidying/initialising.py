"""Initialising of weights in a method of its own: ``for m in self.modules(): ...`` leaves ``__init__``.

Only where the loop reads nothing of ``__init__`` but ``self``; it is called where it stood.
"""

from __future__ import annotations

import re

import libcst as cst

from nngen.assembly.tidying.variables import bound, is_blind, variables
from nngen.assembly.walk import walk

__all__ = ["move_initialising"]

_NAME = "_init_weights"


def move_initialising(module: cst.Module) -> cst.Module:
    """Move the loops that initialise weights; the program is the same."""
    if re.search(rf"\b{_NAME}\b", module.code) or is_blind(module):
        return module
    lines = [_moved(item) if isinstance(item, cst.ClassDef) and _is_plain(item) else item for item in module.body]
    return module.with_changes(body=lines)


def _is_plain(kind: cst.ClassDef) -> bool:
    """Whether no base may have a method of that name already."""
    bases = [cst.Module([]).code_for_node(base.value) for base in kind.bases]
    return bases in (["nn.Module"], ["torch.nn.Module"])


def _moved(kind: cst.ClassDef) -> cst.ClassDef:
    lines = list(kind.body.body)
    for place, method in enumerate(lines):
        if isinstance(method, cst.FunctionDef) and method.name.value == "__init__":
            run = _run(method)
            if run is None:
                return kind
            first, last = run
            body = list(method.body.body)
            loops = body[first:last]
            call = cst.parse_statement(f"self.{_NAME}()\n")
            assert isinstance(call, cst.SimpleStatementLine)
            call = call.with_changes(leading_lines=getattr(loops[0], "leading_lines", ()))
            loops[0] = loops[0].with_changes(leading_lines=())
            made = _with_body(method, [*body[:first], call, *body[last:]])
            new = cst.FunctionDef(
                name=cst.Name(_NAME),
                params=cst.Parameters([cst.Param(cst.Name("self"))]),
                body=cst.IndentedBlock(loops),  # type: ignore[arg-type]
                returns=cst.Annotation(cst.Name("None")),
                leading_lines=[cst.EmptyLine(indent=False)],
            )
            return kind.with_changes(body=kind.body.with_changes(body=[*lines[:place], made, new, *lines[place + 1 :]]))
    return kind


def _with_body(method: cst.FunctionDef, body: list[cst.CSTNode]) -> cst.FunctionDef:
    return method.with_changes(body=method.body.with_changes(body=body))


def _run(method: cst.FunctionDef) -> tuple[int, int] | None:
    """The first loop that can go, and the end of those that follow it."""
    body = method.body.body
    own = {node.value for node in (*bound(method.params), *bound(method.body))} - {"self"}
    first = next((place for place, line in enumerate(body) if _goes(line, own)), None)
    if first is None or [item.name.value for item in method.params.params[:1]] != ["self"]:
        return None
    last = first
    while last < len(body) and _goes(body[last], own):
        last += 1
    inside = {node.value for line in body[first:last] for node in bound(line)}
    outside = {node.value for line in (*body[:first], *body[last:]) for node in variables(line)}
    return (first, last) if inside.isdisjoint(outside) else None


def _goes(line: cst.CSTNode, own: set[str]) -> bool:
    """Whether it is a loop over all modules that needs nothing else of the function."""
    match line:
        case cst.For(
            target=cst.Name(),
            iter=cst.Call(func=cst.Attribute(value=cst.Name("self"), attr=cst.Name("modules")), args=[]),
        ):
            needed = {node.value for node in variables(line)} & own
            plain = not any(_keeps(node) for node in walk(line))
            return plain and needed <= {node.value for node in bound(line)}
    return False


def _keeps(node: cst.CSTNode) -> bool:
    """Whether it belongs where it is: it leaves the function, sets an attribute of ``self``, or asks for the class."""
    match node:
        case (
            cst.Return()
            | cst.Yield()
            | cst.Await()
            | cst.FunctionDef()
            | cst.Lambda()
            | cst.Call(func=cst.Name("super"))
        ):
            return True
        case cst.AssignTarget(target=cst.Attribute(value=cst.Name("self"))):
            return True
    return False
