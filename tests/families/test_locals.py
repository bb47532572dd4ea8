"""Locals of functions and comprehensions: numbered where renaming them changes nothing, left alone elsewhere."""

from __future__ import annotations

import ast

import pytest

from nngen.families.locals import bound_names, local_names, own_nodes


class _Renamer(ast.NodeTransformer):
    def __init__(self, found: dict[int, dict[str, str]]) -> None:
        self.found = found

    def visit(self, node: ast.AST) -> ast.AST:
        names = self.found.get(id(node), {})
        self.generic_visit(node)
        for field in ("id", "name", "rest"):
            spelled = getattr(node, field, None)
            if isinstance(spelled, str) and spelled in names:
                setattr(node, field, names[spelled])
        if isinstance(node, ast.Nonlocal):
            node.names = [names.get(name, name) for name in node.names]
        return node


def numbered(source: str) -> str:
    """Write a source with the stand-ins of its locals."""
    tree = ast.parse(source)
    return ast.unparse(_Renamer(local_names(tree)).visit(tree))


CASES = {
    "every way to bind a local": (
        """
def f(a, *b, c=1, **d):
    x = a
    (y, *z), u.v = b
    for i in z:
        pass
    with x as w:
        w += c
    try:
        d
    except E as e:
        raise e
    if (n := x):
        del n
    match y:
        case {'k': k, **rest}:
            return (k, rest)
        case [m, *more] as whole:
            return (m, more, whole)
    return i
""",
        """
def f(a, *b, c=1, **d):
    %0 = a
    (%1, *%2), u.v = b
    for %3 in %2:
        pass
    with %0 as %4:
        %4 += c
    try:
        d
    except E as %5:
        raise %5
    if (%6 := %0):
        del %6
    match %1:
        case {'k': %8, **%7}:
            return (%8, %7)
        case [%10, *%11] as %9:
            return (%10, %11, %9)
    return %3
""",
    ),
    "names of the module": ("x = 1\n\ndef f():\n    return x", "x = 1\n\ndef f():\n    return x"),
    "names bound in another way as well": (
        """
def f():
    import os.path, sys as s

    def g():
        return os

    class C:
        pass
    g = C = 2
    os = s = path = 3
    y = 4
    y: int = 5
    return (g, C, os, s, path, y)
""",
        """
def f():
    import os.path, sys as s

    def g():
        return os

    class C:
        pass
    g = C = 2
    os = s = %0 = 3
    %1 = 4
    %1: int = 5
    return (g, C, os, s, %0, %1)
""",
    ),
    "a local that is defined as a function later": (
        "def f():\n    x = 1\n    y = 2\n\n    def x():\n        return y\n    return x",
        "def f():\n    x = 1\n    %1 = 2\n\n    def x():\n        return %1\n    return x",
    ),
    "scopes inside of each other": (
        """
def f():
    x = 1

    def g():
        nonlocal x
        x = 2
        y = x

        def h():
            global y, x
            y = x
            return z
        return y

    class C:
        x = 5
        y = x

        def m(self):
            return x
    z = lambda x: x + z
    return x
""",
        """
def f():
    %0 = 1

    def g():
        nonlocal %0
        %0 = 2
        %2 = %0

        def h():
            global y, x
            y = x
            return %1
        return %2

    class C:
        x = 5
        y = x

        def m(self):
            return %0
    %1 = lambda x: x + %1
    return %0
""",
    ),
    "names of two functions side by side": (
        """
def f():
    x = 1

    def g(y):
        z = x
        y = z
        return y

    def h(x):
        v = x
        return v
    w = x
""",
        """
def f():
    %0 = 1

    def g(y):
        %2 = %0
        y = %2
        return y

    def h(x):
        %2 = x
        return %2
    %1 = %0
""",
    ),
    "what is read outside of a function": (
        """
def f(a=[b for b in c]):

    @a
    def g(p: q=b) -> b:
        return p
    b = 1
    q = 2
    return (a, b)
""",
        """
def f(a=[%0 for %0 in c]):

    @a
    def g(p: %1=%0) -> %0:
        return p
    %0 = 1
    %1 = 2
    return (a, %0)
""",
    ),
    "comprehensions": (
        """
x = [y for y in x if y for z in y if z]

def f():
    x = {x: k for x in x for k in x}
    return [w for v in x if (w := v)]
""",
        """
x = [%0 for %0 in x if %0 for %1 in %0 if %1]

def f():
    %0 = {%2: %3 for %2 in %0 for %3 in %2}
    return [%1 for %2 in %0 if (%1 := %2)]
""",
    ),
    "other comprehensions": (
        "def f():\n    a = {b for b in c}\n    return (d for d in a)",
        "def f():\n    %0 = {%1 for %1 in c}\n    return (%1 for %1 in %0)",
    ),
    "a function that looks names up": (
        "def f():\n    x = locals()\n    return lambda: [y for y in x]",
        "def f():\n    x = locals()\n    return lambda: [%0 for %0 in x]",
    ),
    "a comprehension that looks names up": (
        "def f(x):\n    return [(y, eval('y')) for y in x]\n\ndef g(x):\n    return [y for y in x]",
        "def f(x):\n    return [(y, eval('y')) for y in x]\n\ndef g(x):\n    return [%0 for %0 in x]",
    ),
    "a look at the names around": (
        "def f():\n    x = vars(y)\n    y = dir()\n    return x",
        "def f():\n    x = vars(y)\n    y = dir()\n    return x",
    ),
    "a look at an argument": (
        "def f():\n    x = vars(y)\n    y = dir(x)\n    return x",
        "def f():\n    %0 = vars(%1)\n    %1 = dir(%0)\n    return %0",
    ),
    "a method of such a name": (
        "def f():\n    x = y.exec(1)\n    return exec(x)",
        "def f():\n    x = y.exec(1)\n    return exec(x)",
    ),
    "classes and functions that wait": (
        """
class A:
    b = [c for c in d]
    e = b

    async def f(self, g):
        async with g as h:
            async for i in h:
                await i
""",
        """
class A:
    b = [%0 for %0 in d]
    e = b

    async def f(self, g):
        async with g as %0:
            async for %1 in %0:
                await %1
""",
    ),
    "a name of a class inside of a function": (
        "def f():\n    x = 1\n\n    class C:\n        x = [x for y in x]\n        z = x\n    return x",
        "def f():\n    %0 = 1\n\n    class C:\n        x = [%0 for %1 in x]\n        z = x\n    return %0",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_locals_are_numbered_in_the_order_in_which_they_are_bound(name: str) -> None:
    source, expected = CASES[name]
    assert numbered(source) == expected.strip("\n")


def test_a_statement_is_walked_in_order_without_what_has_a_scope_of_its_own() -> None:
    source = "if a:\n    b = [c for d in (e := f)]\n    def g(h=i): j\n    k = lambda: m\n    class N(o): p"
    found = [node.id for node in own_nodes(ast.parse(source)) if isinstance(node, ast.Name)]
    assert found == ["a", "b", "k"]
    walrus = [type(node).__name__ for node in own_nodes(ast.parse("{a: (b := c) for d in (e, (f := g))}").body[0])]
    assert walrus == ["Expr", "DictComp", "NamedExpr", "NamedExpr"]


def test_what_a_statement_binds_is_told_with_whether_it_is_a_local() -> None:
    source = (
        "try:\n    import a.b, c as d\n    from e import f as g, h\nexcept (i, j) as k:\n    def l(m): n = 1\n"
        "    async def o(): pass\n    class P: q = 1\n    r, s.t, u[v] = w = x\n    [y for y in (z := 1)]\n"
    )
    (statement,) = ast.parse(source).body
    local = {"k", "r", "w", "z"}
    assert list(bound_names(statement)) == [(name, name in local) for name in ["a", "d", "g", "h", *"kloPrwz"]]
