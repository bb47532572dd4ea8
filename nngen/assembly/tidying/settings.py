"""Settings of a function that never change: what they decide is decided, and other names for a class are the class.

A family's network once took its settings as arguments; LEMUR's has them as locals of ``__init__``. ``norm = None``
followed by ``if norm is None: norm = nn.BatchNorm2d`` is ``nn.BatchNorm2d``, and what stands behind ``if pretty:``
stands alone where ``pretty = True``. Only locals; what a caller may choose stays a choice.
"""

# ruff: noqa: N802 -- libcst calls its visitors' methods by the names of its node classes

from __future__ import annotations

import ast
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import libcst as cst

from nngen.assembly.tidying.variables import bound, is_blind, variables
from nngen.assembly.walk import walk

__all__ = ["settle"]

_UNKNOWN: Any = object()
_LIBRARIES = frozenset({"F", "math", "nn", "np", "torch"})
_STEPS = 200
"""More than any function has settings."""
_VALUES = (
    cst.Name,
    cst.Attribute,
    cst.Subscript,
    cst.Integer,
    cst.Float,
    cst.SimpleString,
    cst.UnaryOperation,
    cst.List,
)
"""What a setting may be; most lines are calls."""
_COMPARE: Mapping[type[cst.BaseCompOp], Callable[[Any, Any], bool]] = {
    cst.Equal: operator.eq,
    cst.NotEqual: operator.ne,
    cst.LessThan: operator.lt,
    cst.LessThanEqual: operator.le,
    cst.GreaterThan: operator.gt,
    cst.GreaterThanEqual: operator.ge,
    cst.Is: operator.is_,
    cst.IsNot: operator.is_not,
}


def settle(module: cst.Module) -> cst.Module:
    """Decide what settings decide, in every function; the program is the same."""
    return module if is_blind(module) else module.visit(_Settled())


class _Settled(cst.CSTTransformer):
    """Settles the module's functions and its classes' methods."""

    def visit_FunctionDef(self, node: cst.FunctionDef) -> bool:
        return False  # what is inside of it may read its variables

    def leave_FunctionDef(self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef) -> cst.FunctionDef:
        generates = any(isinstance(node, cst.Yield) for node in walk(updated_node.body))
        if not isinstance(updated_node.body, cst.IndentedBlock) or generates:
            return updated_node
        for _ in range(_STEPS):
            if not any(isinstance(_setting(line)[1], _VALUES) for line in updated_node.body.body):
                break
            scope = _Locals(updated_node)
            body = _decided(scope, updated_node.body) or _inlined(scope)
            if body is None:
                break
            updated_node = updated_node.with_changes(body=updated_node.body.with_changes(body=body))
        return updated_node


class _Locals:
    """Where a function's variables are set and read."""

    def __init__(self, function: cst.FunctionDef) -> None:
        self.body: Sequence[cst.BaseStatement] = function.body.body  # type: ignore[assignment]
        self.params = {node.value for node in bound(function.params)}
        self.lines = [{node.value for node in variables(line)} for line in self.body]
        self.sets = Counter(node.value for node in bound(function.body))
        self.all = Counter(node.value for node in variables(function.body))
        self.named: Counter[str] = Counter()
        """How often each is passed as the keyword argument that it is called after."""
        self.items: Counter[str] = Counter()
        """How often an item of each is read."""
        self.inner: set[str] = set()
        """What functions inside of it read, whenever they are called."""
        self.quoted: set[str] = set()
        """What f-strings read: quotes and brackets do not go there."""
        for node in walk(function.body):
            match node:
                case cst.Arg(keyword=cst.Name(keyword), value=cst.Name(name)) if keyword == name:
                    self.named[name] += 1
                case cst.Subscript(value=cst.Name(name)):
                    self.items[name] += 1
                case (
                    cst.AssignTarget(target=cst.Subscript(value=cst.Name(name)))
                    | cst.AugAssign(target=cst.Subscript(value=cst.Name(name)))
                    | cst.Del(target=cst.Subscript(value=cst.Name(name)))
                ):
                    self.items[name] -= 1
                case cst.FunctionDef() | cst.Lambda() | cst.ClassDef():
                    self.inner |= {item.value for item in variables(node)}
                case cst.FormattedString():
                    self.quoted |= {item.value for item in variables(node)}

    def settings(self) -> Iterator[tuple[int, str, cst.BaseExpression]]:
        """Yield the place, name and value of what is set once on its own line, before it is read."""
        seen: set[str] = set(self.params)
        for place, statement in enumerate(self.body):
            name, value = _setting(statement)
            if value is not None and name not in seen:
                yield place, name, value
            seen |= self.lines[place]

    def next(self, name: str, place: int) -> int | None:
        """The next statement of the function that has a name in it."""
        return next((number for number in range(place + 1, len(self.body)) if name in self.lines[number]), None)


