"""Ids and canonical hashes of candidates."""

from __future__ import annotations

import ast
import hashlib
import re
import subprocess
import sys

import pytest
from assembly_toys import GOLDEN, KINDS
from hypothesis import given
from hypothesis import strategies as st

from nngen.assembly.identity import canonical_hash
from nngen.errors import AssemblyError
from nngen.families.catalogue import make_family
from nngen.families.family_function import family_function
from nngen.lemur.layout import nn_id
from nngen.text import MAX_PARSED, parse_python

SOURCE = '''
"""A module."""
import torch


def f(x, scale=1.0):
    """Scale."""
    return x * scale  # a comment
'''


@pytest.mark.long
@given(st.text())
def test_lemur_id_is_what_lemur_computes(text: str) -> None:
    # ab.nn.util.Util.uuid4 of nn-dataset 2.1.2
    assert nn_id(text) == hashlib.md5(re.sub("\\s", "", text).encode()).hexdigest()


def test_comments_docstrings_and_layout_do_not_count() -> None:
    same = "import torch\ndef f(x, scale = 1.0,):\n  return (x\n    * scale)"
    assert canonical_hash(same) == canonical_hash(SOURCE)


def test_statements_that_do_nothing_do_not_count() -> None:
    idle = "'a string'\npass\nx = 1\ndef f():\n    pass\n    'another'\n    g()\n    pass\n'the end'\n"
    assert canonical_hash(idle) == canonical_hash("x = 1\ndef f():\n    g()\n")


def test_a_source_is_parsed_up_to_the_limit_and_its_bytes_are_hashed_beyond() -> None:
    source = "x = 1  #"
    longest = source.ljust(MAX_PARSED, "#")
    assert canonical_hash(longest) == canonical_hash(source)
    assert canonical_hash(longest + "#") == hashlib.sha256((longest + "#").encode()).hexdigest()


def test_changes_of_behaviour_count() -> None:
    changes = [("1.0", "1"), ("1.0", "2.0"), ("x * scale", "scale * x"), ("torch", "math"), ("def f", "def g")]
    hashes = {canonical_hash(SOURCE.replace(old, new, 1)) for old, new in changes}
    assert len(hashes | {canonical_hash(SOURCE)}) == len(changes) + 1


def test_twins_that_lemur_confuses_are_told_apart() -> None:
    one = "def f(xs):\n    n = 0\n    for x in xs:\n        n += x\n    return n\n"
    other = "def f(xs):\n    n = 0\n    for x in xs:\n        n += x\n        return n\n"
    assert nn_id(one) == nn_id(other)
    assert canonical_hash(one) != canonical_hash(other)


def test_the_hash_is_the_same_on_every_version_of_python() -> None:
    source = (
        "@d\nclass A(B, m=1):\n    x: int = {**y, 'a': None}\n"
        "    async def f(self, *a, k=f'{x!r:>4}', **kw):\n        yield -1\n"
    )
    assert canonical_hash(source) == "ce29347309cf4cdbbacd984a32dddd2d99932878123a32f91d141e61d81e8b24"
    source = (
        "def f(x, *, y: int = 0) -> None:\n    for a, b in x:\n        if a: yield b\n        else:\n            pass\n"
        "    else:\n        'text'\n    try:\n        y = lambda k=1: (k, None, ...)\n    finally:\n        pass\n"
        "    return y if x else [y for y in x if y] or x[1:, ::2]\n"
    )
    assert canonical_hash(source) == "d718483c17ab0c70056ae7e8ea531bf6b4a88bf00d0f3b9fb9cd644ef87c3b7f"


SAME = [
    ("def f(x):\n    y = x\n    return y", "def f(x):\n    z = x\n    return z"),
    ("def f(x):\n    for i in x: print(i)", "def f(x):\n    for j in x: print(j)"),
    ("def f(x):\n    return [i for i in x]", "def f(x):\n    return [j for j in x]"),
    ("t = [i * j for i in a for j in i]", "t = [u * v for u in a for v in u]"),
    ("def f():\n    with g() as h: return h", "def f():\n    with g() as k: return k"),
    ("def f():\n    try: g()\n    except E as e: raise e", "def f():\n    try: g()\n    except E as o: raise o"),
    ("def f(x):\n    if (n := len(x)): return n", "def f(x):\n    if (m := len(x)): return m"),
    (
        "def f(x):\n    y = 1\n    def g(): return y\n    return g",
        "def f(x):\n    n = 1\n    def g(): return n\n    return g",
    ),
    (
        "def f():\n    y = 1\n    def g():\n        nonlocal y\n        y = 2\n    return y, g",
        "def f():\n    n = 1\n    def g():\n        nonlocal n\n        n = 2\n    return n, g",
    ),
    (
        "def f(x):\n    match x:\n        case [a, *b]: return a, b",
        "def f(x):\n    match x:\n        case [c, *d]: return c, d",
    ),
    ("def f(x):\n    match x:\n        case {**r}: return r", "def f(x):\n    match x:\n        case {**s}: return s"),
    (
        "class A:\n    def f(self):\n        y = 1\n        return y",
        "class A:\n    def f(self):\n        z = 1\n        return z",
    ),
    ("def f(x):\n    a, b = x\n    return b", "def f(x):\n    b, a = x\n    return a"),
    ("def f(x):\n    y = lambda k: k + x\n    return y", "def f(x):\n    z = lambda k: k + x\n    return z"),
]
"""Pairs that differ in the names of locals alone."""

