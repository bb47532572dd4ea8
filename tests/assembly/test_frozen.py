"""Mixtures whose experts are frozen: the gate alone is trained, and blends the experts' probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from assembly_toys import TINY
from test_mixture import batches, build, train

from nngen.assembly.identity import canonical_hash
from nngen.assembly.plan_toml import from_toml, plan_of, to_toml
from nngen.assembly.plan_validation import check_plan
from nngen.checks.context import groups
from nngen.errors import PlanError
from nngen.plan import Gate, Losses, Plan, Recipe
from nngen.surrogate.gates import FROZEN
from nngen.types import Candidate

Mix = Callable[..., Candidate]
Load = Callable[[str], ModuleType]
PARTS: dict[str, dict[str, Any]] = {
    "the plan of a ranking": {"gate": FROZEN.gate, "losses": FROZEN.losses, "recipe": FROZEN.recipe},
    "a gate without calibration": {"gate": Gate(network="linear"), "recipe": Recipe(frozen=True)},
    "an average of the weights": {"recipe": Recipe(frozen=True, ema=0.9)},
    "sgd and mixed images": {"recipe": Recipe(frozen=True, optimizer="sgd", cutmix=1.0)},
    "a routing with logits": {
        "gate": Gate(learned_noise=True),
        "losses": Losses(z=0.01, diversity=0.1),
        "recipe": Recipe(frozen=True),
    },
}


@pytest.mark.long
@pytest.mark.parametrize("name", PARTS)
def test_the_gate_alone_is_trained(name: str, mix: Mix, load: Load) -> None:
    candidate = mix(**PARTS[name])
    net = build(load(candidate.source))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    accuracy, loss = train(net, batches())
    assert 0 <= accuracy <= 1 and loss > 0
    changed = {key for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and all(key.startswith("gate.") for key in changed)
    assert not any(part.training for part in net.experts.modules())
    assert not any(parameter.requires_grad for parameter in net.experts.parameters())
    assert set(groups(net)) == {"the gate"}
    assert candidate.canonical == canonical_hash(candidate.source)
    assert plan_of(candidate.source) == candidate.plan
    assert max(map(len, candidate.source.splitlines())) <= 120


def test_it_predicts_the_blended_probabilities(mix: Mix, load: Load) -> None:
    net = build(load(mix(**PARTS["the plan of a ranking"]).source)).eval()
    images = batches(1)[0][0]
    torch.nn.init.normal_(net.gate.head.weight)
    torch.manual_seed(3)
    logits, weights, outputs = net.blend(images)
    assert outputs.exp().sum(2).allclose(torch.ones(len(images), 4))
    assert logits.exp().allclose((weights.unsqueeze(2) * outputs.exp()).sum(1), atol=1e-6)
    # The gate sees what the archive keeps of each image: mean colours of a grid.
    assert net.gate.features(images).shape == (len(images), 48)


def test_experts_are_calibrated_by_the_gate(mix: Mix, load: Load) -> None:
    net = build(load(mix(**PARTS["the plan of a ranking"]).source)).eval()
    plain = build(load(mix(**PARTS["a gate without calibration"]).source)).eval()
    plain.load_state_dict(net.state_dict(), strict=False)
    images = batches(1)[0][0]

    def outputs(of: torch.nn.Module) -> torch.Tensor:
        torch.manual_seed(3)  # an expert draws at random
        found: torch.Tensor = of.blend(images)[2]
        return found

    # A gate that has seen nothing changes no probability; a shift then favours a class of one expert.
    assert outputs(net).allclose(outputs(plain), atol=1e-3)
    with torch.no_grad():
        net.gate.shifts[1, 2] += 100.0
    assert outputs(net)[:, 1].argmax(1).tolist() == [2] * len(images)
    assert outputs(net)[:, 0].allclose(outputs(plain)[:, 0], atol=1e-3)


def test_an_average_of_the_weights_is_swapped_in(mix: Mix, load: Load) -> None:
    net = build(load(mix(**PARTS["an average of the weights"]).source))
    train(net, batches())
    trained = net.gate.head.weight.clone()
    net.eval()
    assert not torch.equal(net.gate.head.weight, trained)
    net.train()
    assert torch.equal(net.gate.head.weight, trained)


def test_the_field_is_written_only_where_it_is_set() -> None:
    plain = Plan(experts=TINY)
    frozen = replace(plain, recipe=Recipe(frozen=True))
    assert "frozen" not in to_toml(plain) and "frozen = true" in to_toml(frozen)
    assert from_toml(to_toml(frozen)) == frozen
    assert frozen.alone("TinyAux") == plain.alone("TinyAux")


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(experts=TINY, gate=Gate(routing="top-k"), recipe=Recipe(frozen=True)), "it needs gate.routing = .soft."),
        (Plan(experts=("Dense",) * 2, kind="homogeneous", recipe=Recipe(frozen=True)), "kind homogeneous has none"),
        (Plan(experts=TINY, gate=Gate(network="calibrated")), "experts that stay as they are: it needs recipe.frozen"),
        (Plan(experts=TINY, recipe=Recipe(frozen=1)), "recipe.frozen is 1: it may be true or false"),  # type: ignore[arg-type]
        (replace(Plan(experts=()).alone("TinyAux"), recipe=Recipe(frozen=True)), "kind single has none with a gate"),
    ],
)
def test_plans_that_cannot_be_frozen(plan: Plan, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        check_plan(plan)
