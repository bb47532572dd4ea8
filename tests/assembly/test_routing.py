"""Routing gates (top-k, noise, bias) and the diagnostics of an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from assembly_toys import KINDS, TINY, golden_candidate, kind_families
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nngen.assembly.assemble import Assembler
from nngen.assembly.identity import canonical_hash
from nngen.assembly.plan_toml import from_toml, plan_of, to_toml
from nngen.assembly.snippets.routing import top_k_weights
from nngen.plan import Gate, Losses, Plan, Recipe
from nngen.types import Candidate

Mix = Callable[..., Candidate]
Load = Callable[[str], ModuleType]
CPU = torch.device("cpu")
PRM = {"lr": 0.01, "momentum": 0.9, "batch": 8, "epoch": 2}
PLAIN = ("TinyConv", "TinyAux", "TinyComplex")
"""Tiny families that say the same twice; TinyBayes draws."""


def build(module: ModuleType, shape: tuple[int, ...] = (8, 3, 16, 16), classes: int = 5) -> Any:
    torch.manual_seed(0)
    return module.Net(shape, (classes,), dict(PRM), CPU)


def decided(net: Any) -> None:
    """Change the gate's weights, which give nearly uniform outputs at first."""
    torch.manual_seed(5)
    nn.init.normal_(net.gate.head.weight, std=5.0)


def images(count: int = 8, shape: tuple[int, ...] = (3, 16, 16)) -> torch.Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))


def data(count: int = 2, size: int = 8) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.rand(size, 3, 16, 16, generator=generator), torch.randint(0, 5, (size,), generator=generator))
        for _ in range(count)
    ]


@given(st.integers(1, 5), st.integers(0, 2**31))
def test_top_k_weights_weigh_k_experts(k: int, seed: int) -> None:
    logits = torch.randn(7, 6, generator=torch.Generator().manual_seed(seed))
    weights = top_k_weights(logits, torch.zeros(6), k)
    assert ((weights > 0).sum(dim=1) == k).all()
    kept = torch.topk(logits, k).indices
    assert (weights.gather(1, kept) > 0).all()
    if k > 1:
        assert torch.allclose(weights.sum(dim=1), torch.ones(7))
        assert torch.allclose(weights.gather(1, kept), torch.softmax(logits.gather(1, kept), dim=1))
    else:
        assert torch.allclose(weights.sum(dim=1), torch.softmax(logits, dim=1).amax(dim=1))


def test_a_bias_moves_the_choice_and_not_the_weights() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0]])
    weights = top_k_weights(logits, torch.tensor([0.0, 0.0, 9.0]), 2)
    assert weights[0, 1] == 0
    assert torch.allclose(weights[0, [0, 2]], torch.softmax(torch.tensor([2.0, 0.0]), dim=0))


@pytest.mark.parametrize("k", [1, 2])
def test_top_k_is_the_dense_computation_with_zero_weights(mix: Mix, load: Load, k: int) -> None:
    net = build(load(mix(experts=PLAIN, gate=Gate(routing="top-k", k=k)).source)).eval()
    decided(net)
    module, x = _module(net), images()
    with torch.no_grad():
        mixed, routing, _ = net.blend(x)
        dense = [module.expert_logits(e, a, x) for e, a in zip(net.experts, net.adapters, strict=True)]
    assert ((routing.weights == 0).sum(dim=1) == len(PLAIN) - k).all()
    expected = sum(routing.weights[:, place, None] * logits for place, logits in enumerate(dense))
    assert torch.allclose(mixed, expected, atol=1e-6)


def test_in_kind_homogeneous_too(load: Load) -> None:
    net = build(load(golden_candidate("homogeneous").source)).eval()
    decided(net)
    x = images()
    with torch.no_grad():
        mixed, routing, _ = net.blend(x)
        features = net.trunk(x)
        expected = sum(routing.weights[:, i, None] * expert(features) for i, expert in enumerate(net.experts))
    assert torch.allclose(mixed, expected, atol=1e-6)


def test_experts_that_no_image_chose_are_not_computed(mix: Mix, load: Load) -> None:
    for source in (mix(gate=Gate(routing="top-k", noise=0)).source, golden_candidate("homogeneous").source):
        net = build(load(source)).eval()
        with torch.no_grad():
            net.gate.head.bias[:] = torch.linspace(9, 0, len(net.experts))
        calls = watch_calls(net)
        net(images())
        assert calls == [(0, 8), (1, 8)]


def watch_calls(net: Any) -> list[tuple[int, int]]:
    """Record which experts run, and on how many images."""
    calls: list[tuple[int, int]] = []
    for place, expert in enumerate(net.experts):
        expert.register_forward_hook(lambda _, given, __, place=place: calls.append((place, len(given[0]))))
    return calls