OTHER = [
    ("g()", "pass"),
    ("g(1)", "g(None)"),
    ("1", ""),
    ("...", ""),
    ("x = 1", "x = '1'"),
    ("def f(x):\n    return x", "def f(y):\n    return y"),  # a caller may name it
    ("def f(x):\n    a, b = x\n    return b", "def f(x):\n    a, b = x\n    return a"),
    ("def f(x):\n    y = x\n    return y", "def f(x):\n    y = x\n    return z"),  # a module's name
    ("def f(x):\n    y = x\n    return x", "def f(x):\n    y = x\n    return y"),
    ("def f():\n    y = 1\n    return locals()", "def f():\n    z = 1\n    return locals()"),
    ("def f():\n    y = 1\n    return eval(s)", "def f():\n    z = 1\n    return eval(s)"),
    ("def f():\n    global y\n    y = 1", "def f():\n    global z\n    z = 1"),
    ("class A:\n    y = 1", "class A:\n    z = 1"),
    ("y = 1", "z = 1"),
    ("def f(self):\n    self.y = 1", "def f(self):\n    self.z = 1"),
    ("def f():\n    import math as y\n    return y", "def f():\n    import math as z\n    return z"),
    ("def f():\n    def y(): pass\n    return y", "def f():\n    def z(): pass\n    return z"),
    ("def f(x):\n    y = 1\n    return g(y=y)", "def f(x):\n    z = 1\n    return g(z=z)"),
    (
        "def f():\n    y = 1\n    def g():\n        y = 2\n    return y",
        "def f():\n    y = 1\n    def g():\n        nonlocal y\n        y = 2\n    return y",
    ),
    ("def f(x):\n    y = [y for y in x]\n    return y", "def f(x):\n    y = [z for y in x]\n    return y"),
    (
        "def f(x):\n    y = 1\n    class A:\n        y = 2\n        def g(self): return y\n    return A",
        "def f(x):\n    z = 1\n    class A:\n        y = 2\n        def g(self): return y\n    return A",
    ),
]
"""Pairs of which something else differs."""


@pytest.mark.parametrize(("one", "other"), SAME)
def test_names_of_locals_do_not_count(one: str, other: str) -> None:
    assert canonical_hash(one) == canonical_hash(other)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_every_other_name_counts(one: str, other: str) -> None:
    assert canonical_hash(one) != canonical_hash(other)


class Renamed(ast.NodeTransformer):
    """Transformer that appends a letter to some names wherever they are read or bound."""

    def __init__(self, names: set[str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(id=f"{node.id}_q", ctx=node.ctx) if node.id in self.names else node


@pytest.mark.parametrize("kind", KINDS)
def test_renaming_the_locals_of_a_whole_file_keeps_its_hash(kind: str) -> None:
    source = (GOLDEN / f"{kind}.py").read_text()
    tree = ast.parse(source)
    # A family's function holds classes, whose attributes are not locals.
    functions = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and not any(isinstance(inner, ast.ClassDef) for inner in ast.walk(node))
    ]
    for function in functions:
        arguments = {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
        stored = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        function.body = [Renamed(stored - arguments).visit(node) for node in function.body]
    renamed = ast.unparse(tree)
    assert renamed.count("_q") > 50
    assert canonical_hash(renamed) == canonical_hash(source)


LONG = {
    "list": 'source = "X = [" + "a," * 2_000_000 + "]"',
    "locals": 'source = "def f():\\n" + "".join(f"    v{i} = v{i - 1}\\n" for i in range(1, 100_000))',
    "locals of a short source": 'source = "def f():\\n" + "".join(f" v{i}=0\\n" for i in range(17_000))',
    "look-ups inside of nested functions": 'source = "x=" + "lambda:" * 80 + "[" + "eval," * 38_000 + "]"',
}


@pytest.mark.long
@pytest.mark.parametrize("name", LONG)
def test_a_foreign_source_of_any_length_is_hashed_in_bounded_time_and_memory(name: str) -> None:
    code = f"""
import resource
from nngen.assembly.identity import canonical_hash
resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
resource.setrlimit(resource.RLIMIT_AS, (600 * 2**20, 600 * 2**20))
{LONG[name]}
assert len(canonical_hash(source)) == 64
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("source", ["x = " + "(" * 5000 + ")" * 5000, "x = " + "-" * 150_000 + "1", "a\0b", "'\ud800'"])
def test_what_has_no_tree_is_a_syntax_error(source: str) -> None:
    with pytest.raises(SyntaxError):
        canonical_hash(source)
    with pytest.raises(SyntaxError):
        parse_python(source)


def test_the_reason_of_a_syntax_error_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SyntaxError, match="null bytes"):
        canonical_hash("a\0b")

    def no_memory(_: str) -> ast.Module:
        raise MemoryError

    monkeypatch.setattr(ast, "parse", no_memory)
    with pytest.raises(SyntaxError, match=r"^nested too deep$"):
        canonical_hash("x = 1")


def test_long_family_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(AssemblyError, match="longer than 200,000 characters"):
        family_function(make_family("Long", "class Net: ...\n" + "a;" * 120_000))
