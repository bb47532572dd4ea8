"""Strings that name a module-level name: annotations, ``torch.fx.wrap("f")``, ``globals()["f"]`` and their like."""

# ruff: noqa: N802 -- libcst calls its visitors' methods by the names of its node classes

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import libcst as cst

__all__ = ["NAMESPACES", "Role", "StringReader", "quote_like", "rewrite_annotation"]

_TYPE_FACTORIES = frozenset(
    {"collections.namedtuple", "typing.NamedTuple", "typing.TypedDict", "typing.NewType", "typing.TypeVar", "enum.Enum"}
)
"""Calls whose first argument repeats the name that the result is bound to."""

_BY_STRING = frozenset({"torch.fx.wrap", "torch.fx._symbolic_trace.wrap"})
"""Calls that look their first argument up among the module's names."""

NAMESPACES = frozenset({"globals", "locals", "vars", "dir", "__name__"})
"""Names through which a source can look its own names up."""

_ALWAYS_MODULE = frozenset({"globals"})
_MODULE_AT_TOP = frozenset({"locals", "vars", "dir"})


@dataclass(frozen=True, slots=True)
class Role:
    """What a string means.

    Attributes:
        annotation: Whether it is an expression in quotes; otherwise it is one name.
        reads: Module-level names that must exist because of it.
    """

    annotation: bool
    reads: frozenset[str] = frozenset()


class StringReader(cst.CSTVisitor):
    """Finds the strings of one statement that name module-level names.

    Args:
        known: The module-level names.
        defined: Those of them that are the family's own functions and classes.
        qualified: Gives the dotted names a node may mean.
        skip: Tells which nodes are left out of the mixture.
        refuse: Told of a node that looks names up at run time, and why that cannot be followed.
    """

    def __init__(
        self,
        *,
        known: Collection[str],
        defined: Collection[str],
        qualified: Callable[[cst.CSTNode], Collection[str]],
        skip: Callable[[cst.CSTNode], bool],
        refuse: Callable[[cst.CSTNode, str], None],
    ) -> None:
        super().__init__()
        self.known, self.defined, self.qualified, self.skip, self.refuse = known, defined, qualified, skip, refuse
        self.roles: list[tuple[cst.SimpleString, Role]] = []
        self._annotations = 0
        self._depth = 0
        self._handled: set[int] = set()
        self._class_names: set[str] = set()

    def on_visit(self, node: cst.CSTNode) -> bool:
        return not self.skip(node) and super().on_visit(node) is not False

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if not self.skip(original_node):
            super().on_leave(original_node)

    def visit_Annotation(self, node: cst.Annotation) -> None:
        self._annotations += 1

    def leave_Annotation(self, original_node: cst.Annotation) -> None:
        self._annotations -= 1

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self._depth += 1

    def leave_FunctionDef(self, original_node: cst.FunctionDef) -> None:
        self._depth -= 1

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        self._depth += 1

    def leave_ClassDef(self, original_node: cst.ClassDef) -> None:
        self._depth -= 1

    def visit_SimpleString(self, node: cst.SimpleString) -> None:
        if self._annotations and id(node) not in self._handled:
            self._annotation(node)

    def visit_Assign(self, node: cst.Assign) -> None:
        match node:
            case cst.Assign(
                targets=[cst.AssignTarget(target=cst.Name(value=name))],
                value=cst.Call(func=func, args=[cst.Arg(value=cst.SimpleString() as first), *_]),
            ) if first.evaluated_value == name and self._depth == 0 and self._is(func, _TYPE_FACTORIES):
                self._name(first, read=False)
            case cst.Assign(targets=[cst.AssignTarget(target=cst.Name(value=name))], value=value) if _is_class_name(
                value
            ):
                self._class_names.add(name)

    def visit_Subscript(self, node: cst.Subscript) -> None:
        match node:
            case cst.Subscript(
                value=cst.Call() as call,
                slice=[cst.SubscriptElement(slice=cst.Index(value=cst.SimpleString() as key))],
            ) if self._is_namespace(call):
                self._lookup(call, key)
            case cst.Subscript(slice=[cst.SubscriptElement(slice=cst.Index(value=cst.Name(value="__name__")))]):
                if id(node) not in self._handled:
                    self.refuse(node, "names looked up in sys.modules[__name__] only exist at run time")
            case cst.Subscript(slice=elements) if self._annotations and self._is(node.value, {"typing.Literal"}):
                for element in elements:
                    if isinstance(element.slice, cst.Index):
                        self._handled.add(id(element.slice.value))

    def visit_Comparison(self, node: cst.Comparison) -> None:
        for target in node.comparisons:
            match node.left, target:
                case cst.SimpleString() as key, cst.ComparisonTarget(
                    operator=cst.In() | cst.NotIn(), comparator=cst.Call() as call
                ) if self._is_namespace(call):
                    self._lookup(call, key)
        sides = [node.left, *(target.comparator for target in node.comparisons)]
        if any(
            _is_class_name(side) or (isinstance(side, cst.Name) and side.value in self._class_names) for side in sides
        ):
            for string in (string for side in sides for string in _strings(side)):
                if string.evaluated_value in self.defined:
                    self._name(string, read=False)

    def visit_Call(self, node: cst.Call) -> None:
        match node:
            case cst.Call(
                func=cst.Attribute(value=cst.Call() as call, attr=cst.Name(value="get")),
                args=[cst.Arg(value=cst.SimpleString() as key), *_],
            ) if self._is_namespace(call):
                self._lookup(call, key)
            case cst.Call(
                func=cst.Name(value="getattr" | "hasattr"),
                args=[
                    cst.Arg(
                        value=cst.Subscript(
                            slice=[cst.SubscriptElement(slice=cst.Index(value=cst.Name(value="__name__")))]
                        ) as module
                    ),
                    cst.Arg(value=cst.SimpleString() as key),
                    *_,
                ],
            ):
                self._lookup(module, key)
            case cst.Call(args=[cst.Arg(value=cst.SimpleString() as first), *_]) if self._is(node.func, _BY_STRING):
                if first.evaluated_value in self.known:
                    self._name(first, read=True)
                else:
                    self.refuse(node, f"the name {first.evaluated_value!r} is bound nowhere in the source")
            case cst.Call(args=[cst.Arg(value=cst.SimpleString() as first), *_]) if self._is(
                node.func, {"typing.cast"}
            ):
                self._annotation(first)
        if self._is_namespace(node) and id(node) not in self._handled:
            self.refuse(node, "names looked up in the module's namespace only exist at run time")

    def _lookup(self, namespace: cst.CSTNode, key: cst.SimpleString) -> None:
        self._handled.add(id(namespace))
        if key.evaluated_value in self.known:
            self._name(key, read=True)
        else:
            self.refuse(key, f"the name {key.evaluated_value!r} only exists at run time")

    def _name(self, node: cst.SimpleString, *, read: bool) -> None:
        self._handled.add(id(node))
        self.roles.append((node, Role(False, frozenset({str(node.evaluated_value)}) if read else frozenset())))

    def _annotation(self, node: cst.SimpleString) -> None:
        self._handled.add(id(node))
        reads = frozenset(name.value for name in _names_in(node) if name.value in self.known)
        if reads:
            self.roles.append((node, Role(True, reads)))

    def _is(self, node: cst.CSTNode, names: Collection[str]) -> bool:
        return any(name in names for name in self.qualified(node))

    def _is_namespace(self, call: cst.Call) -> bool:
        names = _ALWAYS_MODULE if self._depth else _ALWAYS_MODULE | _MODULE_AT_TOP
        return isinstance(call.func, cst.Name) and call.func.value in names and not call.args


