"""Comparison of a family with its expert: what counts as equal, how a difference is named, and the step of training."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from family_cases import family_source

from nngen.checks.rule import CheckFailed
from nngen.families import proof
from nngen.families.catalogue import make_family
from nngen.families.family_function import family_function
from nngen.families.proof import prove
from nngen.families.subject import FamilyUnderTest
from nngen.types import Adapter, Outcome, Shape

NAN = float("nan")
Pair = namedtuple("Pair", "one other")  # a tuple as torch's own results are


def named(name: str) -> object:
    return type(name, (), {})()


EQUAL = {
    "numbers": (1, 1),
    "texts": ("a", "a"),
    "nothing": (None, None),
    "not a number": (torch.tensor([NAN, 1.0]), torch.tensor([NAN, 1.0])),
    "objects of classes of one name": (named("Own"), named("Own")),
    "nested": ({"a": [torch.ones(2), (1, None)]}, {"a": [torch.ones(2), (1, None)]}),
    "sparse": (torch.eye(2).to_sparse(), torch.eye(2).to_sparse()),
    "tuples with names": (Pair(torch.ones(1), 2), Pair(torch.ones(1), 2)),
    "whole numbers": (torch.tensor([1, 2]), torch.tensor([1, 2])),
    "of a class and with gradients": (
        torch.ones(2, requires_grad=True).as_subclass(type("T", (torch.Tensor,), {})),
        torch.ones(2).as_subclass(type("T", (torch.Tensor,), {})),
    ),
}
DIFFERENT = {
    "numbers": (1, 2),
    "types of numbers": (1, 1.0),
    "truth and numbers": (True, 1),
    "texts": ("a", "b"),
    "nothing and zero": (None, 0),
    "values": (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0000002])),
    "not a number": (torch.tensor([NAN]), torch.tensor([1.0])),
    "a number and none": (torch.tensor([1.0]), torch.tensor([NAN])),
    "types": (torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64)),
    "shapes": (torch.ones(1, 2), torch.ones(2, 1)),
    "shapes that broadcast": (torch.ones(2), torch.ones(1)),
    "layouts": (torch.eye(2), torch.eye(2).to_sparse()),
    "sparse values": (torch.eye(2).to_sparse(), (2 * torch.eye(2)).to_sparse()),
    "a tensor and a number": (torch.tensor(1), 1),
    "classes": (named("Own"), named("Other")),
    "lengths": ([1, 2], [1]),
    "later entries": ([1, 2], [1, 3]),
}


@pytest.mark.parametrize("name", EQUAL)
def test_observations_that_are_equal_to_the_last_bit(name: str) -> None:
    assert proof._same(*EQUAL[name])


@pytest.mark.parametrize("name", DIFFERENT)
def test_observations_that_differ(name: str) -> None:
    one, other = DIFFERENT[name]
    assert not proof._same(one, other) and not proof._same(other, one)


def difference(one: object, other: object) -> str:
    with pytest.raises(proof._DifferenceFound) as found:
        proof._compare("parts", [one, other])
    verdict = found.value.verdict
    assert (verdict.outcome, verdict.rule) == (Outcome.CONTRACT, "probe")
    assert verdict.message == f"it is another network inside a function: {found.value.what}"
    return found.value.what


def test_a_difference_names_what_differs() -> None:
    for equal in ((1, 1), ({"a": 1}, {"a": 1}), ({}, {}), ([torch.ones(1)], [torch.ones(1)])):
        proof._compare("parts", equal)
    assert difference([1], [2]) == "its parts differ"
    assert difference({"a": 1, "b": 2}, {"a": 1, "b": 3}) == "its parts differ (b)"
    assert difference({"a": 1, "b": 2}, {"b": 2, "a": 1}) == "its parts differ (their order)"
    assert difference({"a": 1}, {"a": 1, "b": 2}) == "its parts differ (b)"
    assert difference({"a": 1, "b": 2}, {"a": 1}) == "its parts differ (b)"
    assert difference(dict.fromkeys("abc", 1), dict.fromkeys("abc", 2)) == "its parts differ (a, b and c)"
    assert difference(dict.fromkeys("abcd", 1), dict.fromkeys("abcd", 2)) == "its parts differ (a, b and 2 more)"
    assert difference({"x" * 101: 1}, {}) == f"its parts differ ({'x' * 99}…)"


def proven(source: str, folder: Path, adapter: Adapter) -> tuple[proof.Proof, FamilyUnderTest]:
    path, expert = folder / "alone.py", folder / "expert.py"
    path.write_text(source)
    expert.write_text(f"from functools import cache\n\n\n{family_function(make_family('Toy', source)).text('family')}")
    family = FamilyUnderTest(path=path, net=torch.nn.Module, hyperparameters={"lr": 1}, channels=3, classes=10)
    return prove(family, expert, adapter, Shape(3, 9, 12)), family


def test_the_proof_ends_with_one_step_of_training_on_its_images(tmp_path: Path) -> None:
    source = family_source("import numpy as np, random\n", "self.drawn = random.random(), np.random.rand()")
    found, _ = proven(source, tmp_path, Adapter(size=(6, 8)))
    torch.manual_seed(7)
    images = torch.nn.functional.interpolate(torch.rand(2, 3, 9, 12), (6, 8), mode="bilinear", align_corners=False)
    assert torch.equal(found.images, images)
    space: dict[str, type[torch.nn.Module]] = {}
    exec(source, space)
    torch.manual_seed(7)
    net = space["Net"]((1, 3, 6, 8), (10,), {}, torch.device("cpu"))
    for parameter, trained in zip(net.parameters(), found.net.parameters(), strict=True):
        assert trained.grad is not None and trained.grad.count_nonzero()
        torch.testing.assert_close(trained.detach(), parameter.detach() - 0.01 * trained.grad, rtol=0, atol=1e-7)
    assert found.net.drawn == (0.32383276483316237, np.random.RandomState(7).rand())
    facts = found.seeds, found.settings, found.changes_input, found.stochastic, found.own_settings
    assert facts == (False,) * 5
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("init", "forward", "facts"),
    [
        ("torch.manual_seed(1)", "pass", (True, False, False, False, True)),
        ("torch.backends.cudnn.benchmark = True", "pass", (False, True, False, False, True)),
        ("pass", "torch.backends.cudnn.benchmark = True", (False, True, False, False, True)),
        ("pass", "x.add_(1)", (False, False, True, False, True)),
        ("pass", "x = x + torch.rand(())", (False, False, False, True, False)),
        ("pass", "x = x + random.random()", (False, False, False, True, False)),
        ("pass", "x = x + (torch.rand(()) if self.training else 0)", (False, False, False, False, False)),
    ],
)
def test_facts_about_a_family_are_told_apart(init: str, forward: str, facts: tuple[bool, ...], tmp_path: Path) -> None:
    source = family_source("import random", init).replace(
        "        x = torch.relu", f"        {forward}\n        x = torch.relu"
    )
    found, _ = proven(source, tmp_path, Adapter())
    assert (found.seeds, found.settings, found.changes_input, found.stochastic, found.own_settings) == facts


@pytest.mark.parametrize(
    ("init", "forward", "message"),
    [
        ("raise ValueError('no')", "pass", "line 14: ValueError: no, while Net was built for 9x12"),
        ("pass", "x = x / 0 if self.training else x", "logits are not finite in training mode"),
        ("pass", "x = x if self.training else x / 0", "logits are not finite in evaluation mode"),
        ("pass", "return (self.fc(x.mean((2, 3)).repeat(1, 3)[:, :8]) * 0)", "no parameter received a gradient"),
        (
            "pass",
            "random.seed(1)",
            "it seeds the generators in its forward pass: all other experts would draw the same numbers again",
        ),
    ],
)
def test_a_family_that_fails_has_a_verdict(init: str, forward: str, message: str, tmp_path: Path) -> None:
    head = "import random" if "random" in forward else ""
    source = family_source(head, init).replace("        x = torch.relu", f"        {forward}\n        x = torch.relu")
    with pytest.raises(CheckFailed) as failed:
        proven(source, tmp_path, Adapter())
    assert failed.value.verdict.message == message
