"""Refuses what a source can do at a module's top level and not inside a function.

A module's names are found by ``globals()``, ``sys.modules``, ``eval`` and class bodies that bind the same name;
a function's are not. Each check looks only at code that ``Net`` may reach.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from nngen.families.locals import bound_names, own_nodes

_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)

_REFUSED = {
    "globals": "globals() gives the names of the mixture's file, not the family's",
    "__globals__": "__globals__ gives the names of the mixture's file, not the family's",
    "f_globals": "f_globals gives the names of the mixture's file, not the family's",
    "sys.modules": "names looked up in sys.modules are not found inside a function",
    "_getframe": "a look at the call stack finds other names inside a function",
    "currentframe": "a look at the call stack finds other names inside a function",
    "__closure__": "__closure__ is empty in a module and not in a function",
    "co_freevars": "co_freevars is empty in a module and not in a function",
    "co_names": "co_names holds other names inside a function",
    "__qualname__": "__qualname__ is another inside a function: use __name__",
}
"""Names and attributes whose value depends on the place of the code."""

_RESOLVERS = frozenset({"get_type_hints", "singledispatch", "singledispatchmethod", "eval_str"})
"""What evaluates annotations in quotes among the names of a module."""

_FOR_DATACLASSES = re.compile(r"\s*(\w+\.)*(ClassVar|InitVar|KW_ONLY)\b")


class Unfit(Exception):  # noqa: N818 - the caller turns it into an error that names the family
    """Code that would do something else inside a function than in a module, with its line and the reason."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


def dotted(node: ast.expr) -> str:
    """Return ``a.b.c`` for a plain dotted name, an empty text for anything else."""
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return node.id if isinstance(node, ast.Name) else ""


def annotations_of(function: _Function) -> list[ast.expr]:
    """List the annotations of a function's arguments and of its result."""
    arguments = (part.annotation for part in ast.walk(function.args) if isinstance(part, ast.arg))
    return [item for item in (*arguments, function.returns) if item is not None]


def top_level_names(statements: Iterable[ast.stmt]) -> set[str]:
    """Return the names that some statements bind where they stand; what functions inside them bind is left out."""
    return {name for statement in statements for name, _ in bound_names(statement)}


def check_scopes(tree: ast.Module, kept: Sequence[ast.AST], postponed: bool) -> None:
    """Refuse code that would find other names inside a function than in a module of its own.

    Raises:
        Unfit: For the first such code that is found.
    """
    names = top_level_names(tree.body)
    names |= {name for node in kept if isinstance(node, ast.Global) for name in node.names}
    for node in kept:
        _check_look_ups(node)
        # Only names that both bind can be mixed up: others are found in one place or in none.
        if isinstance(node, ast.ClassDef):
            _check_class_body(node.body, names & top_level_names(node.body), set(), postponed)
    _check_functions(tree.body, (), {id(node) for node in kept})
    _check_quoted_annotations(kept, postponed)


def _check_look_ups(node: ast.AST) -> None:
    match node:
        case ast.Attribute(attr=name) if name in _REFUSED or dotted(node) in _REFUSED:
            raise Unfit(node.lineno, _REFUSED.get(name) or _REFUSED[dotted(node)])
        case ast.Name(id=name, ctx=ast.Load()) if name in _REFUSED:
            raise Unfit(node.lineno, _REFUSED[name])
        case ast.ImportFrom(module="sys", names=aliases) if any(alias.name == "modules" for alias in aliases):
            raise Unfit(node.lineno, _REFUSED["sys.modules"])
        # With a dictionary of names of its own, it looks nowhere else.
        case ast.Call(func=ast.Name(id="eval" | "exec" as name), args=[_]):
            raise Unfit(node.lineno, f"{name}() looks names up that are not found inside a function")


def _check_class_body(body: Sequence[ast.stmt], shared: set[str], bound: set[str], postponed: bool) -> None:
    """Refuse a class body that reads a name of the module before it binds the same name itself.

    Python looks such a name up among the class's and the module's names, never among those of a function around it.
    ``shared`` are the names that both bind, ``bound`` those of them that the class has certainly bound by now.
    """
    for statement in body:
        for part in _read_by_the_class(statement, postponed):
            if part.id in shared - bound:
                reason = f"the class reads the module's {part.id!r} and binds the same name: rename one of them"
                raise Unfit(part.lineno, reason)
        # What a branch binds may not be bound after it, so that each block starts from the certain names alone.
        inner = [getattr(statement, name, []) for name in ("body", "orelse", "finalbody")]
        if isinstance(statement, ast.If | ast.For | ast.While | ast.With | ast.Try | ast.TryStar):
            handlers = [handler.body for handler in getattr(statement, "handlers", [])]
            for block in (*inner, *handlers):
                _check_class_body(block, shared, set(bound), postponed)
        elif not isinstance(statement, ast.AnnAssign) or statement.value is not None:
            bound |= top_level_names([statement])
        if isinstance(statement, ast.Delete):
            bound -= {part.id for part in ast.walk(statement) if isinstance(part, ast.Name)}