def test_an_expert_sees_only_the_images_that_chose_it(mix: Mix, load: Load) -> None:
    net = build(load(mix(gate=Gate(routing="top-k", noise=0)).source)).train()
    decided(net)
    calls = watch_calls(net)
    _, routing, outputs = net.blend(images())
    asked = (routing.weights > 0).sum(dim=0).tolist()
    # A single image is duplicated, because batch norm needs two values per channel.
    assert calls == [(place, max(count, 2)) for place, count in enumerate(asked) if count]
    assert (outputs[routing.weights == 0] == 0).all()


def test_the_learned_noise_is_learned(mix: Mix, load: Load) -> None:
    net = build(load(mix(gate=Gate(routing="top-k", learned_noise=True, noise=0.5), losses=Losses(load=1)).source))
    assert net.gate.log_noise.exp().tolist() == pytest.approx([0.5] * 4)
    net.train_setup(PRM)
    net.learn(data())
    assert net.gate.log_noise.exp().tolist() != pytest.approx([0.5] * 4)


def test_the_bias_without_a_loss_evens_the_choice_out(mix: Mix, load: Load) -> None:
    shares = []
    for step in (0.0, 0.5):
        plan = {
            "gate": Gate(routing="top-k", noise=0),
            "recipe": Recipe(mixup=0),
            "losses": Losses(balance=0, bias=step),
        }
        net = build(load(mix(**plan).source))
        with torch.no_grad():
            net.gate.head.bias[:] = torch.tensor([3.0, 2.0, 0.0, 0.0])
        net.train_setup({**PRM, "lr": 1e-4, "epoch": 10})
        for _ in range(10):
            net.learn(data())
        shares.append(min(net.history[-1]["usage"]))
    assert shares[0] == 0 < shares[1]


def test_averaged_weights_predict_and_others_train(mix: Mix, load: Load) -> None:
    net = build(load(mix(recipe=Recipe(ema=0.9, mixup=0)).source))
    net.train_setup(PRM)
    net.learn(data())
    raw = [p.detach().clone() for p in net.parameters()]
    optimized = {id(p) for group in net.optimizer.param_groups for p in group["params"]}
    mean = [p.detach().clone() for p in net.eval().parameters()]
    assert any(not torch.equal(a, b) for a, b in zip(raw, mean, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(mean, net.eval().parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(raw, net.train().parameters(), strict=True))
    assert optimized == {id(p) for p in net.parameters()}


def test_cutmix_takes_the_share_it_says(mix: Mix, load: Load) -> None:
    module = load(mix(recipe=Recipe(cutmix=1.0, mixup=0)).source)
    inputs = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 8, 10)
    for seed in range(20):
        torch.manual_seed(seed)
        mixed, others, share = module.cutmix(inputs, torch.arange(6))
        own = (mixed == inputs) | (others.view(6, 1, 1, 1) == inputs)
        theirs = mixed == others.view(6, 1, 1, 1)
        assert bool((own | theirs).all()) and 0 <= share <= 1
        moved = others != torch.arange(6)
        if moved.any():
            kept = (mixed == inputs)[moved].float().mean().item()
            assert kept == pytest.approx(share, abs=1e-6)


def test_sgd_has_nesterov_s_momentum(mix: Mix, load: Load) -> None:
    net = build(load(mix(recipe=Recipe(optimizer="sgd", gate_rate=0.5)).source))
    for momentum in (0.9, 0.0):
        net.train_setup({**PRM, "momentum": momentum})
        assert type(net.optimizer) is torch.optim.SGD
        assert [group["nesterov"] for group in net.optimizer.param_groups] == [momentum > 0] * 2
        assert [group["peak"] for group in net.optimizer.param_groups] == [0.01, 0.005]
        net.learn(data(1))


def test_diagnostics_are_what_they_say(mix: Mix, load: Load) -> None:
    net = build(load(mix(experts=PLAIN, gate=Gate(noise=0), recipe=Recipe(mixup=0)).source))
    decided(net)
    ((x, y),) = data(1)
    net.train_setup({**PRM, "lr": 0.0})
    torch.manual_seed(3)
    net.learn([(x, y)])
    (epoch,) = net.history
    torch.manual_seed(3)
    with torch.no_grad():
        _, weights, outputs = build_like(net).blend(x)
    assert epoch["usage"] == pytest.approx(weights.mean(dim=0).tolist(), abs=1e-6)
    right = (outputs.argmax(dim=2) == y[:, None]).float().mean(dim=0)
    assert epoch["expert_accuracy"] == pytest.approx(right.tolist(), abs=1e-6)
    for label in y.unique().tolist():
        share = [row[label] for row in epoch["by_class"]]
        assert share == pytest.approx(weights[y == label].mean(dim=0).tolist(), abs=1e-5)
    joint = torch.zeros(3, 5).double()
    for row, label in zip(weights.double(), y, strict=True):
        joint[:, label] += row / len(y)
    outer = joint.sum(dim=1, keepdim=True) * joint.sum(dim=0)
    expected = (joint * (joint / outer).clamp(min=1e-30).log())[joint > 0].sum().item()
    assert epoch["specialisation"] == pytest.approx(expected, abs=1e-5)
    assert 0 <= epoch["specialisation"] <= math.log(3)


def build_like(net: Any) -> Any:
    """Return the net before its one step at rate 0, which changed only its running statistics."""
    return net.train()


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_works_at_any_shape(kind: str, load: Load) -> None:
    candidate = golden_candidate(kind)
    assert plan_of(candidate.source) == candidate.plan
    assert candidate.canonical == canonical_hash(candidate.source)
    module = load(candidate.source)
    for shape, classes in (((2, 3, 32, 32), 10), ((2, 3, 64, 64), 7), ((2, 1, 28, 28), 100), ((2, 3, 224, 224), 2)):
        net = build(module, shape, classes)
        x = torch.rand(4, *shape[1:])
        for mode in (True, False):
            assert net.train(mode)(x).shape == (4, classes)
        net.train_setup(PRM)
        accuracy, loss = net.learn([(x, torch.arange(4) % classes), (x[:1], torch.zeros(1))])
        assert 0 <= accuracy <= 1 and math.isfinite(loss)
        assert len(net.history[-1]["usage"]) == len(net.experts)
        assert {id(p) for group in net.optimizer.param_groups for p in group["params"]} == {
            id(p) for p in net.parameters()
        }


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_with_all_its_experts(kind: str, load: Load) -> None:
    net = build(load(golden_candidate(kind).source), classes=2)
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (64,), generator=generator)
    pictures = torch.rand(64, 3, 16, 16, generator=generator) * 0.1 + labels[:, None, None, None]
    batches = [(pictures[i : i + 16], labels[i : i + 16]) for i in range(0, 64, 16)]
    parts = [net.gate, *net.experts]
    before = [[p.detach().clone() for p in part.parameters()] for part in parts]
    net.train_setup({**PRM, "epoch": 8})
    for _ in range(8):
        net.learn(batches)
    assert (net.eval()(pictures).argmax(dim=1) == labels).float().mean() > 0.95
    for part, old in zip(parts, before, strict=True):
        assert any(not torch.equal(a, b) for a, b in zip(old, part.parameters(), strict=True))


