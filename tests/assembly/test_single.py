"""Plans of kind ``single``: one family alone, trained with the recipe of mixtures, without a gate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from assembly_toys import BEST, INTERFACES, TINY
from test_mixture import PRM, batches, build, train

from nngen.assembly.assemble import assemble
from nngen.assembly.identity import canonical_hash
from nngen.assembly.plan_toml import from_toml, plan_of, to_toml
from nngen.errors import PlanError
from nngen.plan import Gate, Losses, Plan, Recipe
from nngen.types import Candidate, Family

Load = Callable[[str], ModuleType]
SINGLE = Plan(experts=()).alone


def alone(tiny: dict[str, Family], name: str, **recipe: Any) -> Candidate:
    plan = replace(SINGLE(name), recipe=Recipe(**recipe))
    return assemble(plan, [(tiny[name], INTERFACES[name])])


@pytest.mark.parametrize("name", TINY)
def test_its_network_is_the_familys_own_behind_its_adapter(name: str, tiny: dict[str, Family], load: Load) -> None:
    net = build(load(alone(tiny, name).source))
    given = {key: PRM[key] for key in ("batch", "epoch", "transform")} | dict(BEST)
    expert = load(tiny[name].source).Net((4, 3, *net.adapter.size), (5,), given, torch.device("cpu"))
    assert [f"expert.{key}" for key in expert.state_dict()] == list(net.state_dict())
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in expert.parameters())
    accuracy, loss = train(net, batches())
    assert 0 <= accuracy <= 1 and loss > 0
    assert net.history == [{"accuracy": accuracy, "loss": loss}]
    assert torch.isfinite(net.eval()(batches(1)[0][0])).all()


@pytest.mark.parametrize(
    "recipe", [{"optimizer": "sgd"}, {"mixup": 0.0}, {"cutmix": 1.0}, {"ema": 0.9}, {"mixup": 0.0, "cutmix": 1.0}]
)
def test_every_recipe_of_mixtures_trains_it(recipe: dict[str, Any], tiny: dict[str, Family], load: Load) -> None:
    candidate = alone(tiny, "TinyConv", **recipe)
    net = build(load(candidate.source))
    before = [parameter.clone() for parameter in net.parameters()]
    train(net, batches())
    assert all(not torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True))
    assert candidate.canonical == canonical_hash(candidate.source)
    assert plan_of(candidate.source) == candidate.plan
    assert candidate.id.startswith("MoE1-")


def test_it_keeps_its_own_rate(tiny: dict[str, Family], load: Load) -> None:
    plan = Plan(experts=(), rates=(("TinyConv", 0.5), ("TinyAux", 3))).alone("TinyConv")
    net = build(load(assemble(plan, [(tiny["TinyConv"], INTERFACES["TinyConv"])]).source))
    net.train_setup(PRM | {"lr": 0.1})
    assert [group["peak"] for group in net.optimizer.param_groups] == [0.05]


def test_it_takes_the_steps_of_a_mixture_whose_gate_chose_it(tiny: dict[str, Family], load: Load) -> None:
    recipe = Recipe(mixup=0, clip=1e6)
    given = [(tiny["TinyAux"], INTERFACES["TinyAux"])]
    plan = Plan(experts=("TinyAux", "TinyAux"), repeats=True, losses=Losses(balance=0), recipe=recipe)
    pair, single = (
        build(load(assemble(plan, given * 2).source)),
        build(load(alone(tiny, "TinyAux", mixup=0, clip=1e6).source)),
    )
    for net in (pair, single):
        for part in net.modules():
            if isinstance(part, torch.nn.Dropout):  # the pair draws twice as often
                part.p = 0.0
    for expert in pair.experts:
        expert.load_state_dict(single.expert.state_dict())
    pair.gate.forward = lambda x: torch.eye(2)[:1].expand(len(x), 2)
    for net in (single, pair):
        train(net, batches(4))
    for one, other in zip(single.expert.parameters(), pair.experts[0].parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (replace(SINGLE("A"), experts=("A", "B")), "kind single takes one family, not 2: A and B"),
        (replace(SINGLE("A"), experts=()), "kind single takes one family, not 0: none"),
        (replace(SINGLE("A"), gate=Gate(width=64)), "kind single has no gate: leave out"),
        (replace(SINGLE("A"), losses=Losses(z=0.1)), "kind single has no gate: leave out"),
        (replace(SINGLE("A"), recipe=Recipe(gate_rate=1.0)), "kind single has no gate: leave out"),
        (replace(SINGLE("A"), recipe=Recipe(warmup=1.0)), "recipe.warmup is 1.0"),
    ],
)
def test_what_a_plan_of_one_family_cannot_say_is_refused(plan: Plan, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        assemble(plan, [])


def test_its_plan_names_no_gate_and_is_read_back() -> None:
    plan = Plan(
        experts=tuple("ABCD"),
        gate=Gate(width=64),
        losses=Losses(label_smoothing=0.0, balance=0.5),
        recipe=Recipe(gate_rate=1.0, mixup=0.0),
    ).alone("B")
    text = to_toml(plan)
    assert "gate" not in text and "balance" not in text
    assert from_toml(text) == plan == Plan.from_dict(plan.to_dict())
    assert (plan.losses.label_smoothing, plan.recipe.mixup) == (0.0, 0.0)
