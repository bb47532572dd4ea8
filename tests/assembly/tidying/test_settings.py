"""Settings that never change decide what they decide; the rest stays a choice."""

from __future__ import annotations

from textwrap import dedent

import libcst as cst
import pytest

from nngen.assembly.tidying.initialising import move_initialising
from nngen.assembly.tidying.settings import settle

SETTINGS = {
    "a default that is always taken": (
        """
        def f(shape, prm):
            layers: Optional[List[int]] = None
            norm: Optional[Callable] = None
            rate: float = prm["rate"]
            if norm is None:
                norm = nn.BatchNorm2d
            # how many
            if layers is None:
                layers = [2, 2]
            if not layers:
                raise ValueError("no layers")
            return g(norm(shape[0]), norm, layers, rate)
        """,
        """
        def f(shape, prm):
            # how many
            layers = [2, 2]
            return g(nn.BatchNorm2d(shape[0]), nn.BatchNorm2d, layers, prm["rate"])
        """,
    ),
    "branches, chains, and what is decided in loops": (
        """
        def f(x):
            pretty = True
            size = None
            rate = 0.75
            if rate <= 0.0:
                raise ValueError(rate)
            elif pretty and rate < 1:
                a(x)
            else:
                b(x)
            for item in x:
                if x:
                    c(item)
                elif size is not None:
                    d(item)
                else:
                    e(item)
            return x if size is None else h(x)
        """,
        """
        def f(x):
            a(x)
            for item in x:
                if x:
                    c(item)
                else:
                    e(item)
            return x
        """,
    ),
    "settings passed by their own names": (
        """
        def f():
            dim = 3
            heads: int = 2
            g(dim=dim, heads=heads)
            h(heads)
        """,
        """
        def f():
            heads: int = 2
            g(dim=3, heads=heads)
            h(heads)
        """,
    ),
    "what stands behind a return that is always taken": (
        """
        def f(x):
            simple = True
            if simple:
                return x
            return g(x)
        """,
        """
        def f(x):
            return x
        """,
    ),
    "what may be set elsewhere stays": (
        """
        def f(x, given=None):
            if given is None:
                given = 1
            count = 0
            for _ in x:
                count += 1
            last = None
            for item in x:
                if last is None:
                    last = item
            state = None
            def inner():
                nonlocal state
                state = 1
            inner()
            if state is None:
                given = 2
            return count, last, given
        """,
        None,
    ),
    "what is more than a name or an item stays": (
        """
        def f(x, prm, shape):
            total = g(x)
            half = self.width
            first = prm["first"]
            prm["first"] = 2
            channels = shape[1]
            h(shape)
            twice = x[0]
            text = x[1]
            return total, half, first, channels, twice, twice, f"{text}"
        """,
        None,
    ),
    "lists, strings and numbers compare with their own kind": (
        """
        def f(x):
            items = [1, 2]
            if items == [1, 2]:
                g(items)
            name = "a"
            if name == 1:
                g(name)
            if name == "a":
                g(name, 1)
        """,
        """
        def f(x):
            items = [1, 2]
            if items == [1, 2]:
                g(items)
            name = "a"
            if name == 1:
                g(name)
            g(name, 1)
        """,
    ),
    "generators stay": (
        """
        def f(x):
            flag = False
            if flag:
                yield x
        """,
        None,
    ),
    "where names are looked up, they stay": (
        """
        def f(x):
            flag = False
            if flag:
                g(x)
            return locals()
        """,
        None,
    ),
}

INITIALISING = {
    "a loop over all modules": (
        """
        class A(nn.Module):
            def __init__(self, width):
                super().__init__()
                self.layer = nn.Linear(width, 1)

                # as in the paper
                for m in self.modules():
                    if isinstance(m, nn.Linear):
                        bound = 1.0 / math.sqrt(m.out_features)
                        nn.init.uniform_(m.weight, -bound, bound)
                self.width = width

            def forward(self, x):
                return self.layer(x)
        """,
        """
        class A(nn.Module):
            def __init__(self, width):
                super().__init__()
                self.layer = nn.Linear(width, 1)

                # as in the paper
                self._init_weights()
                self.width = width

            def _init_weights(self) -> None:
                for m in self.modules():
                    if isinstance(m, nn.Linear):
                        bound = 1.0 / math.sqrt(m.out_features)
                        nn.init.uniform_(m.weight, -bound, bound)

            def forward(self, x):
                return self.layer(x)
        """,
    ),
    "what needs more of __init__ stays": (
        """
        class A(nn.Module):
            def __init__(self, std):
                super().__init__()
                for m in self.modules():
                    nn.init.normal_(m.weight, std=std)
        class B(nn.Module):
            def __init__(self):
                super().__init__()
                count = 0
                for m in self.modules():
                    count += 1
        class C(nn.Module):
            def __init__(self):
                super().__init__()
                for m in self.modules():
                    self.last = m
        class D(Unknown):
            def __init__(self):
                super().__init__()
                for m in self.modules():
                    nn.init.ones_(m.weight)
        """,
        None,
    ),
    "a name that is taken": (
        """
        class A(nn.Module):
            def __init__(self):
                super().__init__()
                for m in self.modules():
                    nn.init.ones_(m.weight)
            def _init_weights(self):
                pass
        """,
        None,
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_before_and_after(name: str) -> None:
    before, after = (text and dedent(text).lstrip("\n") for text in SETTINGS[name])
    assert before is not None
    once = settle(cst.parse_module(before)).code
    assert once == (after or before)
    assert settle(cst.parse_module(once)).code == once


@pytest.mark.parametrize("name", INITIALISING)
def test_initialising_before_and_after(name: str) -> None:
    before, after = (text and dedent(text).lstrip("\n") for text in INITIALISING[name])
    assert before is not None
    once = move_initialising(cst.parse_module(before)).code
    assert once == (after or before)
    assert move_initialising(cst.parse_module(once)).code == once
