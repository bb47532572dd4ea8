"""Behaviour of an assembled mixture of tiny families: built, run and trained."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from assembly_toys import INTERFACES, TINY, import_source, make_family, tiny_families
from family_cases import family_source
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nngen.assembly.assemble import Assembler, assemble
from nngen.families.hyperparameters import best_hyperparameters
from nngen.plan import Gate, Losses, Plan, Recipe
from nngen.types import Candidate, Family, Interface, Shape

Mix = Callable[..., Candidate]
Load = Callable[[str], ModuleType]
CPU = torch.device("cpu")
PRM = {"lr": 0.01, "momentum": 0.9, "batch": 4, "epoch": 1, "transform": "norm_32"}


@pytest.fixture
def module(mix: Mix, load: Load) -> ModuleType:
    return load(mix().source)


def build(module: ModuleType, shape: tuple[int, ...] = (4, 3, 16, 16), classes: int = 5, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net: nn.Module = module.Net(shape, (classes,), dict(PRM), CPU)
    return net


def batches(count: int = 3, size: int = 4, shape: tuple[int, ...] = (3, 16, 16)) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.rand(size, *shape, generator=generator), torch.randint(0, 5, (size,), generator=generator))
        for _ in range(count)
    ]


def gradients(net: nn.Module) -> dict[str, bool]:
    parts = {**{f"expert {place}": part for place, part in enumerate(net.experts)}, "gate": net.gate}
    return {
        name: any(p.grad is not None and bool((p.grad != 0).any()) for p in part.parameters())
        for name, part in parts.items()
    }


@pytest.mark.parametrize("shape", [(4, 3, 16, 16), (1, 1, 28, 28), (2, 3, 1, 1), (2, 3, 9, 31), (8, 4, 64, 64)])
def test_it_takes_images_of_any_size(module: ModuleType, shape: tuple[int, ...]) -> None:
    net = build(module, shape)
    x = torch.rand(max(shape[0], 2), *shape[1:])
    for mode in (True, False):
        logits = net.train(mode)(x)
        assert logits.shape == (len(x), 5)
        assert logits.dtype == torch.float32
        assert torch.isfinite(logits).all()
    accuracy, loss = train(net, [(x, torch.zeros(len(x), dtype=torch.long))])
    assert 0 <= accuracy <= 1 and math.isfinite(loss)


def train(net: nn.Module, data: Any, **prm: float) -> tuple[float, float]:
    net.train_setup({**PRM, **prm})
    result: tuple[float, float] = net.learn(data)
    return result


def test_its_experts_are_the_families_own_networks(module: ModuleType, load: Load, tiny: dict[str, Family]) -> None:
    net = build(module)
    assert isinstance(net.experts, nn.ModuleList)
    for name, expert, spec in zip(TINY, net.experts, module.EXPERTS, strict=True):
        size = INTERFACES[name].adapter(Shape(3, 16, 16)).size or (16, 16)
        values = best_hyperparameters(tiny[name])
        torch.manual_seed(7)
        alone = load(tiny[name].source).Net((4, 3, *size), (5,), dict(values), CPU)
        torch.manual_seed(7)
        again = spec.network((4, 3, *size), (5,), dict(values), CPU)
        assert {key: value.shape for key, value in alone.state_dict().items()} == {
            key: value.shape for key, value in expert.state_dict().items()
        }
        for key, value in alone.state_dict().items():
            assert torch.equal(value, again.state_dict()[key])
        x = torch.rand(2, 3, *size, dtype=torch.complex64 if spec.complex_input else torch.float32)
        torch.manual_seed(8)
        one = alone.eval()(x)
        torch.manual_seed(8)
        assert torch.equal(one, again.eval()(x))


@settings(max_examples=60, deadline=None)
@given(
    low=st.integers(1, 40),
    extra=st.none() | st.integers(0, 40),
    square=st.booleans(),
    cast=st.booleans(),
    height=st.integers(1, 48),
    width=st.integers(1, 48),
)
def test_adapters_are_what_the_interface_says(
    golden: ModuleType, low: int, extra: int | None, square: bool, cast: bool, height: int, width: int
) -> None:
    high = None if extra is None else low + extra
    spec = golden.ExpertSpec(network=nn.Identity, prm={}, low=low, high=high, square=square, complex_input=cast)
    expected = Interface(low=low, high=high, square=square, complex=cast).adapter(Shape(1, height, width))
    adapter = golden.Adapter(spec, height, width)
    x = torch.rand(1, 1, height, width)
    y = adapter(x)
    assert adapter.size == (expected.size or (height, width)) == y.shape[2:]
    assert y.is_complex() == expected.complex
    if not expected:
        assert y is x


@pytest.mark.parametrize("size", [1, 2, 3, 7, 33])
@pytest.mark.parametrize("depth", [1, 3, 8])
def test_the_gate_takes_one_image_of_any_size(mix: Mix, load: Load, size: int, depth: int) -> None:
    gate = load(mix(gate=Gate(width=2, depth=depth)).source).Gate(3, 4).train()
    weights = gate(torch.rand(1, 3, size, size))
    assert weights.shape == (1, 4)
    assert torch.allclose(weights.sum(dim=1), torch.ones(1))
    weights[0, 0].backward()
    for name, parameter in gate.named_parameters():
        assert parameter.grad is not None, name


def test_the_temperature_is_learned_and_stays_positive(mix: Mix, load: Load) -> None:
    net = build(load(mix(gate=Gate(temperature=0.5)).source))
    assert net.gate.log_temperature.exp().item() == pytest.approx(0.5)
    train(net, batches(), lr=1.0)
    assert net.gate.log_temperature.exp().item() > 0
    assert net.gate.log_temperature.exp().item() != pytest.approx(0.5)


def test_noise_is_for_training_only(module: ModuleType) -> None:
    gate = build(module).gate
    x = torch.rand(2, 3, 16, 16)
    assert not torch.equal(gate.train()(x), gate(x))
    assert torch.equal(gate.eval()(x), gate(x))


def test_logits_are_blended_with_the_gate_s_weights(module: ModuleType) -> None:
    net = build(module).eval()
    x = torch.rand(2, 3, 16, 16)
    torch.manual_seed(1)
    logits, weights, outputs = net.blend(x)
    torch.manual_seed(1)
    alone = [module.class_logits(expert(adapter(x))) for expert, adapter in zip(net.experts, net.adapters, strict=True)]
    expected = sum(weights[:, place, None] * part for place, part in enumerate(alone))
    assert torch.allclose(logits, expected)
    assert torch.equal(outputs, torch.stack(alone, dim=1))


def test_first_of_a_tuple_and_real_parts_are_taken(module: ModuleType) -> None:
    assert torch.equal(module.class_logits((torch.ones(1), torch.zeros(1))), torch.ones(1))
    assert torch.equal(module.class_logits(torch.tensor([3 + 4j])), torch.tensor([5.0]))
    assert module.class_logits(torch.ones(1, dtype=torch.bfloat16)).dtype == torch.float32


def test_an_epoch_returns_accuracy_and_loss_and_keeps_usage(module: ModuleType) -> None:
    net = build(module)
    accuracy, loss = train(net, batches())
    assert type(accuracy) is float and type(loss) is float
    (epoch,) = net.history
    assert len(epoch["usage"]) == 4
    assert sum(epoch["usage"]) == pytest.approx(1, abs=1e-5)
    assert 0 < epoch["entropy"] <= math.log(4) + 1e-6
    net.learn(batches())
    assert len(net.history) == 2
    net.train_setup(PRM)
    assert net.history == []


def test_usage_and_entropy_are_the_gate_s(mix: Mix, load: Load) -> None:
    net = build(load(mix(gate=Gate(noise=0), recipe=Recipe(mixup=0)).source))
    x, y = batches(1)[0]
    with torch.no_grad():
        weights = net.gate(x)
    train(net, [(x, y)])
    (epoch,) = net.history
    assert epoch["usage"] == pytest.approx(weights.mean(dim=0).tolist(), abs=1e-6)
    assert epoch["entropy"] == pytest.approx(-(weights * weights.log()).sum(dim=1).mean().item(), abs=1e-5)


def test_it_learns(mix: Mix, load: Load) -> None:
    net = build(load(mix(recipe=Recipe(mixup=0)).source), (16, 3, 16, 16), classes=2)
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (64,), generator=generator)
    images = torch.rand(64, 3, 16, 16, generator=generator) * 0.1 + labels[:, None, None, None]
    data = [(images[i : i + 16], labels[i : i + 16]) for i in range(0, 64, 16)]
    net.train_setup({**PRM, "lr": 0.01, "epoch": 6})
    results = [net.learn(data) for _ in range(6)]
    assert results[-1][1] < results[0][1]
    assert (net.eval()(images).argmax(dim=1) == labels).float().mean() > 0.95


def test_one_seed_gives_one_result(module: ModuleType) -> None:
    results = []
    for _ in range(2):
        net = build(module)
        torch.manual_seed(3)
        results.append((train(net, batches()), net.history))
    assert results[0] == results[1]


class Roll:
    """Iterator with a length, like LEMUR's DataRoll."""

    def __init__(self, data: list[Any]) -> None:
        self.data, self.it = data, iter(data)

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self.it)