def _decided(scope: _Locals, block: cst.IndentedBlock) -> list[cst.BaseStatement] | None:
    """Decide one thing; None where nothing is left to decide."""
    body = list(scope.body)
    known: dict[str, Any] = {}
    for place, name, expression in scope.settings():
        value, following = _literal(expression), scope.next(name, place)
        if scope.all[name] == 1 and (
            value is not _UNKNOWN or _is_alias(expression, scope) or _is_item(expression, scope)
        ):
            return body[:place] + body[place + 1 :]  # nothing reads it
        if value is _UNKNOWN or following is None or (name in scope.inner and scope.sets[name] > 1):
            continue
        # The first to read it, whatever becomes of it later.
        reader = body[following]
        chosen = _resolved(reader, {name: value})
        if chosen is not None:
            return _until_left([*body[:following], *chosen, *body[following + 1 :]])
        if _replaces(reader, name) and not isinstance(value, list):
            return body[:place] + body[place + 1 :]
        if scope.sets[name] == 1 and not isinstance(value, list):
            known[name] = value
    if known:
        # What a setting decides further down, in loops too.
        chosen_body = block.visit(_Chosen(known))
        if isinstance(chosen_body, cst.IndentedBlock) and not chosen_body.deep_equals(block):
            return list(chosen_body.body)
    return None


class _Chosen(cst.CSTTransformer):
    """Puts the branch that is taken in the place of the choice."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        super().__init__()
        self._known = known

    def leave_IndentedBlock(
        self, original_node: cst.IndentedBlock, updated_node: cst.IndentedBlock
    ) -> cst.IndentedBlock:
        body: list[cst.BaseStatement] = []
        for statement in updated_node.body:
            chosen = _resolved(statement, self._known)
            body += [statement] if chosen is None else chosen
        body = _until_left(body) or [cst.SimpleStatementLine([cst.Pass()])]
        return (
            updated_node
            if len(body) == len(updated_node.body)
            and all(one is other for one, other in zip(body, updated_node.body, strict=True))
            else updated_node.with_changes(body=body)
        )

    def leave_IfExp(self, original_node: cst.IfExp, updated_node: cst.IfExp) -> cst.BaseExpression:
        value = _truth(updated_node.test, self._known)
        if value is None:
            return updated_node
        chosen = updated_node.body if value else updated_node.orelse
        return chosen.with_changes(lpar=[*updated_node.lpar, *chosen.lpar], rpar=[*chosen.rpar, *updated_node.rpar])


def _resolved(statement: cst.CSTNode, known: Mapping[str, Any]) -> list[cst.BaseStatement] | None:
    """The statements that an ``if`` comes to; None where it stays as it is."""
    if not isinstance(statement, cst.If):
        return None
    value = _truth(statement.test, known)
    if value is None:
        orelse = statement.orelse
        if isinstance(orelse, cst.If) and (inner := _truth(orelse.test, known)) is not None:
            rest = cst.Else(body=orelse.body, leading_lines=orelse.leading_lines) if inner else orelse.orelse
            return [statement.with_changes(orelse=rest)]
        return None
    if value:
        return _lines(statement.body, statement.leading_lines)
    if isinstance(statement.orelse, cst.If):
        rest_of = statement.orelse
        return _resolved(rest_of, known) or [rest_of]
    return [] if statement.orelse is None else _lines(statement.orelse.body, statement.orelse.leading_lines)


def _until_left(body: list[cst.BaseStatement]) -> list[cst.BaseStatement]:
    """Leave out what stands behind ``return`` or ``raise``."""
    for place, line in enumerate(body):
        if isinstance(line, cst.SimpleStatementLine) and isinstance(line.body[-1], cst.Return | cst.Raise):
            return body[: place + 1]
    return body


def _lines(block: cst.BaseSuite, leading: Sequence[cst.EmptyLine]) -> list[cst.BaseStatement]:
    if isinstance(block, cst.SimpleStatementSuite):
        return [cst.SimpleStatementLine(body=block.body, leading_lines=leading)]
    first, *others = block.body
    lines = [*leading, *getattr(first, "leading_lines", ())]
    return [first.with_changes(leading_lines=lines), *others]


def _truth(test: cst.BaseExpression, known: Mapping[str, Any]) -> bool | None:
    """What a test comes to; None where that is not known."""
    match test:
        case cst.Name(name) if name in known:
            return bool(known[name])
        case cst.UnaryOperation(operator=cst.Not(), expression=inner):
            value = _truth(inner, known)
            return None if value is None else not value
        case cst.BooleanOperation(left=left, operator=word, right=right):
            both = _truth(left, known), _truth(right, known)
            decisive = isinstance(word, cst.Or)
            if decisive in both[:1] or (decisive in both and both[0] is not None):
                return decisive
            return None if None in both else not decisive
        case cst.Comparison(
            left=cst.Name(name), comparisons=[cst.ComparisonTarget(operator=word, comparator=other)]
        ) if name in known and type(word) in _COMPARE:
            one, two = known[name], _literal(other)
            if isinstance(word, cst.Is | cst.IsNot):
                return _COMPARE[type(word)](one, None) if two is None else None
            plain = isinstance(one, int | float) and isinstance(two, int | float)
            plain = plain or (isinstance(one, str) and isinstance(two, str))
            return _COMPARE[type(word)](one, two) if plain else None
    return None


def _literal(node: cst.BaseExpression) -> Any:
    """A literal's value, or a list that is not empty."""
    if isinstance(node, cst.List):
        return [...] if any(isinstance(item, cst.Element) for item in node.elements) else _UNKNOWN
    if not isinstance(node, cst.Name | cst.Integer | cst.Float | cst.SimpleString | cst.UnaryOperation):
        return _UNKNOWN
    try:
        return ast.literal_eval(cst.Module([]).code_for_node(node))
    except (ValueError, SyntaxError):
        return _UNKNOWN


