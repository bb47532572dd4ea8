"""Code that finds other names inside a function than in a module: refused with its line, and nothing else is."""

from __future__ import annotations

import ast

import pytest

from nngen.families.family_scopes import Unfit, annotations_of, check_scopes, dotted, top_level_names


def refused(source: str, *, postponed: bool = False) -> str:
    """Return the refusal as ``LINE: REASON``; an empty text where there is none."""
    tree = ast.parse(source)
    try:
        check_scopes(tree, list(ast.walk(tree)), postponed)
    except Unfit as unfit:
        return f"{unfit.line}: {unfit}"
    return ""


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("\nglobals()", "2: globals() gives the names of the mixture's file, not the family's"),
        ("f.__globals__", "1: __globals__ gives the names of the mixture's file, not the family's"),
        ("x.f_globals", "1: f_globals gives the names of the mixture's file, not the family's"),
        ("\nx = sys.modules", "2: names looked up in sys.modules are not found inside a function"),
        ("from sys import path, modules", "1: names looked up in sys.modules are not found inside a function"),
        ("sys._getframe(0)", "1: a look at the call stack finds other names inside a function"),
        ("currentframe()", "1: a look at the call stack finds other names inside a function"),
        ("f.__closure__", "1: __closure__ is empty in a module and not in a function"),
        ("c.co_freevars", "1: co_freevars is empty in a module and not in a function"),
        ("c.co_names", "1: co_names holds other names inside a function"),
        ("x.__qualname__", "1: __qualname__ is another inside a function: use __name__"),
        ("x = 1\neval('x')", "2: eval() looks names up that are not found inside a function"),
        ("exec(x)", "1: exec() looks names up that are not found inside a function"),
        ("locals()", "1: locals() gives other names inside a function"),
        ("def f():\n    return vars()", "2: vars() gives other names inside a function"),
        ("f(dir())", "1: dir() gives other names inside a function"),
    ],
)
def test_looks_at_the_place_of_the_code_are_refused(source: str, reason: str) -> None:
    assert refused(source) == reason


@pytest.mark.parametrize(
    "source",
    [
        "globals = 3",
        "eval('x', {})",
        "exec('x', names)",
        "net.eval()",
        "vars(x); dir(x); locals",
        "other.modules",
        "from torch import modules",
        "from sys import path",
        "x.sys.modules",
    ],
)
def test_what_only_looks_alike_is_accepted(source: str) -> None:
    assert refused(source) == ""


READS = "the class reads the module's 'n' and binds the same name: rename one of them"


@pytest.mark.parametrize(
    "body",
    [
        "m = n\nn = 1",
        "n = n",
        "n += 1",
        "n += n",
        "m += (m := n)\nn = 1",
        "n: int = n",
        "n: n = 1",
        "n: int\nm = n",
        "def n(self, x=n): pass",
        "def n(self, *, x=n): pass",
        "async def n(self, x: n): pass",
        "def n(self) -> n: pass",
        "@n\ndef n(self): pass",
        "m = lambda x=n: x\nn = 1",
        "class n(n): pass",
        "class n(k=n): pass",
        "@n\nclass n: pass",
        "m = [x for x in n]\nn = 1",
        "m = {x for x in n}\nn = 1",
        "m = {x: x for x in n}\nn = 1",
        "m = (x for x in n)\nn = 1",
        "if a:\n    n = 1\nm = n",
        "if a:\n    n = 1\nelse:\n    m = n",
        "for x in a:\n    n = 1\nelse:\n    m = n",
        "for n in a:\n    pass\nm = n",
        "for x in n:\n    n = 1",
        "while a:\n    n = 1\nm = n",
        "while n:\n    n = 1",
        "with n as n: pass",
        "try:\n    n = 1\nexcept E:\n    m = n",
        "try:\n    n = 1\nfinally:\n    m = n",
        "try:\n    n = 1\nexcept* E:\n    m = n",
        "try:\n    a\nexcept n:\n    n = 1",
        "n = 1\ndel n\nm = n",
        "if n: pass\nn = 1",
    ],
)
def test_a_class_that_reads_a_name_before_it_binds_it_is_refused(body: str) -> None:
    lines = ["n = 0", "class C:", *(f"    {line}" for line in body.splitlines())]
    place, _, reason = refused("\n".join(lines)).partition(": ")
    assert reason == READS and "n" in lines[int(place) - 1]
    # Only names that both bind can be mixed up.
    assert refused("\n".join(lines[1:])) == ""


@pytest.mark.parametrize(
    "body",
    [
        "n = 1\nm = n",
        "n = 1\nif a:\n    m = n",
        "n = 1\nfor x in n:\n    m = n\nelse:\n    m = n",
        "n = 1\ntry:\n    m = n\nexcept n:\n    n\nfinally:\n    n",
        "if a:\n    n = 1\n    m = n",
        "n: int = 1\nm = n",
        "n, m = 1, 2\nk = n",
        "def n(self): return n\nm = n",
        "def f(self): return n\nn = 1",
        "m = lambda: n\nn = 1",
        "m = [n for x in a]\nn = 1",
        "m = [x for x in a if n]\nn = 1",
        "m.n = 1\nk = m.n\nn = 1",
        "n = m = 1\ndel m\nk = n",
        "import n\nm = n",
    ],
)
def test_a_class_that_binds_a_name_before_it_reads_it_is_accepted(body: str) -> None:
    assert refused("n = 0\nclass C:\n" + "\n".join(f"    {line}" for line in body.splitlines())) == ""


