"""Source of a candidate as the static rules read it: text, syntax tree, and the dotted name of each import."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from nngen.text import parse_python

_SEEDING = frozenset(
    """
    torch.manual_seed torch.random.manual_seed torch.seed torch.random.seed torch.set_rng_state
    torch.random.set_rng_state torch.cuda.manual_seed torch.cuda.manual_seed_all torch.default_generator.manual_seed
    random.seed random.setstate numpy.random.seed numpy.random.set_state
    """.split()  # noqa: SIM905
)
"""Functions that set the generators which all code of a process draws from."""


@dataclass(frozen=True)
class Source:
    """A candidate's source, parsed once, on first use."""

    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """Every node of the tree."""
        return tuple(ast.walk(self.tree))

    @cached_property
    def imported(self) -> dict[str, str]:
        """Dotted name that each imported name stands for."""
        names: dict[str, str] = {}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.partition(".")[0]
                    names[alias.asname or top] = alias.name if alias.asname else top
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        return names

    @cached_property
    def defined(self) -> frozenset[str]:
        """Names of the functions and classes that the source defines, at any depth."""
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        return frozenset(node.name for node in self.nodes if isinstance(node, kinds))

    def dotted(self, node: ast.AST) -> str | None:
        """Return ``a.b.c`` with imported names resolved; None if the node is not a plain dotted name."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return None
        return ".".join([self.imported.get(node.id, node.id), *reversed(parts)])

    def top_level(self) -> Iterator[ast.stmt]:
        """Yield the statements that run on import, those under ``if``, ``try`` and ``with`` included."""
        waiting: list[ast.AST] = list(reversed(self.tree.body))
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.stmt):
                yield node
            if isinstance(node, ast.If | ast.Try | ast.TryStar | ast.With | ast.ExceptHandler):
                waiting.extend(reversed(list(ast.iter_child_nodes(node))))


def own_seeds(source: str) -> str:
    """Name the first line where a source seeds the generators itself, as a warning; empty where none does."""
    try:
        parse_python(source)
    except SyntaxError:
        return ""
    parsed = Source(source)
    calls = (node for node in parsed.nodes if isinstance(node, ast.Call))
    lines = [node.lineno for node in calls if parsed.dotted(node.func) in _SEEDING]
    return f"line {min(lines)} seeds the generators, which nngen seeds again before it trains" if lines else ""
