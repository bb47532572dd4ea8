"""What may leave a family's source: what only binds a name that nothing needs."""

from __future__ import annotations

import ast

import pytest

from nngen.families.needed_code import NeededCode, needed_code

NET = "class Net:\n\n    def forward(self):\n        pass"


def look(source: str) -> NeededCode:
    return needed_code(ast.parse(source))


def leaving(source: str) -> list[str]:
    return [ast.unparse(node) for node in look(source).unneeded]


@pytest.mark.parametrize(
    "statement",
    [
        "import a",
        "import a.b, c as d",
        "from a import b",
        "def f(x=1, *, y=A):\n    g()",
        "def f(x: A) -> B:\n    yield",
        "async def f():\n    await g()",
        "class C(B):\n    pass",
        'class C:\n    """Text."""\n    a = b = 1\n    c: int = 2\n    d: int\n    3',
        "class C:\n\n    @property\n    def f(self):\n        g()\n\n    @staticmethod\n    def h(x=A):\n        x",
        "class C:\n\n    @classmethod\n    def f(cls):\n        x\n\n    @torch.jit.a\n    def g(self):\n        x",
        "a = b = [1, c]",
        "a: int = 1",
        "a: int",
    ],
)
def test_what_only_binds_leaves_if_nothing_needs_it(statement: str) -> None:
    assert leaving(f"{statement}\n{NET}") == [statement]
    used = {"import a.b, c as d": "d", "from a import b": "b"}.get(statement, "a")
    name = statement.split()[1].split("(")[0].rstrip(":") if statement.startswith(("def", "class", "async")) else used
    name = "f" if statement.startswith("async") else name
    assert leaving(f"{statement}\n{NET.replace('pass', name)}") == []


@pytest.mark.parametrize(
    "statement",
    [
        "from a import *",
        "def f(x=g()): pass",
        "def f(*, x=g()): pass",
        "def f(x: g()): pass",
        "def f() -> g(): pass",
        "@d\ndef f(): pass",
        "class C(f()): pass",
        "class C(B, flag=1): pass",
        "@d\nclass C: pass",
        "class C:\n    a = f()",
        "class C:\n    a.b = 1",
        "class C:\n    a, b = c",
        "class C:\n    a: int = f()",
        "class C:\n    a.b: int = 1",
        "class C:\n    if a: pass",
        "class C:\n    f.g",
        "class C:\n    @d\n    def f(self): pass",
        "class C:\n    @property\n    @d\n    def f(self): pass",
        "class C:\n    def f(self, x=g()): pass",
        "a = f()",
        "a = (b := 1)",
        "a.b = 1",
        "a = b.c = 1",
        "a, b = 1, 2",
        "a: int = f()",
        "a.b: int = 1",
        "a += 1",
        "a[0] = 1",
        "del a",
        "if a: b = 1",
        "print(1)",
    ],
)
def test_what_may_have_an_effect_stays(statement: str) -> None:
    assert leaving(f"{statement}\n{NET}") == []


@pytest.mark.parametrize("word", ["__init_subclass__", "__subclasses__"])
def test_classes_stay_where_something_may_look_at_all_of_them(word: str) -> None:
    assert leaving(f"class C:\n    pass\ndef f():\n    pass\n{NET}") == ["class C:\n    pass", "def f():\n    pass"]
    assert leaving(f"class C:\n    pass\ndef f():\n    pass\n{NET.replace('pass', f'self.{word}')}") == [
        "def f():\n    pass"
    ]


CHAIN = '''
import os, re, math
from a import b, c as d
import sys
import copy, json
from e import *

def used():
    """A helper, lonely and unused."""
    return helper(by=keyword) + re

def helper():
    return self.attribute
def keyword(): pass
def attribute(): pass
def method(): pass
def strung(): pass
def shared(): pass
def effect(): return os
def unused(): return other
def other(): return math
def lonely(): return lonely
async def waiting(): pass
NAMES = {'a strung name': 1}

class Net:
    def method(self):
        global shared
        return used(), NAMES, d, copy, json

print(effect)
'''


def test_what_net_or_an_effect_mentions_stays_with_all_that_it_mentions() -> None:
    found = look(CHAIN)
    assert [node.names[0].name if isinstance(node, ast.Import) else node.name for node in found.unneeded] == [
        "sys",
        "unused",
        "other",
        "lonely",
        "waiting",
    ]
    imports = [(ast.unparse(node), [ast.unparse(name) for name in names]) for node, names in found.imports]
    assert imports == [("import os, re, math", ["os", "re"]), ("from a import b, c as d", ["c as d"])]
    assert found.scripts is False


TRAINED = """
class Base: pass
def rate(): pass

class Net{bases}:
    def forward(self): {forward}
    def train_setup(self, prm): rate()
    {decorator}
    def learn(self, data{default}): pass
"""


def trained(
    bases: str = "(Module)", forward: str = "pass", decorator: str = "", default: str = "", head: str = ""
) -> set[str]:
    source = TRAINED.format(bases=bases, forward=forward, decorator=decorator, default=default)
    return {getattr(node, "name", "") for node in look(head + source).unneeded} - {"Base"}


def test_training_methods_leave_with_what_only_they_use() -> None:
    every = {"train_setup", "learn", "rate"}
    assert trained() == trained(default="=3") == trained(bases="(Base)") == every
    assert trained(forward="self.learn") == every - {"learn"}
    assert trained(forward="self.train_setup") == {"learn"}
    assert trained(forward="return 'train_setup'") == {"learn"}
    # A hook may look at the methods of a class that derives from one of the source.
    assert trained(forward="self.__subclasses__", bases="(Module, abc.Base)") == every
    assert trained(forward="self.__subclasses__", bases="(Module, Base)") == set()


@pytest.mark.parametrize(
    "changed",
    [
        {"bases": "(metaclass=Meta)"},
        {"decorator": "@wrapped"},
        {"default": "=f()"},
        {"head": "@wrapped"},
    ],
    ids=str,
)
def test_training_methods_stay_where_they_or_the_class_may_act(changed: dict[str, str]) -> None:
    if "head" in changed:
        source = TRAINED.format(bases="", forward="pass", decorator="", default="")
        found = look(source.replace("class Net", "@wrapped\nclass Net"))
        assert [getattr(node, "name", "") for node in found.unneeded] == ["Base"]
    else:
        assert trained(**changed) == set()


def test_a_class_keeps_one_statement_at_least() -> None:
    methods = "    def learn(self, data): pass\n    def train_setup(self, prm): pass\n"
    assert leaving(f"class Net:\n{methods}") == []
    assert len(leaving(f"class Net:\n    'Text.'\n{methods}")) == 2
    assert leaving(f"class Other:\n    'Text.'\n{methods}print(Other)\n") == []


STUBS = """
class Net:

    @torch.jit._overload_method
    def forward(self, x: int):
        pass

    @torch.jit._overload_method
    def other(self, x: int):
        pass

    def forward(self, x):
        {forward}
    forward.other = 1

    def unlike(self):
        pass
"""


def test_stubs_for_torchscript_leave_a_source_that_scripts_nothing() -> None:
    stub = "@torch.jit._overload_method\ndef forward(self, x: int):\n    pass"
    assert leaving(STUBS.format(forward="pass")) == [stub]
    for word in ("script", "script_method", "trace", "trace_module"):
        found = look(STUBS.format(forward=f"torch.jit.{word}(x)"))
        assert (found.scripts, found.unneeded) == (True, [])
