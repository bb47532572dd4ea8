"""Says in fewer or plainer words what an expert's code says; what it computes stays.

``super()`` without arguments, no ``else`` after ``return``, no overloads that only TorchScript reads, f-strings in
place of plain ``format`` calls, one ``isinstance`` in place of two, generators in place of lists that only ``all`` or
``any`` reads, ``assert`` in place of ``torch._assert``, ``!=`` in place of ``not ... ==``, one statement a line, and
``return None`` at the end of what returns something elsewhere.
"""

# ruff: noqa: N802 -- libcst calls its visitors' methods by the names of its node classes

from __future__ import annotations

from collections.abc import Iterator, Sequence

import libcst as cst

from nngen.assembly.walk import walk

__all__ = ["Modern"]


class Modern(cst.CSTTransformer):
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
        return cst.RemoveFromParent() if overload else _ended(updated_node)

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        match updated_node:
            case cst.Call(func=cst.Name("super"), args=[cst.Arg(value=cst.Name(kind)), cst.Arg(value=cst.Name(first))]):
                # ``super(Block, self)``, right in a method of ``Block``, is ``super()``.
                method = len(self._places) > 1 and self._places[-1] is None
                if method and kind == self._places[-2] and first == self._first[-1]:
                    return updated_node.with_changes(args=[])
            case cst.Call(func=cst.Name("all" | "any"), args=[cst.Arg(value=cst.ListComp() as items, keyword=None)]):
                generator = cst.GeneratorExp(elt=items.elt, for_in=items.for_in, lpar=[], rpar=[])
                return updated_node.with_changes(args=[cst.Arg(value=generator)])
            case cst.Call(func=cst.Attribute(value=cst.SimpleString() as text, attr=cst.Name("format"))):
                return _f_string(text, updated_node.args) or updated_node
        return updated_node

    def leave_Expr(self, original_node: cst.Expr, updated_node: cst.Expr) -> cst.BaseSmallStatement:
        """``torch._assert(a, b)`` is ``assert a, b``; a call with a comma behind it is a call."""
        match updated_node.value:
            case cst.Call(
                func=cst.Attribute(value=cst.Name("torch"), attr=cst.Name("_assert")),
                args=[cst.Arg(value=test, keyword=None, star=""), cst.Arg(value=message, keyword=None, star="")],
            ):
                return cst.Assert(_on_its_own(test), _on_its_own(message))
            case cst.Tuple(elements=[cst.Element(value=cst.Call() as call)]):
                return updated_node.with_changes(value=call)
        return updated_node

    def leave_Raise(self, original_node: cst.Raise, updated_node: cst.Raise) -> cst.Raise:
        """``Exception`` itself says too little; whoever catches it catches ``RuntimeError`` too."""
        match updated_node.exc:
            case cst.Call(func=cst.Name("Exception")) as call:
                return updated_node.with_changes(exc=call.with_changes(func=cst.Name("RuntimeError")))
        return updated_node

    def leave_BinaryOperation(
        self, original_node: cst.BinaryOperation, updated_node: cst.BinaryOperation
    ) -> cst.BaseExpression:
        """``"a%d" % (x + 1)`` is ``f"a{int(x + 1)}"``."""
        match updated_node:
            case cst.BinaryOperation(
                left=cst.SimpleString() as text, operator=cst.Modulo(), right=cst.BinaryOperation() as value
            ) if text.raw_value.count("%") == text.raw_value.count("%d") == 1:
                braces = text.with_changes(value=text.value.replace("%d", "{}"))
                number = cst.Call(cst.Name("int"), [cst.Arg(value.with_changes(lpar=[], rpar=[]))])
                plain = not any(sign in text.raw_value for sign in "{}")
                return (_f_string(braces, [cst.Arg(number)]) if plain else None) or updated_node
        return updated_node

    def leave_BooleanOperation(
        self, original_node: cst.BooleanOperation, updated_node: cst.BooleanOperation
    ) -> cst.BaseExpression:
        """``isinstance(x, A) or isinstance(x, B)`` is ``isinstance(x, (A, B))`` where ``x`` is a name."""
        if not isinstance(updated_node.operator, cst.Or):
            return updated_node
        left, right = _asked(updated_node.left), _asked(updated_node.right)
        if left is None or right is None or left[0] != right[0]:
            return updated_node
        kinds = cst.Tuple([cst.Element(kind) for kind in (*left[1], *right[1])])
        call = cst.Call(cst.Name("isinstance"), [cst.Arg(cst.Name(left[0])), cst.Arg(kinds)])
        return call.with_changes(lpar=updated_node.lpar, rpar=updated_node.rpar)

    def leave_UnaryOperation(
        self, original_node: cst.UnaryOperation, updated_node: cst.UnaryOperation
    ) -> cst.BaseExpression:
        """``not x == 1`` is ``x != 1``."""
        match updated_node:
            case cst.UnaryOperation(
                operator=cst.Not(),
                expression=cst.Comparison(comparisons=[cst.ComparisonTarget(operator=cst.Equal())]) as test,
            ):
                target = test.comparisons[0].with_changes(operator=cst.NotEqual())
                plain = _on_its_own(test.with_changes(comparisons=[target], lpar=[], rpar=[]))
                return plain.with_changes(
                    lpar=[*updated_node.lpar, *plain.lpar], rpar=[*plain.rpar, *updated_node.rpar]
                )
        return updated_node

    def leave_If(self, original_node: cst.If, updated_node: cst.If) -> cst.If:
        """``if x: return`` gets a line of its own for what it does."""
        body = updated_node.body
        if not isinstance(body, cst.SimpleStatementSuite):
            return updated_node
        lines = [
            cst.SimpleStatementLine([line.with_changes(semicolon=cst.MaybeSentinel.DEFAULT)]) for line in body.body
        ]
        return updated_node.with_changes(body=cst.IndentedBlock(lines))

    def leave_IndentedBlock(
        self, original_node: cst.IndentedBlock, updated_node: cst.IndentedBlock
    ) -> cst.IndentedBlock:
        return updated_node.with_changes(body=list(_flat(updated_node.body)))


