"""The message that a worker sends about a family, from a measurement in this process."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from family_cases import family_source
from torch import nn

from nngen.families import measure
from nngen.types import Shape

SHAPE = Shape(3, 12, 12)
ARGUMENTS = {"recorded": {"lr": 0.5}, "classes": 10, "shape": str(SHAPE), "interface": None, "cost": False}
INTERFACE = {"low": 1, "high": None, "square": False, "complex": False, "hyperparameters": None}
INTERFACE |= {"own_settings": False, "channels_last": True}
COUNT = 8 * 3 * 9 + 8 + 8 * 10 + 10
ANSWER = {"interface": INTERFACE, "parameters": COUNT, "cost": None, "reason": "", "notes": [], "memory": False}


@pytest.fixture
def answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., dict[str, Any]]]:
    """Measure a source in an empty folder; return the one message that is sent."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()

    def call(source: str, **arguments: object) -> dict[str, Any]:
        Path("candidate.py").write_text(source, encoding="utf-8")
        sent: list[dict[str, Any]] = []
        measure.measure(ARGUMENTS | arguments, SimpleNamespace(send=sent.append), [])  # type: ignore[arg-type]
        assert torch.get_num_threads() == 1
        (found,) = sent
        return found

    yield call
    torch.set_num_threads(threads)


def forward(line: str) -> str:
    return family_source().replace("        x = torch.relu", f"        {line}\n        x = torch.relu")


@pytest.mark.long
@pytest.mark.parametrize(
    ("source", "changed", "interface"),
    [
        (family_source(init="assert prm['lr'] == 0.5 and prm['momentum'] == 0.9"), {}, {}),
        (family_source("torch.manual_seed(3)"), {"notes": ["seeds"]}, {"own_settings": True}),
        (
            family_source("torch.backends.cudnn.benchmark = True"),
            {"notes": ["settings"]},
            {"own_settings": True},
        ),
        (forward("x.relu_()"), {"notes": ["input"]}, {"own_settings": True}),
        (forward("x = x + torch.rand(())"), {"notes": ["draws"]}, {"channels_last": True}),
        (
            family_source(init="self.body.bias.requires_grad = False"),
            {"parameters": COUNT - 8},
            {},
        ),
        (
            family_source().replace('{"lr", "momentum"}', '{*"lr width momentum".split()}'),
            {},
            {"hyperparameters": ("lr", "momentum", "width")},
        ),
        (
            family_source().replace('{"lr", "momentum"}', '{f"n{i}" for i in range(64)}'),
            {},
            {"hyperparameters": tuple(sorted(f"n{i}" for i in range(64)))},
        ),
        (forward("x = x.contiguous(); assert x.is_contiguous()"), {}, {}),
        (forward("assert x.is_contiguous()"), {}, {"channels_last": False}),
    ],
)
def test_a_usable_family_is_sent_with_its_facts(
    source: str, changed: dict[str, object], interface: dict[str, object], answer: Callable[..., dict[str, Any]]
) -> None:
    assert answer(source) == ANSWER | changed | {"interface": INTERFACE | interface}


def test_an_interface_that_is_known_is_confirmed_only(answer: Callable[..., dict[str, Any]]) -> None:
    known = INTERFACE | {"low": 5, "high": 40}
    assert answer(family_source(), interface=known) == ANSWER | {"interface": known}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (family_source(init="raise MemoryError"), "MemoryError, while Net was built for 64x64"),
        (family_source("import pickle\n", "pickle.dumps(1)"), "import pickle is not allowed in a candidate: remove it"),
        (family_source().replace("def learn", "def fit"), "line 8: class Net has no method learn: add learn("),
        (family_source(init="import timm"), "line 14: imports timm: a mixture may only need"),
        ("class Net(", "line 1: not Python: '(' was never closed"),
        (
            family_source().replace('{"lr", "momentum"}', '{f"n{i}" for i in range(1065)}'),
            "supported_hyperparameters() names 1,065: at most 64",
        ),
        (
            family_source("torch.nn.functional.tidied = 3"),
            "it changes torch.nn.functional.tidied for all other code of a mixture",
        ),
        (
            family_source("for name in 'abcd':\n    setattr(nn.functional, f'tidied_{name}', 3)"),
            "it changes torch.nn.functional.tidied_a, torch.nn.functional.tidied_b and 2 more for all other code of a"
            " mixture",
        ),
        (
            forward("torch.nn.functional.tidied = 3"),
            "it changes torch.nn.functional.tidied for all other code of a mixture",
        ),
    ],
)
def test_a_family_that_is_refused_is_sent_with_the_reason(
    source: str, reason: str, answer: Callable[..., dict[str, Any]]
) -> None:
    try:
        found = answer(source)
    finally:
        for name in [name for name in vars(nn.functional) if name.startswith("tidied")]:
            delattr(nn.functional, name)
    assert re.sub(r"^line \d+: MemoryError", "MemoryError", found["reason"]).startswith(reason)
    later = found["interface"] is not None
    assert later == ("x = torch.relu" in source and "        torch.nn.functional.tidied" in source)
    assert found | {"reason": "", "interface": None} == ANSWER | {
        "interface": None,
        "parameters": None,
        "memory": "MemoryError" in source,
    }


def test_what_training_costs_is_sent_where_it_is_asked_for(answer: Callable[..., dict[str, Any]]) -> None:
    known = INTERFACE | {"low": 16}
    found = answer(family_source(init="assert in_shape == (1, 3, 16, 16)"), interface=known, cost=True)
    cost = found.pop("cost")
    assert found == {name: value for name, value in ANSWER.items() if name != "cost"} | {
        "interface": known,
        "parameters": None,
    }
    assert cost["weights_mib"] == COUNT * 4 / 2**20
    # Images, the convolution's output behind the rectifier, and the mean.
    assert cost["image_mib"] * 2**20 == 4 * (3 * 256 + 8 * 256 + 8)
    assert set(cost) == {"weights_mib", "image_mib", "image_s", "step_s"}
