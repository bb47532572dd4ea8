"""A family as a function: equal to the family alone, or refused with its line."""

from __future__ import annotations

import ast
from textwrap import dedent

import pytest
from family_cases import REFUSED, family_source

from nngen.errors import AssemblyError
from nngen.families.catalogue import make_family
from nngen.families.family_function import FamilyFunction, family_function, function_name


def as_function(source: str) -> FamilyFunction:
    return family_function(make_family("Toy", source))


@pytest.mark.parametrize("name", REFUSED)
def test_a_family_that_needs_a_module_is_refused_with_its_line(name: str) -> None:
    source, message = REFUSED[name]
    with pytest.raises(AssemblyError) as caught:
        as_function(source)
    assert str(caught.value).startswith(f"Toy: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "unused",
    [
        "def factory():\n    return eval('Net')\n",
        "import timm\ndef factory():\n    return timm.create()\n",
        "def factory(name):\n    return globals()[name]()\n",
        "class Other:\n    def f(self):\n        return locals()\n",
        "if __name__ == '__main__':\n    import timm\n    print(globals())\n",
    ],
)
def test_code_that_nothing_needs_is_not_refused(unused: str) -> None:
    body = as_function(unused + family_source()).body
    assert not {"eval", "timm", "globals", "locals"} & {
        n.id for n in ast.walk(ast.parse(dedent(body))) if isinstance(n, ast.Name)
    }


BEFORE = '''
# -*- coding: utf-8 -*-
"""A family."""
from __future__ import annotations
import re
import torch.nn as nn, torch.fx
from torchvision.models._api import WeightsEnum
from torchvision.models._utils import _make_divisible, _ovewrite_named_param
__all__ = ["Net", "toynet"]

SCALE = 2  # a comment that stays
RATE = 0.1
cfgs = {"a": [1]}
cfgs["b"] = [2]


def rate(prm):
    return RATE * prm['lr']


def supported_hyperparameters():
    return {'lr', 'momentum'}


class Block(nn.Module):
    @torch.jit._overload_method
    def forward(self, x: list) -> int:
        pass

    def forward(self, x):
        global calls
        calls = """
one"""
        return x


class Net(nn.Module):
    width: int = 3

    def train_setup(self, prm):
        self.rate = rate(prm)

    def learn(self, train_data):
        self._one_step(train_data)

    def _one_step(self, batch):
        return re.sub("a", "b", batch)

    def forward(self, x: Later) -> "Later":
        y: Later = self.block(x)
        return _make_divisible(y) * cfgs["b"][0] * SCALE

    block = Block


torch.fx.wrap("rate")


def toynet(weights: WeightsEnum = None, **kwargs):
    _ovewrite_named_param(kwargs, "a", 1)
    return undefined_anywhere(Net(**kwargs))


if __name__ == "__main__":
    toynet()
'''
AFTER = '''
    Later: object  # bound later, if at all
    calls: object  # bound later, if at all
    # -*- coding: utf-8 -*-
    """A family."""
    import re
    import torch.nn as nn, torch.fx
    from torchvision.models._utils import _make_divisible
    SCALE = 2  # a comment that stays
    cfgs = {"a": [1]}
    cfgs["b"] = [2]


    class Block(nn.Module):
        def forward(self, x):
            nonlocal calls
            calls = """
one"""
            return x


    class Net(nn.Module):
        width: 'int' = 3

        def _one_step(self, batch):
            return re.sub("a", "b", batch)

        def forward(self, x: 'Later') -> "'Later'":
            y: Later = self.block(x)
            return _make_divisible(y) * cfgs["b"][0] * SCALE

        block = Block

    return Net
'''


def test_before_and_after() -> None:
    assert as_function(BEFORE).body == AFTER.lstrip("\n")


def test_training_methods_that_something_calls_stay() -> None:
    kept = as_function(family_source(init="self.reset = self.train_setup")).body
    assert "def train_setup" in kept and "def learn" not in kept
    assert "def learn" in as_function(family_source("NAME = 'learn'", "getattr(self, NAME)")).body


@pytest.mark.parametrize(
    "head",
    [
        "import abc\nclass Other(abc.ABC):\n    def unused(self): pass\nKINDS = [Other]\n",
        "def other():\n    pass\nNAME = 'the other'\n",
        "class Meta(type): pass\nclass Other(metaclass=Meta): pass\n",
        "@staticmethod\ndef other(): pass\n",
        "class Other:\n    made = dict()\n",
    ],
)
def test_in_doubt_code_stays(head: str) -> None:
    assert "ther" in as_function(family_source(head, "self.words = [NAME for NAME in ()]\nself.kinds = 'KINDS'")).body


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("DenseNet", "densenet"),
        ("BayesianNet-1", "bayesiannet_1"),
        ("a-b_c", "a_b_c"),
        ("3Net", "family_3net"),
        ("é", "family_"),
    ],
)
def test_a_function_s_name_is_the_family_s(family: str, name: str) -> None:
    assert function_name(family) == name
