"""Tidied code computes what the family's code computes."""

from __future__ import annotations

import ast
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nngen.assembly.expert import transform
from nngen.assembly.tidy import tidy
from nngen.assembly.wrapping import wrap_lines
from nngen.types import Family

CASES = {
    "super": (
        """
        class A(B):
            def __init__(self):
                super(A, self).__init__()
            def f(this):
                return super(A, this).f()
        """,
        """
        class A(B):
            def __init__(self):
                super().__init__()
            def f(this):
                return super().f()
        """,
    ),
    "super of another class, another object, or inside a function of a method, stays": (
        """
        class A(B):
            def __init__(self, x):
                super(B, self).__init__()
                super(A, x).__init__()
                def inner():
                    super(A, self).f()
                inner()
        """,
        None,
    ),
    "else after return": (
        """
        def f(x):
            # first
            if x > 1:
                return 1
            # second
            elif x > 0:
                raise ValueError
            # third
            else:
                # inside
                y = 2
                return y
        """,
        """
        def f(x):
            # first
            if x > 1:
                return 1
            # second
            if x > 0:
                raise ValueError
            # third
            # inside
            y = 2
            return y
        """,
    ),
    "else after what may go on stays": (
        """
        def f(x):
            if x:
                g()
            else:
                return 1
            for i in x:
                if i:
                    continue
                else:
                    g()
        """,
        None,
    ),
    "overloads for TorchScript": (
        """
        class A(B):
            @torch.jit._overload_method
            def f(self, x: int): pass
            def f(self, x): return x
        """,
        """
        class A(B):
            def f(self, x): return x
        """,
    ),
    "a parameter that hides a builtin, in two functions alike": (
        """
        def f(input):
            def g(x):
                return input + x
            return g(input)
        def h(input):
            return input
        """,
        """
        def f(inputs):
            def g(x):
                return inputs + x
            return g(inputs)
        def h(inputs):
            return inputs
        """,
    ),
    "a name that is taken": (
        """
        def f(input, inputs):
            return input + inputs
        """,
        """
        def f(inputs_2, inputs):
            return inputs_2 + inputs
        """,
    ),
    "what a caller may use by keyword stays": (
        """
        class A(B):
            def __init__(self, input, unused):
                self.x = input
        def f(input): return input
        f(input=1)
        """,
        None,
    ),
    "what a string or a pattern spells stays": (
        """
        def f(BIG):
            return "BIG"
        def g(x):
            match x:
                case [Big]:
                    return Big
        """,
        None,
    ),
    "locals and what is never used": (
        """
        def f(x):
            B, C = x.shape
            HalfWidth = B // 2
            for name, layer in x:
                g(layer)
            return [N for N in range(HalfWidth)]
        """,
        """
        def f(x):
            b, _c = x.shape
            half_width = b // 2
            for _name, layer in x:
                g(layer)
            return [N for N in range(half_width)]
        """,
    ),
    "where names can be looked up, they stay": (
        """
        def f(BIG):
            return locals()
        """,
        None,
    ),
    "globals and attributes stay": (
        """
        def f(self):
            global Made
            Made = 1
            self.Weight = 2
        """,
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_before_and_after(name: str) -> None:
    before, after = CASES[name]
    assert tidy(dedent(before).lstrip("\n")) == dedent(after or before).lstrip("\n")


@pytest.mark.parametrize("name", CASES)
def test_tidy_code_is_left_alone(name: str) -> None:
    once = tidy(dedent(CASES[name][0]).lstrip("\n"))
    assert tidy(once) == once


def test_long_lines_break_inside_brackets() -> None:
    items = ", ".join(f"argument_{n}=function(value_{n}, [1, 2])" for n in range(4))
    source = f"class A:\n    def f(self):\n        return call({items})  # why it is so\n"
    wrapped = wrap_lines(source)
    assert max(map(len, wrapped.splitlines())) <= 120
    assert ast.dump(ast.parse(wrapped)) == ast.dump(ast.parse(source))
    assert (
        "        # why it is so\n        return call(\n            argument_0=function(value_0, [1, 2]),\n" in wrapped
    )


words = st.sampled_from(["alpha", "beta", "f(gamma, delta)", "[1, (2, 3)]", "{'k': 'a, b ( c'}", "(yes for yes in x)"])


@given(st.lists(words, min_size=1, max_size=40), st.sampled_from(["call({})", "x = [{}]", "x[{}] = y({})", "'{}'"]))
def test_wrapping_never_changes_the_tree(items: list[str], frame: str) -> None:
    joined = ", ".join(items)
    if frame == "'{}'":
        joined = joined.replace("'", "")
    source = f"if z:\n    {frame.replace('{}', joined)}\n"
    assert ast.dump(ast.parse(wrap_lines(source))) == ast.dump(ast.parse(source))


def test_lines_inside_of_strings_are_left_alone() -> None:
    source = f'x = """\n{"word (a, b) " * 30}\n"""\n'
    assert wrap_lines(source) == source


@pytest.mark.usefixtures("wheel")
def test_real_families_stay_themselves(families: dict[str, Family]) -> None:
    for name in ("ComplexNet", "DenseNet", "SwinTransformer", "MobileNetV3"):
        body = transform(families[name]).body
        assert tidy(body) == body, name
        assert "_overload_method" not in body
        assert "super(" not in body.replace("super()", "")
