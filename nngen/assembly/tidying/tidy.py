"""Makes an expert's code read as new code does, without changing what it computes.

What newer Python says in fewer words (``idioms``), attributes that nothing reads (``unread``), settings that never
change (``settings``), many arguments (``keywords``), the initialising of weights (``initialising``), attributes' names
(``attributes``), and here the rest: no parameter or local that hides a builtin, locals in snake_case, what is never
used marked by an underscore, and no line over 120 characters. Names of parameters that a caller may use by keyword stay
as the family has them.
"""

# ruff: noqa: N802 -- libcst calls its visitors' methods by the names of its node classes

from __future__ import annotations

import builtins
import re
from collections.abc import Iterator, Sequence

import libcst as cst
from libcst.metadata import Assignment, ClassScope, FunctionScope, MetadataWrapper, ScopeProvider

from nngen.assembly.tidying.attributes import tidy_attributes
from nngen.assembly.tidying.idioms import Modern
from nngen.assembly.tidying.initialising import move_initialising
from nngen.assembly.tidying.keywords import name_arguments
from nngen.assembly.tidying.settings import settle
from nngen.assembly.tidying.unread import drop_unread
from nngen.assembly.tidying.wrapping import wrap_lines
from nngen.assembly.walk import walk

__all__ = ["tidy"]

_SNAKE = re.compile(r"_*[a-z][a-z0-9_]*|_+")
_BUILTINS = frozenset(dir(builtins))


def tidy(body: str) -> str:
    """Tidy an expert's code.

    Args:
        body: Statements of a module, ending with a line break.

    Returns:
        The same program under the same module-level names.
    """
    module = cst.parse_module(body).visit(Modern())
    module = settle(drop_unread(module))
    # Once more behind the keywords: a setting that is passed by its own name need not have one.
    module = move_initialising(settle(name_arguments(module)))
    module = tidy_attributes(module)
    wrapper = MetadataWrapper(module, unsafe_skip_copy=True)
    names = _Names(wrapper).renamed()
    text = wrapper.module.visit(_Renamed(names)).code
    return wrap_lines(text.strip("\n") + "\n")


class _Names:
    """Finds parameters and locals that want another name."""

    def __init__(self, wrapper: MetadataWrapper) -> None:
        self.module = wrapper.module
        self.scopes = wrapper.resolve(ScopeProvider)
        self.taken: set[str] = set(_BUILTINS)
        self.given: dict[str, str] = {}
        """New names and what they were: where two functions use a name alike, both get the same new one."""
        self.fixed: set[str] = set()
        """Names that are spelled where a rename would not reach: keywords of calls, whole strings, patterns."""
        for node in walk(self.module, skip=_is_docstring):
            match node:
                case cst.Name(value=name):
                    self.taken.add(name)
                case cst.Arg(keyword=cst.Name(value=name)):
                    self.fixed.add(name)
                case cst.SimpleString():
                    self.fixed.add(str(node.evaluated_value))
                case cst.NameItem(name=cst.Name(value=name)) | cst.NamedExpr(target=cst.Name(value=name)):
                    self.fixed.add(name)
                case cst.MatchAs(name=cst.Name(value=name)) | cst.MatchStar(name=cst.Name(value=name)):
                    self.fixed.add(name)
        self.blind = not {"locals", "vars", "dir", "eval", "exec"}.isdisjoint(self._called())

    def _called(self) -> set[str]:
        calls = (node.func for node in walk(self.module) if isinstance(node, cst.Call))
        return {function.value for function in calls if isinstance(function, cst.Name)}

    def renamed(self) -> dict[int, str]:
        """Return the new name of each ``Name`` node that gets one, by identity."""
        found: dict[int, str] = {}
        if self.blind:
            return found
        # In the order of the source, so that the same family always comes out alike.
        seen: set[int] = set()
        for node in walk_in_order(self.module):
            scope = self.scopes.get(node)
            if isinstance(scope, FunctionScope) and id(scope) not in seen:
                seen.add(id(scope))
                self._rename(scope, found)
        return found

    def _rename(self, scope: FunctionScope, found: dict[int, str]) -> None:
        order: dict[str, list[Assignment]] = {}
        for assignment in scope.assignments:
            if isinstance(assignment, Assignment):
                order.setdefault(assignment.name, []).append(assignment)
        order.pop(_receiver(scope), None)
        for name in sorted(order):
            nodes = _spelled(order[name])
            new = self._better(name, order[name], _is_called_here(scope)) if nodes is not None else None
            if new is not None and nodes is not None:
                self.given[new] = name
                found.update((id(node), new) for node in nodes)

    def _better(self, name: str, assignments: Sequence[Assignment], called_here: bool) -> str | None:
        parameter = any(isinstance(item.node, cst.Param) for item in assignments)
        if name in self.fixed or name.startswith("__") or (parameter and not called_here):
            return None
        new = name if _SNAKE.fullmatch(name) else _snake(name)
        if new in _BUILTINS:
            new = f"{new}s"
        used = any(item.references for item in assignments)
        if not used and not new.startswith("_"):
            new = f"_{new}"
        if new == name:
            return None
        base, number = new, 2
        while new in self.taken or self.given.get(new, name) != name:
            new, number = f"{base}_{number}", number + 1
        return new


def _is_docstring(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.Expr) and isinstance(node.value, cst.SimpleString | cst.ConcatenatedString)


def _is_called_here(scope: FunctionScope) -> bool:
    """Whether only the family itself can call it by keyword: torchvision builds layers so, and runs none so."""
    node = getattr(scope, "node", None)
    if not isinstance(node, cst.FunctionDef):
        return False
    net = isinstance(scope.parent, ClassScope) and str(scope.parent.name).endswith("Net")
    return node.name.value != "__init__" or net


def _receiver(scope: FunctionScope) -> str:
    """What a method calls its object or class: a name that readers know."""
    node = getattr(scope, "node", None)
    if not isinstance(scope.parent, ClassScope) or not isinstance(node, cst.FunctionDef):
        return ""
    params = [*node.params.posonly_params, *node.params.params]
    return params[0].name.value if params else ""


def _spelled(assignments: Sequence[Assignment]) -> list[cst.Name] | None:
    """Every node that spells a name of a function; None where one is not a plain name."""
    nodes: list[cst.Name] = []
    for assignment in assignments:
        node = assignment.node.name if isinstance(assignment.node, cst.Param) else assignment.node
        if not isinstance(node, cst.Name):
            return None
        nodes.append(node)
        for access in assignment.references:
            read: cst.CSTNode = access.node
            while isinstance(read, cst.Attribute):
                read = read.value
            if not isinstance(read, cst.Name):
                return None
            nodes.append(read)
    return nodes


class _Renamed(cst.CSTTransformer):
    """Gives nodes their new names."""

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()
        self.names = names

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.Name:
        new = self.names.get(id(original_node))
        return updated_node if new is None else updated_node.with_changes(value=new)


def walk_in_order(root: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """Yield a node and everything below it, in the order of the source."""
    yield root
    for child in root.children:
        yield from walk_in_order(child)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
