"""Tidied code computes what the family's code computes."""

from __future__ import annotations

import ast
from textwrap import dedent

import pytest
from assembly_toys import as_expert
from hypothesis import given
from hypothesis import strategies as st

from nngen.assembly.expert import transform
from nngen.assembly.tidying.tidy import tidy
from nngen.assembly.tidying.wrapping import wrap_lines
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
                return
            for i in x:
                if i:
                    continue
                else:
                    g()
        """,
        None,
    ),
    "the end of what returns something elsewhere": (
        """
        def f(x):
            for i in x:
                if i:
                    return i
        def g(x):
            if x:
                return
            for i in x:
                def inner():
                    return i
                inner()
        def h(x):
            if x:
                return 1
            else:
                g(x)
        def k(x):
            for i in x:
                yield i
            if x:
                return x
        """,
        """
        def f(x):
            for i in x:
                if i:
                    return i
            return None
        def g(x):
            if x:
                return
            for i in x:
                def inner():
                    return i
                inner()
        def h(x):
            if x:
                return 1
            g(x)
        def k(x):
            for i in x:
                yield i
            if x:
                return x
        """,
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
    "globals stay": (
        """
        def f():
            global Made
            Made = 1
        """,
        None,
    ),
    "attributes that are seen everywhere": (
        """
        class A(nn.Module):
            def __init__(self):
                super().__init__()
                self.Weight_mu = nn.Parameter(x)
            def forward(self, x):
                self.Sigma = self.Weight_mu + x
                self.scale, self.Weight_mu.data = 1, x
                return self.Sigma
        """,
        """
        class A(nn.Module):
            def __init__(self):
                super().__init__()
                self.scale = None
                self.sigma = None
                self.weight_mu = nn.Parameter(x)
            def forward(self, x):
                self.sigma = self.weight_mu + x
                self.scale, self.weight_mu.data = 1, x
                return self.sigma
        """,
    ),
    "attributes that something else may know stay": (
        """
        class A(nn.Module):
            Shared = None
            def __init__(self, other):
                super().__init__()
                self.Read = other.Read
                self.Spelled = getattr(self, "Spelled")
                self.Taken = self.taken = 1
                self.T = self.training
                self.Shared = 2
        """,
        None,
    ),
    "what a base may set while it is made is not declared": (
        """
        class A(nn.Module):
            def __init__(self):
                super().__init__()
                self.start()
        class B(A):
            def __init__(self):
                super().__init__()
            def start(self):
                self.begun = 1
        class C(nn.Linear):
            def __init__(self):
                super().__init__(1, 2)
            def forward(self, x):
                self.last = x
        class D(nn.Module):
            def forward(self, x):
                self.seen = x
        """,
        None,
    ),
    "attributes that nothing reads": (
        """
        class ANet(nn.Module):
            def __init__(self, in_shape, out_shape, prm, device):
                super().__init__()
                classes = out_shape[0]
                self.device = device
                self.classes = classes
                self.rate = prm["lr"]
                self.layer = nn.Linear(in_shape[1], classes)
            def forward(self, x):
                return self.layer(x)
        class B(nn.Module):
            def __init__(self, width: int, stride=1):
                super().__init__()
                self.width = width
                self.stride = stride
                self.middle = stride / 2
                self.depth = 3
                self.layer = nn.Linear(width, 1)
        """,
        """
        class ANet(nn.Module):
            def __init__(self, in_shape, out_shape, _prm, device):
                super().__init__()
                self.device = device
                self.layer = nn.Linear(in_shape[1], out_shape[0])
            def forward(self, x):
                return self.layer(x)
        class B(nn.Module):
            def __init__(self, width: int, stride=1):
                super().__init__()
                self.stride = stride
                self.middle = stride / 2
                self.layer = nn.Linear(width, 1)
        """,
    ),
    "attributes that may be read or hold weights stay": (
        """
        class A(nn.Module):
            kind = None
            def __init__(self, part, width: int, device: int):
                super().__init__()
                self.device = device
                self.part = part
                self.width = width
                self.kind = 1
                self.spelled = 2
                self.other = 3
                self.weight = nn.Parameter(x)
                self.norm = None
            def forward(self, x):
                self.norm = x
                return getattr(self, "spelled") + x.other + x.width
        class B(nn.Conv2d):
            def __init__(self):
                super().__init__(1, 1, 1)
                self.groups = 1
        """,
        None,
    ),
    "plainer words": (
        """
        def f(x, items):
            if isinstance(x, A) or isinstance(x, (B, C)):
                y = "{}.{}".format(x, items + 1) + "unit%d" % (x + 1) + "%d" % x + "%d{" % (x + 1)
            if x is None:
                raise Exception("none")
            for type in items:
                g(type)
            if isinstance(x, A) or isinstance(items, B):
                y = "{0} {}".format(x)
                y += "{} {}".format(x["a"], 1)
                y += "{}{{".format(x) + "{:d}".format(x)
            torch._assert(x.dim() == 4, f"{x} has other axes")
            items.append(x),
            g(x), g(y)
            torch._assert(x.dim() == 4, "an image "
                                        "has other axes")
            if not (len(x) ==
                    4): return None
            if not x < 4 and not x == y == 4: g(x); g(y)
            return all([g(item) for item in items]), any(items), y
        """,
        """
        def f(x, items):
            if isinstance(x, (A, B, C)):
                y = f"{x}.{items + 1}" + f"unit{int(x + 1)}" + "%d" % x + "%d{" % (x + 1)
            if x is None:
                raise RuntimeError("none")
            for types in items:
                g(types)
            if isinstance(x, A) or isinstance(items, B):
                y = "{0} {}".format(x)
                y += "{} {}".format(x["a"], 1)
                y += "{}{{".format(x) + "{:d}".format(x)
            assert x.dim() == 4, f"{x} has other axes"
            items.append(x)
            g(x), g(y)
            assert x.dim() == 4, ("an image "
                                        "has other axes")
            if len(x) != 4:
                return None
            if not x < 4 and not x == y == 4:
                g(x)
                g(y)
            return all(g(item) for item in items), any(items), y
        """,
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


def test_long_lines_inside_of_a_bracket_break_at_its_commas() -> None:
    items = ", ".join(f"argument_{n}: Tuple[int, int] = (1, 2)" for n in range(4))
    source = f"def f(\n    {items},\n    last: int = 0\n):\n    pass\n"
    wrapped = wrap_lines(source)
    assert "    argument_0: Tuple[int, int] = (1, 2),\n    argument_1" in wrapped
    assert max(map(len, wrapped.splitlines())) <= 120
    assert ast.dump(ast.parse(wrapped)) == ast.dump(ast.parse(source))


words = st.sampled_from(["alpha", "beta", "f(gamma, delta)", "[1, (2, 3)]", "{'k': 'a, b ( c'}", "(yes for yes in x)"])


@given(
    st.lists(words, min_size=1, max_size=40),
    st.sampled_from(["call({})", "x = [{}]", "x[{}] = y({})", "'{}'", "call(\n{},\n)"]),
)
def test_wrapping_never_changes_the_tree(items: list[str], frame: str) -> None:
    joined = ", ".join(items)
    if frame == "'{}'":
        joined = joined.replace("'", "")
    source = f"if z:\n    {frame.replace('{}', joined)}\n"
    assert ast.dump(ast.parse(wrap_lines(source))) == ast.dump(ast.parse(source))


def test_lines_inside_of_strings_are_left_alone() -> None:
    source = f'x = """\n{"word (a, b) " * 30}\n"""\n'
    assert wrap_lines(source) == source


def test_what_tidying_leaves_without_a_use_is_left_out() -> None:
    expert = as_expert(
        """
        from typing import Optional
        import torch.nn as nn
        class Part(nn.Module):
            pass
        class Other(nn.Module):
            def __init__(self):
                super().__init__()
                self.part = Part()
        class Net(nn.Module):
            def __init__(self, in_shape, out_shape, prm, device):
                super().__init__()
                other: Optional[nn.Module] = None
                if other is not None:
                    self.other = Other()
                self.layer = nn.Linear(in_shape[1], out_shape[0])
        """
    )
    assert expert.names == ("ToyNet",)
    assert [item.bound for item in expert.imports] == ["nn"]
    assert expert.body.startswith("class ToyNet(nn.Module):\n")


@pytest.mark.usefixtures("wheel")
def test_real_families_stay_themselves(families: dict[str, Family]) -> None:
    for name in ("ComplexNet", "DenseNet", "SwinTransformer", "MobileNetV3", "RegNet"):
        body = transform(families[name]).body
        assert tidy(body) == body, name
        assert "_overload_method" not in body
        assert "super(" not in body.replace("super()", "")