@pytest.mark.parametrize("wrap", [list, Roll, iter, lambda data: ((x.double(), y.int()) for x, y in data)])
def test_any_stream_of_batches_will_do(module: ModuleType, wrap: Callable[[list[Any]], Any]) -> None:
    net = build(module)
    accuracy, loss = train(net, wrap(batches()))
    assert 0 <= accuracy <= 1 and math.isfinite(loss)


def test_integer_images_and_a_lone_last_image(module: ModuleType) -> None:
    data = [(torch.randint(0, 255, (4, 3, 16, 16), dtype=torch.uint8), torch.arange(4) % 5), batches(1, size=1)[0]]
    net = build(module)
    train(net, data)
    assert net.eval()(data[0][0]).shape == (4, 5)


def test_no_batch_at_all(module: ModuleType) -> None:
    assert train(build(module), []) == (0.0, 0.0)


def test_lemur_s_own_check_of_code_passes(module: ModuleType) -> None:
    # ab.nn.util.CodeEval.dynamic_evaluation of nn-dataset 2.1.2
    prm = {"lr": 0.01, "momentum": 0.9, "dropout": 0.5}
    model = module.Net((1, 3, 224, 224), (10,), prm, CPU)
    model.to(CPU)
    model.train_setup(prm)
    model.learn([(torch.randn(8, 3, 224, 224), torch.randint(0, 10, (8,))) for _ in range(2)])
    assert module.supported_hyperparameters() == {"lr", "momentum"}


