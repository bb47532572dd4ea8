"""Faults of the published generator, each shown to be impossible here."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from assembly_toys import BEST, TINY
from torch import nn

from nngen.families.hyperparameters import best_hyperparameters
from nngen.plan import Gate, Losses, Plan, Recipe
from nngen.types import Candidate, Family

CPU = torch.device("cpu")
PRM = {"lr": 0.1, "momentum": 0.9, "batch": 4, "epoch": 1}


@pytest.fixture
def net(mix: Callable[..., Candidate], load: Callable[[str], ModuleType]) -> nn.Module:
    return make(load(mix().source))


def make(module: ModuleType) -> nn.Module:
    torch.manual_seed(0)
    net: nn.Module = module.Net((4, 3, 16, 16), (5,), dict(PRM), CPU)
    return net


def data(count: int) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.rand(4, 3, 16, 16, generator=generator), torch.randint(0, 5, (4,), generator=generator))
        for _ in range(count)
    ]


def test_the_balance_loss_has_a_gradient(mix: Callable[..., Candidate], load: Callable[[str], ModuleType]) -> None:
    # The published loss was computed on detached weights, so its gradient was exactly zero.
    module = load(mix(gate=Gate(noise=0)).source)
    net = make(module)
    module.importance_loss(net.gate(torch.rand(4, 3, 16, 16))).backward()
    assert all(p.grad is not None for p in net.gate.parameters())
    assert net.gate.head.weight.grad.abs().sum() > 0


@pytest.mark.long
def test_the_balance_loss_evens_the_usage_out(mix: Callable[..., Candidate], load: Callable[[str], ModuleType]) -> None:
    usage = []
    for balance in (0.0, 100.0):
        net = make(load(mix(gate=Gate(noise=0), losses=Losses(balance=balance), recipe=Recipe(mixup=0)).source))
        with torch.no_grad():
            net.gate.head.bias[0] = 2.0
        net.train_setup({**PRM, "lr": 0.02, "epoch": 8})
        for _ in range(8):
            net.learn(data(4))
        usage.append(net.history[-1]["usage"][0])
    assert usage[1] < 0.4 < usage[0]


def test_the_balance_loss_does_not_grow_with_the_batch(net: nn.Module) -> None:
    # The published loss was summed over the batch and grew with its square.
    loss = _module(net).importance_loss
    weights = torch.softmax(torch.randn(6, 4), dim=1)
    assert torch.allclose(loss(weights), loss(weights.repeat(50, 1)))


def test_the_balance_loss_is_the_papers(net: nn.Module) -> None:
    # V-MoE's own test vector.
    gates = torch.tensor([[0.5, 0.4, 0.1], [0.3, 0.3, 0.4], [0.1, 0.2, 0.7], [0.8, 0.2, 0.0]])
    assert _module(net).importance_loss(gates).item() == pytest.approx(0.03874999, abs=1e-7)


def test_the_gate_and_every_expert_run_once_a_step(net: nn.Module) -> None:
    calls: list[str] = []
    for name, part in [("gate", net.gate), *((f"expert {i}", expert) for i, expert in enumerate(net.experts))]:
        part.register_forward_hook(lambda *_, name=name: calls.append(name))
    net.train_setup(PRM)
    net.learn(data(3))
    assert calls.count("gate") == 3
    assert sorted(set(calls)) == ["expert 0", "expert 1", "expert 2", "expert 3", "gate"]
    assert len(calls) == 15


@pytest.mark.long
@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_the_schedule_spans_the_trial_s_own_budget(net: nn.Module, epochs: int) -> None:
    # The published schedule warmed up over five epochs, so a one-epoch trial trained at a tenth of its rate.
    rates = watch_rates(net)
    net.train_setup({**PRM, "epoch": epochs})
    for _ in range(epochs):
        net.learn(data(40 // epochs))
    assert len(rates) == 40
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(0.1, rel=0.01)
    assert top == 4  # warm-up: a tenth of the steps, whatever the epochs
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert sum(rates) / 40 == pytest.approx(0.05, rel=0.1)
    assert 0 < rates[-1] < 0.002


def test_a_trial_of_one_step_trains_at_a_fair_rate(net: nn.Module) -> None:
    rates = watch_rates(net)
    net.train_setup(PRM)
    net.learn(data(1))
    assert rates[0] > 0.05


def test_past_the_budget_the_rate_stays_small_and_positive(net: nn.Module) -> None:
    rates = watch_rates(net)
    net.train_setup(PRM)
    for _ in range(3):
        net.learn(data(2))
    assert rates[2:] == pytest.approx([0.001] * 4)


def test_without_a_budget_it_is_one_epoch(net: nn.Module) -> None:
    rates = watch_rates(net)
    net.train_setup({"lr": 0.1, "momentum": 0.9})
    net.learn(data(20))
    assert rates[-1] < 0.002 and max(rates) == pytest.approx(0.1, rel=0.02)


def watch_rates(net: nn.Module) -> list[float]:
    """Record the experts' learning rate at each step."""
    rates: list[float] = []
    take_step = net.take_step

    def watched(*args: Any) -> Any:
        rates.append(net.optimizer.param_groups[0]["lr"])
        return take_step(*args)

    net.take_step = watched
    return rates


def test_hyperparameters_are_lemur_s_best_and_the_same_as_in_the_probe(net: nn.Module, tiny: dict[str, Family]) -> None:
    # The published default was 0.5, and probes used other values than trainings.
    for name, spec in zip(TINY, _module(net).EXPERTS, strict=True):
        assert spec.prm == best_hyperparameters(tiny[name])
        assert set(spec.prm.values()) <= set(BEST.values())
    assert net.experts[0].dropout.p == BEST["dropout"]


def test_prm_is_never_written_into(mix: Callable[..., Candidate], load: Callable[[str], ModuleType]) -> None:
    # LEMUR records the same dictionary that it passes.
    prm = dict(PRM)
    before = copy.deepcopy(prm)
    module = load(mix().source)
    specs = copy.deepcopy([spec.prm for spec in module.EXPERTS])
    net = module.Net((4, 3, 16, 16), (5,), prm, CPU)
    net.train_setup(prm)
    net.learn(data(1))
    assert prm == before
    assert [spec.prm for spec in module.EXPERTS] == specs


def test_a_family_that_writes_into_its_prm_harms_nobody(load: Callable[[str], ModuleType], assembler: Any) -> None:
    from assembly_toys import make_family

    from nngen.types import Interface

    source = """
from torch import nn
class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        prm['written'] = 1
        self.fc = nn.Linear(in_shape[1], out_shape[0])
    def forward(self, x):
        return self.fc(x.mean((2, 3)))
"""
    families = [make_family(name, source) for name in "ABCD"]
    candidate = assembler.assemble(Plan(experts=tuple("ABCD")), [(family, Interface(low=1)) for family in families])
    module = load(candidate.source)
    prm = dict(PRM)
    module.Net((4, 3, 16, 16), (5,), prm, CPU)
    assert prm == PRM
    assert all("written" not in spec.prm for spec in module.EXPERTS)


def _module(net: nn.Module) -> Any:
    import sys

    return sys.modules[type(net).__module__]
