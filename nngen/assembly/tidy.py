"""Makes an expert's code read as new code does, without changing what it computes.

``super()`` without arguments, no ``else`` after ``return``, no overloads that only TorchScript reads, no parameter that
hides a builtin, locals in snake_case, what is never used marked by an underscore, and no line over 120 characters.
What would show from outside (attributes, which name the weights in a state; signatures that a caller may use by
keyword) stays as the family has it.
"""

# ruff: noqa: N802 -- libcst calls its visitors' methods by the names of its node classes

from __future__ import annotations

import builtins
import re
from collections.abc import Iterator, Sequence

import libcst as cst
from libcst.metadata import Assignment, ClassScope, FunctionScope, MetadataWrapper, ScopeProvider

from nngen.assembly.walk import walk
from nngen.assembly.wrapping import wrap_lines

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
    module = cst.parse_module(body).visit(_Modern())
    wrapper = MetadataWrapper(module, unsafe_skip_copy=True)
    names = _Names(wrapper).renamed()
    text = wrapper.module.visit(_Renamed(names)).code
    return wrap_lines(text.strip("\n") + "\n")


class _Modern(cst.CSTTransformer):
    """Rewrites what newer Python says in fewer words."""

    def __init__(self) -> None:
        super().__init__()
        self._places: list[str | None] = []
        """Names of the classes around a node; None for a function."""
        self._first: list[str] = []
        """First parameter of each function around it."""

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        self._places.append(node.name.value)

    def leave_ClassDef(self, original_node: cst.ClassDef, updated_node: cst.ClassDef) -> cst.ClassDef:
        self._places.pop()
        return updated_node

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self._places.append(None)
        params = [*node.params.posonly_params, *node.params.params]
        self._first.append(params[0].name.value if params else "")

    def leave_FunctionDef(
        self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef
    ) -> cst.FunctionDef | cst.RemovalSentinel:
        self._places.pop()
        self._first.pop()
        overload = any(_dotted(item.decorator) == "torch.jit._overload_method" for item in original_node.decorators)
        return cst.RemoveFromParent() if overload else updated_node

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.Call:
        """``super(Block, self)``, right in a method of ``Block``, is ``super()``."""
        method = len(self._places) > 1 and self._places[-1] is None
        match updated_node:
            case cst.Call(func=cst.Name("super"), args=[cst.Arg(value=cst.Name(kind)), cst.Arg(value=cst.Name(first))]):
                if method and kind == self._places[-2] and first == self._first[-1]:
                    return updated_node.with_changes(args=[])
        return updated_node

    def leave_IndentedBlock(
        self, original_node: cst.IndentedBlock, updated_node: cst.IndentedBlock
    ) -> cst.IndentedBlock:
        return updated_node.with_changes(body=list(_flat(updated_node.body)))


def _flat(body: Sequence[cst.BaseStatement]) -> Iterator[cst.BaseStatement]:
    """Take what follows ``else`` out of it where the branches before it all leave the function."""
    for statement in body:
        rest: cst.BaseStatement | None = statement
        while isinstance(rest, cst.If) and rest.orelse is not None and _leaves(rest.body):
            orelse = rest.orelse
            yield rest.with_changes(orelse=None)
            if isinstance(orelse, cst.Else):
                yield from _flat(_with_lines(orelse))
                rest = None
            else:
                rest = orelse
        if rest is not None:
            yield rest


def _with_lines(orelse: cst.Else) -> Sequence[cst.BaseStatement]:
    """An ``else`` block's statements; comments above it stay above its first."""
    if not isinstance(orelse.body, cst.IndentedBlock):
        return (
            [cst.SimpleStatementLine(body=orelse.body.body)]
            if isinstance(orelse.body, cst.SimpleStatementSuite)
            else []
        )
    first, *others = orelse.body.body
    lines = [*orelse.leading_lines, *getattr(first, "leading_lines", ())]
    return [first.with_changes(leading_lines=lines), *others]


def _leaves(body: cst.BaseSuite) -> bool:
    if not isinstance(body, cst.IndentedBlock) or not body.body:
        return False
    last = body.body[-1]
    return isinstance(last, cst.SimpleStatementLine) and isinstance(last.body[-1], cst.Return | cst.Raise)


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
        if parameter and new in _BUILTINS:
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


def _dotted(node: cst.CSTNode) -> str:
    match node:
        case cst.Name(value=name):
            return name
        case cst.Attribute(value=value, attr=cst.Name(value=name)):
            return f"{_dotted(value)}.{name}"
    return ""