def test_annotations_of_a_class_are_not_read_where_they_are_postponed() -> None:
    for body in ("n: n = 1", "def n(self, x: n) -> n: pass"):
        source = f"n = 0\nclass C:\n    {body}"
        assert refused(source) == f"3: {READS}" and refused(source, postponed=True) == ""
    assert refused("n = 0\nclass C:\n    n: int = n", postponed=True) == f"3: {READS}"


def test_names_that_a_function_makes_global_are_the_modules() -> None:
    assert refused("def f():\n    global n\n    n = 1\nclass C:\n    n = n") == f"5: {READS}"


GLOBAL = "global n in a function inside another that has a 'n' of its own"


@pytest.mark.parametrize(
    ("around", "inside"),
    [
        ("def f(n):", ""),
        ("def f(*n):", ""),
        ("def f(*, n=1):", ""),
        ("async def f():", "    n = 1\n"),
        ("def f():", "    import n\n"),
        ("def f():", "    for n in x: pass\n"),
        ("def f():\n    n = 1\n    def e():", "        nonlocal n\n"),
    ],
)
def test_global_behind_a_name_of_a_function_around_it_is_refused(around: str, inside: str) -> None:
    indent = "        " if "e()" in around else "    "
    source = f"{around}\n{inside}{indent}def g():\n{indent}    global m, n\n"
    assert refused(source) == f"{len(source.splitlines())}: {GLOBAL}"
    assert refused(source.replace("global m, n", "global m")) == ""


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    global n\n    n = 1\n    def g():\n        global n",
        "def f():\n    n = 1\ndef g():\n    global n",
        "def f():\n    def g(): n = 1\n    def h():\n        global n",
        "global n",
        "h = lambda n: 1\ndef g():\n    global n",
    ],
)
def test_global_with_nothing_in_between_is_accepted(source: str) -> None:
    assert refused(source) == ""


def test_only_code_that_is_kept_is_looked_at() -> None:
    tree = ast.parse("def f(n):\n    def g():\n        global n\n        locals()\n    eval(n)")
    check_scopes(tree, [], False)
    kept = [node for node in ast.walk(tree) if not isinstance(node, ast.Global)]
    with pytest.raises(Unfit, match=r"^eval\(\) looks"):
        check_scopes(tree, kept, False)
    with pytest.raises(Unfit, match=r"^locals\(\) gives"):
        check_scopes(tree, [node for node in kept if getattr(getattr(node, "func", None), "id", "") != "eval"], False)


RESOLVED = "looks annotations in quotes up among a module's names: leave the quotes out"


@pytest.mark.parametrize(
    ("source", "line", "name"),
    [
        ("def f(x: 'A'): pass\nget_type_hints(f)", 2, "get_type_hints"),
        ("def f() -> 'A': pass\ntyping.get_type_hints(f)", 2, "get_type_hints"),
        ("x: list['A'] = 1\n@singledispatch\ndef f(x): pass", 2, "singledispatch"),
        ("x: 'A'\nfunctools.singledispatchmethod(f)", 2, "singledispatchmethod"),
        ("x: 'A'\ninspect.signature(f, eval_str=True)", 2, "eval_str"),
        ("x: Literal['a'] | 'A'\nget_type_hints(f)", 2, "get_type_hints"),
    ],
)
def test_what_looks_quoted_annotations_up_is_refused(source: str, line: int, name: str) -> None:
    assert refused(source) == f"{line}: {name} {RESOLVED}"
    plain = source.replace("'A'", "A")
    assert refused(plain) == ""
    assert refused(plain, postponed=True) == f"{line}: {name} {RESOLVED}"


def test_strings_that_are_no_annotations_and_names_that_are_defined_are_accepted() -> None:
    for source in (
        "x: Literal['a'] = 1\ny: typing.Literal['b', ('c',)]\nget_type_hints(f)",
        "x: Annotated[int, 3] = 'A'\nget_type_hints(f)",
        "x: 'A' = 1\ndef get_type_hints(get_type_hints): pass",
        "from typing import get_type_hints\nx: 'A' = 1",
    ):
        assert refused(source) == "", source


@pytest.mark.parametrize("text", ["ClassVar[int]", " typing.InitVar", "a.b.KW_ONLY"])
def test_a_field_of_a_dataclass_in_quotes_is_refused(text: str) -> None:
    reason = f"a dataclass does not find {text!r} in quotes: leave them out"
    assert refused(f"class C:\n    a: int = 1\n    x: {text!r} = 1") == f"3: {reason}"
    assert refused(f"class C:\n    x: list[{text!r}] = 1") == f"2: {reason}"
    longer = text.removesuffix("[int]") + "ious"
    for other in (f"def f(x: {text!r}): pass", f"x: {longer!r}", f"x: {'list[' + text!r}"):
        assert refused(other) == ""


def test_small_parts() -> None:
    expressions = {"a": "a", "a.b.c": "a.b.c", "a().b": "", "a[0]": "", "1": "", "a.b().c.d": ""}
    assert {text: dotted(ast.parse(text, mode="eval").body) for text in expressions} == expressions
    function = ast.parse("def f(a: A, b, /, c: C = 1, *d: D, e: E, **g: G) -> H: pass").body[0]
    assert isinstance(function, ast.FunctionDef)
    assert [ast.unparse(item) for item in annotations_of(function)] == list("ACDEGH")
    names = top_level_names(ast.parse("a = b.c\ndef d(e): f = 1\nif g:\n    import h.i\n").body)
    assert names == {"a", "d", "h"}
