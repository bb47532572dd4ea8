"""Arguments behind the fifth are named where every call is seen, and nowhere else."""

from __future__ import annotations

from textwrap import dedent

import libcst as cst
import pytest
from torch import nn

from nngen.assembly.tidying.keywords import name_arguments
from nngen.assembly.tidying.routines import PYTORCH

CASES = {
    "a function, a class, and a class that another comes from": (
        """
        def f(a, b, c, d, e, g, h=1): return a
        torch.fx.wrap("f")
        f(1, 2, 3, 4, 5, 6, 7)
        f(1, 2, 3, 4, 5, g=6)
        class A(nn.Module):
            def __init__(
                self,
                a,
                b,
                c,
                d,
                e,
                g,
            ):
                super().__init__()
        class B(A):
            def __init__(self):
                super().__init__(1, 2, 3, 4, 5, 6)
        """,
        """
        def f(a, b, c, d, e, *, g, h=1): return a
        torch.fx.wrap("f")
        f(1, 2, 3, 4, 5, g=6, h=7)
        f(1, 2, 3, 4, 5, g=6)
        class A(nn.Module):
            def __init__(
                self,
                a,
                b,
                c,
                d,
                e,
                *,
                g,
            ):
                super().__init__()
        class B(A):
            def __init__(self):
                super().__init__(1, 2, 3, 4, 5, g=6)
        """,
    ),
    "methods": (
        """
        class A(nn.Module):
            def make(self, a, b, c, d, e, g): return a
            @staticmethod
            def build(a, b, c, d, e, g): return a
            @classmethod
            def of(cls, a, b, c, d, e, g): return cls()
            def forward(self, a, b, c, d, e, g):
                return self.make(1, 2, 3, 4, 5, 6) + A.build(1, 2, 3, 4, 5, 6) + A.of(1, 2, 3, 4, 5, 6)
        """,
        """
        class A(nn.Module):
            def make(self, a, b, c, d, e, *, g): return a
            @staticmethod
            def build(a, b, c, d, e, *, g): return a
            @classmethod
            def of(cls, a, b, c, d, e, *, g): return cls()
            def forward(self, a, b, c, d, e, g):
                return self.make(1, 2, 3, 4, 5, g=6) + A.build(1, 2, 3, 4, 5, g=6) + A.of(1, 2, 3, 4, 5, g=6)
        """,
    ),
    "through variables, parameters, attributes and partials": (
        """
        class A(nn.Module):
            def __init__(self, a, b, c, d, e, g): pass
        class B(nn.Module):
            def __init__(self, a, b, c, d, e, g, h=0): pass
        class Net(nn.Module):
            def __init__(self, given):
                kind: Optional[A] = None
                if kind is None:
                    kind = A
                self.other = B if given else A
                self.build(kind)
                self.made = partial(B, h=1)
            def build(self, block):
                assert isinstance(block, (A, B))
                block(1, 2, 3, 4, 5, 6)
                self.other(1, 2, 3, 4, 5, 6)
                self.made(1, 2, 3, 4, 5, 6)
        """,
        """
        class A(nn.Module):
            def __init__(self, a, b, c, d, e, *, g): pass
        class B(nn.Module):
            def __init__(self, a, b, c, d, e, *, g, h=0): pass
        class Net(nn.Module):
            def __init__(self, given):
                kind: Optional[A] = None
                if kind is None:
                    kind = A
                self.other = B if given else A
                self.build(kind)
                self.made = partial(B, h=1)
            def build(self, block):
                assert isinstance(block, (A, B))
                block(1, 2, 3, 4, 5, g=6)
                self.other(1, 2, 3, 4, 5, g=6)
                self.made(1, 2, 3, 4, 5, g=6)
        """,
    ),
    "what may be called from elsewhere stays": (
        """
        def f(a, b, c, d, e, g): return a
        kept = [f]
        def h(a, b, c, d, e, g): return a
        torch.compile(h)
        def i(a, b, c, d, e, g): return a
        i(*items)
        def j(a, b, c, d, e, g): return a
        call("j")
        def k(a, b, c, d, e, g): return a
        def back(): return k
        def m(a, b, c, d, e, g): return a
        partial(m, 1, 2)
        @wrapped
        def n(a, b, c, d, e, g): return a
        def o(a, b, c, d, e, *g): return a
        """,
        None,
    ),
    "what PyTorch calls stays": (
        """
        class A(nn.Module):
            def _load_from_state_dict(self, a, b, c, d, e, g, h):
                super()._load_from_state_dict(a, b, c, d, e, g, h)
        class B(Unknown):
            def method(self, a, b, c, d, e, g): pass
        """,
        None,
    ),
    "calls that may reach two with other names, or something else": (
        """
        class A(nn.Module):
            def __init__(self, a, b, c, d, e, g): pass
        class B(nn.Module):
            def __init__(self, a, b, c, d, e, other): pass
        class C(nn.Module):
            def __init__(self, a, b, c, d, e, g): pass
        def f(kind):
            block = A if kind else B
            block(1, 2, 3, 4, 5, 6)
            layer = C if kind else nn.Conv2d
            layer(1, 2, 3, 4, 5, 6)
        """,
        None,
    ),
    "what a network is called with may be anything": (
        """
        class A(nn.Module):
            def __init__(self, a, b, c, d, e, g): pass
        class Net(nn.Module):
            def __init__(self, in_shape, out_shape, prm, device, kind=A, more=1):
                kind(1, 2, 3, 4, 5, 6)
        """,
        None,
    ),
    "where classes are taken from objects": (
        """
        class A(nn.Module):
            def __init__(self, a, b, c, d, e, g): pass
            def copy(self):
                return type(self)(1, 2, 3, 4, 5, 6)
        """,
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_before_and_after(name: str) -> None:
    before, after = (text and dedent(text).lstrip("\n") for text in CASES[name])
    assert before is not None
    once = name_arguments(cst.parse_module(before)).code
    assert once == (after or before)
    assert name_arguments(cst.parse_module(once)).code == once


def test_methods_of_modules_are_known() -> None:
    """A family's method of such a name may be called by PyTorch, with its arguments by place."""
    methods = {name for name in dir(nn.Module) if not name.startswith("__")}
    assert methods <= PYTORCH