def _setting(statement: cst.CSTNode) -> tuple[str, cst.BaseExpression | None]:
    """The name and value of ``name = value`` on a line of its own."""
    match statement:
        case cst.SimpleStatementLine(body=[cst.Assign(targets=[cst.AssignTarget(target=cst.Name(name))], value=value)]):
            return name, value
        case cst.SimpleStatementLine(body=[cst.AnnAssign(target=cst.Name(name), value=cst.BaseExpression() as value)]):
            return name, value
    return "", None


def _replaces(statement: cst.CSTNode, name: str) -> bool:
    """Whether it sets a name anew without a look at what it was."""
    other, value = _setting(statement)
    return other == name and value is not None and all(node.value != name for node in variables(value))


def _inlined(scope: _Locals) -> list[cst.BaseStatement] | None:
    """Put settings where they are read; None where none is left that reads as well there."""
    values: dict[str, cst.BaseExpression] = {}
    places: set[int] = set()
    for place, name, value in scope.settings():
        reads = scope.all[name] - 1
        if scope.sets[name] != 1 or reads == 0:
            continue
        if _is_alias(value, scope):
            wanted = name not in scope.quoted
        elif _literal(value) is not _UNKNOWN and not isinstance(value, cst.List):
            wanted = scope.named[name] == reads
        else:
            wanted = reads == 1 and name not in scope.quoted | scope.inner and _is_item(value, scope)
        if wanted and scope.lines[place].isdisjoint(values):
            values[name] = value
            places.add(place)
    if not values:
        return None
    put = _Put(values)
    rest = (line for place, line in enumerate(scope.body) if place not in places)
    return [line.visit(put) for line in rest]  # type: ignore[misc]


def _is_alias(value: cst.BaseExpression, scope: _Locals) -> bool:
    """Whether it is a name of the module's, or what a library has."""
    root = value
    while isinstance(root, cst.Attribute):
        root = root.value
    if not isinstance(root, cst.Name) or root.value in ("None", "True", "False"):
        return False
    constant = isinstance(value, cst.Name) or root.value in _LIBRARIES
    return constant and root.value not in scope.params and not scope.sets[root.value]


def _is_item(value: cst.BaseExpression, scope: _Locals) -> bool:
    """Whether it is an item of an argument that the function only takes items of."""
    match value:
        case cst.Subscript(value=cst.Name(name), slice=[cst.SubscriptElement(slice=cst.Index(value=index))]):
            constant = name in scope.params and not scope.sets[name] and name not in scope.inner
            return constant and scope.items[name] == scope.all[name] and _literal(index) is not _UNKNOWN
    return False


class _Put(cst.CSTTransformer):
    """Puts values where variables were; keywords and attributes of their names are something else."""

    def __init__(self, values: Mapping[str, cst.BaseExpression]) -> None:
        super().__init__()
        self._values = values

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.Attribute:
        return updated_node.with_changes(attr=original_node.attr)

    def leave_Arg(self, original_node: cst.Arg, updated_node: cst.Arg) -> cst.Arg:
        return updated_node.with_changes(keyword=original_node.keyword)

    def leave_Annotation(self, original_node: cst.Annotation, updated_node: cst.Annotation) -> cst.Annotation:
        return original_node

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.BaseExpression:
        if original_node.value not in self._values:
            return updated_node
        value = self._values[original_node.value].deep_clone()
        return value.with_changes(lpar=[*updated_node.lpar, *value.lpar], rpar=[*value.rpar, *updated_node.rpar])