def _ended(function: cst.FunctionDef) -> cst.FunctionDef:
    """Where a function returns something and may also come to its end, say that it returns None there."""
    body = function.body.body
    last = body[-1]
    open_end = isinstance(last, cst.For | cst.If) and last.orelse is None
    inside = list(walk(function.body, skip=lambda node: isinstance(node, cst.FunctionDef | cst.ClassDef | cst.Lambda)))
    returns = any(isinstance(node, cst.Return) and node.value is not None for node in inside)
    if not open_end or not returns or any(isinstance(node, cst.Yield) for node in inside):
        return function
    end = cst.SimpleStatementLine([cst.Return(cst.Name("None"))])
    return function.with_changes(body=function.body.with_changes(body=[*body, end]))


def _on_its_own(node: cst.BaseExpression) -> cst.BaseExpression:
    """An expression of several lines needs brackets where it leaves those of a call."""
    if node.lpar or "\n" not in cst.Module([]).code_for_node(node):
        return node
    return node.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])


def _asked(node: cst.BaseExpression) -> tuple[str, list[cst.BaseExpression]] | None:
    """The name that ``isinstance`` is asked about, and the kinds; None for anything else."""
    match node:
        case cst.Call(
            func=cst.Name("isinstance"), args=[cst.Arg(value=cst.Name(name), star=""), cst.Arg(value=kinds, star="")]
        ):
            if not isinstance(kinds, cst.Tuple):
                return name, [kinds]
            items = [item.value for item in kinds.elements if isinstance(item, cst.Element)]
            return (name, items) if len(items) == len(kinds.elements) else None
    return None


def _f_string(text: cst.SimpleString, args: Sequence[cst.Arg]) -> cst.BaseExpression | None:
    """``"a{}b".format(x)`` as an f-string; None where that is more than filling empty braces in."""
    plain = not any(sign in text.raw_value for sign in "\\") and not text.prefix and len(text.quote) == 1
    pieces = text.raw_value.split("{}")
    values = [arg.value for arg in args if arg.keyword is None and arg.star == ""]
    if not plain or any(sign in piece for piece in pieces for sign in "{}"):
        return None
    if len(values) != len(args) or len(values) != len(pieces) - 1:
        return None
    module = cst.Module(body=[])
    codes = [module.code_for_node(value) for value in values]
    # Quotes and backslashes inside of braces are for Python 3.12 and later; a brace at their start would be doubled.
    if any(set(code) & set("\"'\\\n#{}!:=") for code in codes):
        return None
    parts: list[cst.BaseFormattedStringContent] = []
    for place, piece in enumerate(pieces):
        if place:
            parts.append(cst.FormattedStringExpression(values[place - 1]))
        if piece:
            parts.append(cst.FormattedStringText(piece))
    return cst.FormattedString(parts, start=f"f{text.quote}", end=text.quote)


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


def _dotted(node: cst.CSTNode) -> str:
    match node:
        case cst.Name(value=name):
            return name
        case cst.Attribute(value=value, attr=cst.Name(value=name)):
            return f"{_dotted(value)}.{name}"
    return ""