def _read_by_the_class(statement: ast.stmt, postponed: bool) -> list[ast.Name]:
    """List the names that a statement of a class body reads at once, without those of blocks inside it."""
    found: list[ast.Name] = []
    waiting: list[ast.AST] = [statement]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.stmt) and node is not statement:
            continue  # of a block: looked at with the block
        match node:
            case ast.Name(ctx=ast.Load()):
                found.append(node)
            case ast.AugAssign(target=ast.Name() as target):
                found.append(target)  # it is read before it is written
                waiting.append(node.value)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                waiting += [
                    *getattr(node, "decorator_list", []),
                    *node.args.defaults,
                    *filter(None, node.args.kw_defaults),
                ]
                if not postponed and not isinstance(node, ast.Lambda):
                    waiting += annotations_of(node)
            case ast.ClassDef():
                waiting += [*node.decorator_list, *node.bases, *(item.value for item in node.keywords)]
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                waiting.append(node.generators[0].iter)  # all else in it has a scope of its own
            case ast.AnnAssign():
                waiting += filter(None, [node.value, None if postponed else node.annotation])
            case _:
                waiting += ast.iter_child_nodes(node)
    return found


def _check_functions(body: Iterable[ast.AST], around: tuple[set[str], ...], kept: set[int]) -> None:
    """Refuse ``global x`` where a function around it has an ``x`` of its own, and ``locals()`` of a function."""
    for node in body:
        inner = around
        if isinstance(node, _FUNCTIONS):
            # Names of its own hide the module's from functions inside it; ``global`` and ``nonlocal`` send some away.
            own = {part.arg for part in ast.walk(node.args) if isinstance(part, ast.arg)}
            statements = [] if isinstance(node, ast.Lambda) else node.body
            parts = (part for statement in statements for part in own_nodes(statement))
            sent = {name for part in parts if isinstance(part, ast.Global | ast.Nonlocal) for name in part.names}
            inner = (*around, (own | top_level_names(statements)) - sent)
        match node:
            case ast.Global(names=asked) if id(node) in kept:
                if hidden := sorted(name for name in asked if any(name in scope for scope in around)):
                    reason = f"global {hidden[0]} in a function inside another that has a {hidden[0]!r} of its own"
                    raise Unfit(node.lineno, reason)
            case ast.Call(func=ast.Name(id="locals" | "vars" | "dir" as name), args=[]) if id(node) in kept:
                raise Unfit(node.lineno, f"{name}() gives other names inside a function")
        _check_functions(ast.iter_child_nodes(node), inner, kept)


def _check_quoted_annotations(kept: Sequence[ast.AST], postponed: bool) -> None:
    """Refuse what looks annotations in quotes up by name: a module's names are found, a function's are not."""
    quoted = postponed
    for node in kept:
        annotations = [getattr(node, name, None) for name in ("annotation", "returns")]
        for annotation in (item for item in annotations if isinstance(item, ast.expr)):
            # Strings inside ``Literal[...]`` are values, not annotations in quotes.
            literal = {
                id(inner)
                for part in ast.walk(annotation)
                if isinstance(part, ast.Subscript) and dotted(part.value).endswith("Literal")
                for inner in ast.walk(part.slice)
            }
            for part in ast.walk(annotation):
                if isinstance(part, ast.Constant) and isinstance(part.value, str) and id(part) not in literal:
                    quoted = True
                    if isinstance(node, ast.AnnAssign) and _FOR_DATACLASSES.match(part.value):
                        reason = f"a dataclass does not find {part.value!r} in quotes: leave them out"
                        raise Unfit(part.lineno, reason)
    if quoted:
        for node in kept:
            name = next((getattr(node, field) for field in ("id", "attr", "arg") if hasattr(node, field)), None)
            if name in _RESOLVERS and isinstance(node, ast.expr | ast.keyword):
                reason = f"{name} looks annotations in quotes up among a module's names: leave the quotes out"
                raise Unfit(getattr(node, "lineno", 1), reason)