def test_training_under_bfloat16_autocast_with_channels_last(module: ModuleType) -> None:
    net = build(module).to(memory_format=torch.channels_last)
    data = [(x.to(memory_format=torch.channels_last), y) for x, y in batches()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        accuracy, loss = train(net, data)
    assert 0 <= accuracy <= 1 and math.isfinite(loss)


def test_two_groups_of_rates_and_momentum_as_first_beta(mix: Mix, load: Load) -> None:
    net = build(load(mix(recipe=Recipe(gate_rate=5, weight_decay=0.02), losses=Losses(label_smoothing=0.3)).source))
    net.train_setup({**PRM, "lr": 0.1, "momentum": 0.7})
    experts, gate = net.optimizer.param_groups
    assert isinstance(net.optimizer, torch.optim.AdamW)
    assert (experts["lr"], gate["lr"]) == (0.1, 0.5)
    assert experts["betas"] == (0.7, 0.999) and gate["weight_decay"] == 0.02
    assert net.criterion.label_smoothing == 0.3
    assert {id(p) for group in net.optimizer.param_groups for p in group["params"]} == {id(p) for p in net.parameters()}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_each_expert_has_its_own_rate(mix: Mix, load: Load, optimizer: str) -> None:
    candidate = mix(recipe=Recipe(gate_rate=5, optimizer=optimizer), rates=((TINY[1], 0.1), (TINY[0], 2)))
    net = build(load(candidate.source))
    net.train_setup(PRM | {"lr": 0.1, "momentum": 0.7})
    *experts, gate = net.optimizer.param_groups
    assert [group["peak"] for group in experts] == pytest.approx([0.2, 0.01, *(0.1 for _ in TINY[2:])])
    assert gate["peak"] == pytest.approx(0.5)
    for expert, group in zip(net.experts, experts, strict=True):
        assert [id(p) for p in expert.parameters()] == [id(p) for p in group["params"]]
    train(net, batches(1))
    assert all(gradients(net).values())


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_any_momentum_that_lemur_draws_will_do(module: ModuleType, momentum: float) -> None:
    assert math.isfinite(train(build(module), batches(), momentum=momentum)[1])


def test_experts_get_batch_epoch_and_transform_of_the_trial(load: Load, assembler: Assembler) -> None:
    # LEMUR passes them to every network; values fixed by the family take precedence.
    source = family_source(init='self.seen = dict(prm)\nself.side = int(prm["transform"].split("_")[1])')
    families = [make_family(name, source, {"lr": 0.3, "momentum": 0.5}) for name in "AB"]
    candidate = assembler.assemble(Plan(experts=("A", "B")), [(family, Interface(low=1)) for family in families])
    net = build(load(candidate.source))
    assert net.experts[0].seen == {"lr": 0.3, "momentum": 0.5, "batch": 4, "epoch": 1, "transform": "norm_32"}
    assert net.experts[0].side == 32


def test_layers_that_guess_a_device_get_the_mixture_s(module: ModuleType) -> None:
    net = module.Net((1, 3, 8, 8), (5,), PRM, torch.device("meta"))
    found = {module.device for part in net.experts for module in part.modules() if hasattr(module, "device")}
    assert found == {torch.device("meta")}


def test_without_warnings(mix: Mix, load: Load) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(build(load(mix().source)), batches())


@pytest.mark.long
@settings(max_examples=6, deadline=None)
@given(
    gate=st.builds(Gate, width=st.integers(2, 9), depth=st.integers(1, 3), temperature=st.floats(0.1, 9)),
    losses=st.builds(Losses, label_smoothing=st.floats(0, 0.9), balance=st.sampled_from([0.0, 0.01, 1.0])),
    recipe=st.builds(Recipe, mixup=st.sampled_from([0.0, 0.2]), warmup=st.sampled_from([0.0, 0.5]), clip=st.just(1)),
)
def test_any_plan_trains(tmp_path_factory: Any, gate: Gate, losses: Losses, recipe: Recipe) -> None:
    families = tiny_families()
    plan = Plan(experts=TINY, gate=gate, losses=losses, recipe=recipe)
    candidate = assemble(plan, [(families[name], INTERFACES[name]) for name in TINY])
    net = build(import_source(candidate.source, tmp_path_factory.mktemp("plan")))
    train(net, batches(1))
    assert all(gradients(net).values())


@pytest.mark.long
def test_a_mixture_is_copied_compiled_and_exported(mix: Mix, load: Load) -> None:
    net = build(load(mix(experts=("TinyConv", "TinyAux")).source)).eval()
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        expected = net(x)
        assert torch.equal(copy.deepcopy(net)(x), expected)
        assert torch.equal(torch.compile(net, backend="eager")(x), expected)
        program = torch.onnx.export(net, (x,), dynamo=True, verbose=False)
    assert program is not None and len(program.model.graph.outputs) == 1


def test_an_expert_that_hides_a_name_does_not_disarm_another(load: Load, assembler: Assembler) -> None:
    hiding = """
import torch
from torch import nn
class Parameter(torch.Tensor):
    pass
def linear(x): return x * 0
class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        self.fc = nn.Linear(in_shape[1], out_shape[0])
        self.kind = Parameter, linear
    def forward(self, x):
        return self.fc(x.mean((2, 3)))
"""
    hidden = """
import torch
from torch import nn
from torch.nn import Parameter
from torch.nn.functional import linear
class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        self.weight = Parameter(torch.randn(out_shape[0], in_shape[1]))
    def forward(self, x):
        return linear(x.mean((2, 3)), self.weight)
"""
    families = [make_family(name, hidden if name == "B" else hiding) for name in "ABCD"]
    plan = Plan(experts=("A", "B", "C", "D"))
    candidate = assembler.assemble(plan, [(family, Interface(low=1)) for family in families])
    net = build(load(candidate.source))
    assert [sum(p.numel() for p in expert.parameters()) for expert in net.experts] == [20, 15, 20, 20]
    train(net, batches())
    assert all(gradients(net).values())