small = st.sampled_from([0.0, 0.01, 0.5])
gates = st.builds(
    Gate,
    width=st.integers(2, 5),
    depth=st.integers(1, 2),
    temperature=st.floats(0.1, 9),
    noise=st.sampled_from([0.1, 1.0]),
    routing=st.sampled_from(["soft", "top-k"]),
    k=st.just(1) | st.just(2),
    learned_noise=st.booleans(),
)
any_losses = st.builds(
    Losses, balance=small, load=small, switch=small, z=small, bias=small, entropy=small, diversity=small
)
recipes = st.builds(
    Recipe,
    mixup=small,
    cutmix=small,
    ema=st.sampled_from([0.0, 0.9]),
    optimizer=st.sampled_from(["adamw", "sgd"]),
    gate_rate=st.sampled_from([0.5, 1.0]),
)


@st.composite
def any_plan(draw: st.DrawFn) -> Plan:
    kind = draw(st.sampled_from(KINDS))
    names = {"hetero": TINY, "homogeneous": ("Dense",), "alexnet": ("AlexNet",)}[kind]
    network = draw(st.sampled_from(["", "convolution", "convolution_linear"])) if kind != "homogeneous" else ""
    experts = tuple(draw(st.lists(st.sampled_from(names), min_size=3, max_size=6)))
    gate, losses = replace(draw(gates), network=network), draw(any_losses)
    if gate.routing == "soft":
        losses = Losses(balance=losses.balance, switch=losses.switch, z=losses.z, entropy=losses.entropy)
    kind = "homogeneous" if kind == "homogeneous" else "hetero"
    return Plan(kind=kind, experts=experts, gate=gate, losses=losses, recipe=draw(recipes), repeats=True)


@settings(max_examples=40, deadline=None)
@given(plan=any_plan())
@pytest.mark.long
def test_any_plan_renders_parses_and_reads_back(assembler: Assembler, plan: Plan) -> None:
    candidate = assembler.assemble(plan, kind_families(plan))
    assert plan_of(candidate.source) == plan == from_toml(to_toml(plan))
    assert candidate.canonical == canonical_hash(candidate.source)
    assert max(map(len, candidate.source.splitlines())) <= 120


@settings(max_examples=6, deadline=None)
@given(plan=any_plan())
def test_any_plan_of_any_kind_trains(assembler: Assembler, tmp_path_factory: Any, plan: Plan) -> None:
    from assembly_toys import import_source

    candidate = assembler.assemble(plan, kind_families(plan))
    net = build(import_source(candidate.source, tmp_path_factory.mktemp("plan")), (2, 1, 16, 16))
    net.train_setup(PRM)
    accuracy, loss = net.learn([(torch.rand(4, 1, 16, 16), torch.arange(4))])
    assert 0 <= accuracy <= 1 and math.isfinite(loss)
    assert net.eval()(torch.rand(2, 1, 16, 16)).shape == (2, 5)


def _module(net: nn.Module) -> Any:
    import sys

    return sys.modules[type(net).__module__]
