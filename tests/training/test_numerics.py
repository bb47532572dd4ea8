"""Numerical settings of a worker: seeds, threads, and the precision in which nets are called."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nngen.seeds import derive
from nngen.training.worker import numerics


def test_draws_of_an_evaluation_are_its_own(training) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    def seeded(seed: int) -> tuple[float, float, float]:
        random.seed(derive(seed, "python"))
        np.random.seed(derive(seed, "numpy"))
        torch.manual_seed(derive(seed, "torch"))
        return draw()

    wanted = seeded(7)
    numerics.seed_generators(7)
    assert draw() == wanted
    numerics.seed_generators(8)
    first, second = draw(), draw()
    numerics.seed_generators(8)
    assert draw() == first
    with numerics.own_draws(7):
        assert draw() == wanted
    assert draw() == second


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_arithmetic_of_a_worker_is_set(device: str, monkeypatch: pytest.MonkeyPatch, training) -> None:
    set_: list[Any] = []
    for name in ("set_num_threads", "set_num_interop_threads"):
        monkeypatch.setattr(torch, name, lambda number, name=name: set_.append((name, number)))
    deterministic: Any = lambda *given, **named: set_.append((given, named))  # noqa: E731
    monkeypatch.setattr(torch, "use_deterministic_algorithms", deterministic)
    card = SimpleNamespace(cuda=SimpleNamespace(matmul=SimpleNamespace()), cudnn=SimpleNamespace())
    monkeypatch.setattr(torch, "backends", card)
    numerics.configure(device, 3, 7)
    assert torch.initial_seed() == derive(7, "torch")
    on = device == "cuda"
    assert set_ == [("set_num_threads", 3), ("set_num_interop_threads", 1)] + [((True,), {"warn_only": True})] * (
        not on
    )
    assert (vars(card.cuda.matmul), vars(card.cudnn)) == (
        ({"allow_tf32": True}, {"allow_tf32": True, "benchmark": True}) if on else ({}, {})
    )


def test_a_step_is_computed_with_the_weights_that_the_last_one_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "on_card", lambda _: True)
    net, images = nn.Linear(4, 2), torch.ones(3, 4)
    with numerics.precision("cpu"):
        before = net(images)
        assert before.dtype == torch.bfloat16
        with torch.no_grad():
            net.weight.add_(1.0)
        after = net(images)
    torch.testing.assert_close(after.float(), before.float() + 4, rtol=0.05, atol=0.05)