def rewrite_annotation(node: cst.SimpleString, names: dict[str, str]) -> cst.SimpleString:
    """Rename the module-level names inside an annotation in quotes."""
    expression = _parse(node)
    if expression is None:
        return node
    found = {id(name): names[name.value] for name in _names_in_expression(expression) if name.value in names}
    renamed = expression.visit(_RenameById(found))
    assert isinstance(renamed, cst.CSTNode)
    return quote_like(node, cst.Module(body=[]).code_for_node(renamed))


def quote_like(node: cst.SimpleString, value: str) -> cst.SimpleString:
    """Write ``value`` in the quotes of ``node``."""
    return node.with_changes(value=f"{node.prefix}{node.quote}{value}{node.quote}")


class _RenameById(cst.CSTTransformer):
    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()
        self.names = names

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.Name:
        new = self.names.get(id(original_node))
        return updated_node if new is None else updated_node.with_changes(value=new)


class _FreeNames(cst.CSTVisitor):
    """Collects names that are read; attributes and keywords are not."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[cst.Name] = []

    def visit_Name(self, node: cst.Name) -> None:
        self.names.append(node)

    def visit_Attribute(self, node: cst.Attribute) -> bool:
        node.value.visit(self)
        return False

    def visit_Arg(self, node: cst.Arg) -> bool:
        node.value.visit(self)
        return False


def _names_in(node: cst.SimpleString) -> list[cst.Name]:
    expression = _parse(node)
    return [] if expression is None else _names_in_expression(expression)


def _names_in_expression(expression: cst.BaseExpression) -> list[cst.Name]:
    visitor = _FreeNames()
    expression.visit(visitor)
    return visitor.names


def _parse(node: cst.SimpleString) -> cst.BaseExpression | None:
    value = node.evaluated_value
    try:
        return cst.parse_expression(value) if isinstance(value, str) else None
    except cst.ParserSyntaxError:
        return None


def _strings(node: cst.BaseExpression) -> Iterator[cst.SimpleString]:
    match node:
        case cst.SimpleString():
            yield node
        case cst.Tuple(elements=elements) | cst.List(elements=elements) | cst.Set(elements=elements):
            for element in elements:
                yield from _strings(element.value)


def _is_class_name(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.Attribute) and node.attr.value in ("__name__", "__qualname__")
