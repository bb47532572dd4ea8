"""Writes the kept part of a family under its new names."""

# ruff: noqa: N802 -- libcst calls its visitors' methods by the names of its node classes

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import libcst as cst

from nngen.assembly.source import Source, Unit
from nngen.assembly.strings import quote_like, rewrite_annotation

__all__ = ["Renamer", "write_body"]


class Renamer(cst.CSTTransformer):
    """Renames module-level names where they are meant, and leaves out what only trains.

    Args:
        source: The family's source; its nodes are what this visits.
        names: Old module-level name to new.
    """

    def __init__(self, source: Source, names: Mapping[str, str]) -> None:
        super().__init__()
        self.source, self.names = source, dict(names)

    def on_visit(self, node: cst.CSTNode) -> bool:
        return id(node) not in self.source.dead and super().on_visit(node) is not False

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.Name:
        name = self.source.names.get(id(original_node))
        new = self.names.get(name) if name is not None else None
        return updated_node if new is None else updated_node.with_changes(value=new)

    def leave_SimpleString(self, original_node: cst.SimpleString, updated_node: cst.SimpleString) -> cst.SimpleString:
        role = self.source.strings.get(id(original_node))
        if role is None:
            return updated_node
        if role.annotation:
            return rewrite_annotation(updated_node, self.names)
        value = str(original_node.evaluated_value)
        return quote_like(updated_node, self.names.get(value, value))

    def leave_ImportAlias(self, original_node: cst.ImportAlias, updated_node: cst.ImportAlias) -> cst.ImportAlias:
        """Bind an import that is not the module's alone (inside ``try``, say) to its new name."""
        if id(original_node) not in self.source.bound_here:
            return updated_node
        bound = original_node.evaluated_alias or original_node.evaluated_name
        new = self.names.get(bound)
        if new is None:
            return updated_node
        space = cst.SimpleWhitespace(" ")
        return updated_node.with_changes(asname=cst.AsName(cst.Name(new), space, space))

    def leave_FunctionDef(
        self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef
    ) -> cst.FunctionDef | cst.RemovalSentinel:
        return cst.RemoveFromParent() if id(original_node) in self.source.dead else updated_node


def write_body(source: Source, kept: Sequence[Unit], renamer: Renamer) -> str:
    """Write the kept statements, without plain imports, under their new names.

    Returns:
        Source text that starts with a statement (or its comment) and ends with a line break.
    """
    wanted = {id(unit.node) for unit in kept if not unit.imports}
    body: list[cst.SimpleStatementLine | cst.BaseCompoundStatement] = []
    for statement in source.module.body:
        if isinstance(statement, cst.SimpleStatementLine):
            small = [node for node in statement.body if id(node) in wanted]
            if small:
                body.append(_renamed_line(statement, small, renamer))
        elif id(statement) in wanted:
            body.append(_visited(statement, renamer))
    text = cst.Module(body=body, default_indent=source.module.default_indent).code
    return text.strip("\n") + "\n"


def _renamed_line(
    line: cst.SimpleStatementLine, nodes: Sequence[cst.BaseSmallStatement], renamer: Renamer
) -> cst.SimpleStatementLine:
    small = [_visited(node, renamer) for node in nodes]
    small[-1] = small[-1].with_changes(semicolon=cst.MaybeSentinel.DEFAULT)
    return line.with_changes(body=small)


_Node = TypeVar("_Node", bound=cst.BaseSmallStatement | cst.BaseCompoundStatement)


def _visited(node: _Node, renamer: Renamer) -> _Node:
    new = node.visit(renamer)
    assert isinstance(new, type(node))  # a statement of a module is never removed by renaming
    return new
