"""What counts as a change of a module or class that all code of a process uses."""

from __future__ import annotations

import functools
import sys
import warnings
from types import ModuleType

import pytest
import torch

from nngen.families import process_state
from nngen.families.process_state import ProcessState


def one() -> None:
    """Stand for a function of a family."""


def other() -> None:
    """Stand for another."""


def replaced(before: dict[str, object], now: dict[str, object], name: str = "torch.made") -> list[str]:
    module = ModuleType(name)
    vars(module).update(now)
    return list(process_state._replaced(module, vars(ModuleType(name)) | before))


@pytest.mark.parametrize(
    ("before", "now", "in_public", "in_private"),
    [
        ({"a": one}, {"a": one}, [], []),
        ({"a": one}, {"a": other}, ["a"], ["a"]),
        ({"a": one}, {"a": torch.nn.ReLU}, ["a"], ["a"]),
        ({"a": one}, {"a": 3}, ["a"], ["a"]),
        ({"a": one}, {}, ["a"], ["a"]),
        ({"a": 1}, {"a": 2}, [], []),  # a counter
        ({"a": 1}, {"a": 2.0}, ["a"], []),
        ({"a": 1.0}, {"a": 2}, ["a"], []),
        ({"a": True}, {"a": False}, ["a"], []),
        ({"a": "x"}, {}, ["a"], []),
        ({"a": 1.0}, {"a": other}, ["a"], []),
        ({"_a": 1.0}, {"_a": 2.0}, [], []),
        ({"_a": one}, {"_a": other}, ["_a"], ["_a"]),
        ({"_a": one}, {"_a": torch.nn.ReLU}, [], []),
        ({"_a": one}, {"_a": functools.partial(torch.relu)}, ["_a"], ["_a"]),
        ({}, {"b": other, "a": other}, ["a", "b"], ["a", "b"]),
        ({}, {"a": 3}, ["a"], []),
        ({}, {"_a": 3}, [], []),
        ({}, {"_a": other}, ["_a"], ["_a"]),
        ({}, {"__a": other}, [], []),
        ({}, {"a": torch.nn.ReLU}, [], []),
        ({}, {"a": torch.relu}, [], []),
        ({}, {"a": functools.partialmethod(torch.relu)}, ["a"], []),
        ({}, {"a": functools.partial(torch.relu)}, ["a"], ["a"]),
        ({}, {"a": ModuleType("a")}, [], []),
    ],
)
def test_what_a_family_may_not_change(
    before: dict[str, object], now: dict[str, object], in_public: list[str], in_private: list[str]
) -> None:
    assert replaced(before, now) == in_public
    for name in ("torch._made", "torch._made.x", "_torch.made"):
        assert replaced(before, now, name) == in_private


def test_modules_and_their_own_classes_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own:
        size = 1.5

    class Foreign:
        pass

    Own.__module__, Own.__qualname__ = "torch.made", "Own"
    made, again = ModuleType("torch.made"), ModuleType("numpy.again")
    for module in (made, again):
        vars(module).update(Own=Own, Foreign=Foreign, own=Own())
    monkeypatch.setattr(
        sys,
        "modules",
        {"torch.made": made, "numpy.again": again, "torch.none": None, "torchy": ModuleType("torchy")},
    )
    assert list(process_state._owners()) == [made, Own, again]
    before = ProcessState()
    assert before.changes() == ()
    monkeypatch.setattr(Own, "size", 2.5)
    made.Foreign = 3
    again.Foreign = 3
    assert before.changes() == ("torch.made.Foreign", "torch.made.Own.size", "numpy.again.Foreign")


def test_behaviour_of_the_process_is_compared() -> None:
    before = ProcessState()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert before.changes() == ("torch.autocast",)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        assert before.changes() == ()
        warnings.simplefilter("error", ResourceWarning)
        assert before.changes() == ("warnings.filters",)
    hook = torch.nn.modules.module.register_module_forward_pre_hook(lambda *_: None)
    assert before.changes() == ("the hooks of all modules",)
    hook.remove()
    assert before.changes() == ()


def test_a_function_that_torch_wrapped_is_its_own() -> None:
    wrapped = torch.compiler.disable(one)
    assert process_state._wrapped_by_torch(wrapped, one)
    assert not process_state._wrapped_by_torch(wrapped, other)
    assert not process_state._wrapped_by_torch(functools.wraps(one)(lambda: None), one)
    assert not process_state._wrapped_by_torch(3, one)
    assert not process_state._wrapped_by_torch(one, one)
