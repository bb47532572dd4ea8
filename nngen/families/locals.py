"""Finds the names that are local to functions and comprehensions: renaming them changes nothing outside.

A local is a name that a function or a comprehension binds by assignment, loop, ``with``, ``except``, ``:=`` or a
pattern. Parameters are not locals (a caller may name them), nor are names bound by ``import``, ``def`` or ``class``
(which show in what they bind), nor any name of a function that can look names up by their spelling.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import TypeAlias

_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_Comprehension: TypeAlias = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_LOOKS_UP = frozenset({"locals", "vars", "dir", "eval", "exec"})
_HARMLESS = frozenset({"vars", "dir"})
"""Those of them that look at an argument, if they get one, and not at the names around them."""


class _Scope:
    """Names of a function, comprehension or class.

    Attributes:
        own: Names that it binds.
        renamed: Locals among them, each with its number; -1 for a name that is bound in another way as well.
        outer: Names that ``nonlocal`` or ``global`` sends elsewhere.
    """

    def __init__(self, *, parent: _Scope | None, is_class: bool = False) -> None:
        self.parent, self.is_class = parent, is_class
        self.own: set[str] = set()
        self.renamed: dict[str, int] = {}
        self.outer: dict[str, bool] = {}
        self.first: int = parent.next if parent is not None else 0

    @property
    def next(self) -> int:
        """Return the first number that no local of this scope or one around it has."""
        return self.first + len(self.renamed)

    def bind(self, name: str, *, local: bool) -> None:
        """Record a binding; a name that is bound in another way as well is not a local."""
        if name in self.outer:
            return
        if local and name not in self.own:
            self.renamed[name] = self.next
        elif not local and name in self.renamed:
            # Numbers stay as they are: they only have to differ.
            self.renamed[name] = -1
        self.own.add(name)

    def find(self, name: str) -> int | None:
        """Return the number of the local that a name means here; None where it means anything else."""
        scope: _Scope | None = self
        inside = True
        while scope is not None:
            if name in scope.outer:
                if scope.outer[name]:
                    return None
            elif name in scope.own and (inside or not scope.is_class):
                number = scope.renamed.get(name, -1)
                return number if number >= 0 else None
            scope, inside = scope.parent, False
        return None


def local_names(tree: ast.AST) -> dict[int, dict[str, str]]:
    """Number the locals of every function in a tree, in the order in which they are bound.

    Returns:
        For each node that spells locals, by identity: each spelling and its stand-in. Two trees that differ in the
        names of locals alone get the same stand-ins in the same places.
    """
    found: dict[int, dict[str, str]] = {}
    _visit(tree, None, _around_look_ups(tree), found)
    return found


def _visit(node: ast.AST, scope: _Scope | None, fixed: set[int], found: dict[int, dict[str, str]]) -> None:
    if scope is not None:
        spelled = {name: number for name in _spelled(node) if (number := scope.find(name)) is not None}
        if spelled:
            found[id(node)] = {name: f"%{number}" for name, number in spelled.items()}
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda() | ast.ClassDef():
            body = [node.body] if isinstance(node, ast.Lambda) else node.body
            # A function that can look its names up keeps them.
            inner, inside = _scope_of(node, body, scope, id(node) not in fixed), {id(statement) for statement in body}
            for child in ast.iter_child_nodes(node):
                # Decorators, defaults, annotations and bases are read outside.
                _visit(child, inner if id(child) in inside else scope, fixed, found)
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            _visit_comprehension(node, scope, fixed, found)
        case _:
            for child in ast.iter_child_nodes(node):
                _visit(child, scope, fixed, found)


def _scope_of(node: _Function | ast.ClassDef, body: Sequence[ast.AST], around: _Scope | None, free: bool) -> _Scope:
    """Collect all bindings before any name is read: a local may be read above the line that binds it."""
    scope = _Scope(parent=around, is_class=isinstance(node, ast.ClassDef))
    if not isinstance(node, ast.ClassDef):
        for part in (part for statement in body for part in own_nodes(statement)):
            if isinstance(part, ast.Global | ast.Nonlocal):
                scope.outer.update(dict.fromkeys(part.names, isinstance(part, ast.Global)))
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg):
                scope.bind(argument.arg, local=False)
    for statement in body:
        for name, local in bound_names(statement):
            scope.bind(name, local=local and free and not scope.is_class)  # a class's names are attributes
    return scope


def _visit_comprehension(
    node: _Comprehension, scope: _Scope | None, fixed: set[int], found: dict[int, dict[str, str]]
) -> None:
    inner = _Scope(parent=scope)
    for generator in node.generators:
        for part in ast.walk(generator.target):
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                # At module level no function surrounds it, but its names are as much its own.
                inner.bind(part.id, local=id(node) not in fixed)
    # Python evaluates the first iterable outside of the comprehension.
    first = node.generators[0].iter
    _visit(first, scope, fixed, found)
    for child in ast.iter_child_nodes(node):
        for part in ast.iter_child_nodes(child) if isinstance(child, ast.comprehension) else (child,):
            if part is not first:
                _visit(part, inner, fixed, found)


def _around_look_ups(tree: ast.AST) -> set[int]:
    """Return the identities of the nodes inside which code can find names by their spelling."""
    nodes = list(ast.walk(tree))
    harmless = {
        id(part.func)
        for part in nodes
        if isinstance(part, ast.Call) and part.args and isinstance(part.func, ast.Name) and part.func.id in _HARMLESS
    }
    around = {id(child): node for node in nodes for child in ast.iter_child_nodes(node)}
    found: set[int] = set()
    for node in (node for node in nodes if isinstance(node, ast.Name) and node.id in _LOOKS_UP):
        outer: ast.AST | None = None if id(node) in harmless else node
        # What surrounds a marked node is marked already: every node is visited once, however deep they nest.
        while outer is not None and id(outer) not in found:
            found.add(id(outer))
            outer = around.get(id(outer))
    return found


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a statement in order, without what has a scope of its own; comprehensions only for their ``:=``."""
    yield node
    if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
        return
    if isinstance(node, _COMPREHENSIONS):
        yield from (part for part in ast.walk(node) if isinstance(part, ast.NamedExpr))
        return
    for child in ast.iter_child_nodes(node):
        yield from own_nodes(child)


def bound_names(statement: ast.AST) -> Iterator[tuple[str, bool]]:
    """Yield the names that a statement binds, each with whether that makes it a local."""
    for node in own_nodes(statement):
        match node:
            case ast.NamedExpr(target=ast.Name(id=name)):
                yield name, True
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                yield name, True
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name, True
            case ast.MatchMapping(rest=str(name)):
                yield name, True
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, False
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from ((alias.asname or alias.name.partition(".")[0], False) for alias in names)


def _spelled(node: ast.AST) -> Iterator[str]:
    """Yield the names that a node itself spells and that may be locals."""
    match node:
        case ast.Name(id=name):
            yield name
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name
        case ast.MatchMapping(rest=str(name)):
            yield name
        case ast.Nonlocal(names=names):
            yield from names
