"""Ranges of the numbers of a plan: both ends are accepted, and nothing beyond them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nngen.assembly.plan_validation import check_drawn, check_plan
from nngen.assembly.registries import KINDS, Kind
from nngen.errors import PlanError
from nngen.plan import Gate, Losses, Plan, Recipe

RANGES = [
    ("gate.width", 2, 4096, 1),
    ("gate.depth", 1, 8, 1),
    ("gate.temperature", 1e-3, 1e3, 1e-4),
    ("gate.noise", 0, 1e3, 1e-4),
    ("losses.label_smoothing", 0, 1, 1e-4),
    ("losses.balance", 0, 1e3, 1e-4),
    ("losses.switch", 0, 1e3, 1e-4),
    ("losses.z", 0, 1e3, 1e-4),
    ("losses.entropy", 0, 1e3, 1e-4),
    ("losses.diversity", 0, 1e3, 1e-4),
    ("losses.bias", 0, 1, 1e-4),
    ("recipe.gate_rate", 0, 1e3, 1e-4),
    ("recipe.weight_decay", 0, 1e3, 1e-4),
    ("recipe.mixup", 0, 1e3, 1e-4),
    ("recipe.warmup", 0, 0.99, 1e-4),
    ("recipe.clip", 1e-6, 1e6, 1e-7),
    ("recipe.cutmix", 0, 1e3, 1e-4),
    ("recipe.ema", 0, 0.99999, 1e-6),
]
ROUTED = Plan(experts=tuple("ABCD"), gate=Gate(routing="top-k"))


def with_value(path: str, value: float) -> Plan:
    part, _, name = path.partition(".")
    return replace(ROUTED, **{part: replace(getattr(ROUTED, part), **{name: value})})


@pytest.mark.parametrize(("path", "low", "high", "step"), RANGES)
def test_both_ends_of_a_range_are_accepted_and_nothing_beyond(path: str, low: float, high: float, step: float) -> None:
    for value in (low, high):
        check_plan(with_value(path, value))
    for value in (low - step, high + step):
        with pytest.raises(PlanError, match=f"{path} is .*: it must lie between"):
            check_plan(with_value(path, value))


@pytest.mark.parametrize("count", [2, 64])
def test_numbers_of_experts(count: int) -> None:
    check_plan(Plan(experts=tuple(f"F{number}" for number in range(count))))
    for wrong in (1, 65):
        with pytest.raises(PlanError, match=f"takes 2 to 64 experts, not {wrong}: F0"):
            check_plan(Plan(experts=tuple(f"F{number}" for number in range(wrong))))


def test_experts_for_each_image_are_fewer_than_all_with_a_choice_and_never_more() -> None:
    for k in (1, 3):
        check_plan(replace(ROUTED, gate=Gate(routing="top-k", k=k)))
    for k in (0, 4):
        with pytest.raises(PlanError, match=f"gate.k is {k}: it must lie between 1 and 3"):
            check_plan(replace(ROUTED, gate=Gate(routing="top-k", k=k)))
    check_plan(replace(ROUTED, gate=Gate(k=64)))
    with pytest.raises(PlanError, match=r"gate\.k is 65: it must lie between 1 and 64"):
        check_plan(replace(ROUTED, gate=Gate(k=65)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": Recipe(frozen=True), "gate": Gate(routing="top-k")}, "blends the probabilities of all experts"),
        ({"recipe": Recipe(frozen=True), "kind": "single", "experts": ("A",)}, "kind single has none with a gate"),
        (
            {"recipe": Recipe(frozen=True), "kind": "homogeneous", "experts": ("Dense",) * 2, "repeats": True},
            "kind homogeneous has none with a gate",
        ),
        ({"recipe": Recipe(frozen=1)}, "recipe.frozen is 1: it may be true or false"),
        ({"repeats": 1}, "repeats is 1: it may be true or false"),
        ({"kind": "single", "experts": ("A", "B")}, "kind single takes one family, not 2: A and B"),
        ({"losses": Losses(load=0.1), "gate": Gate(routing="top-k", noise=0)}, "losses.load is defined under noise"),
    ],
)
def test_parts_that_exclude_each_other(changes: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        check_plan(replace(ROUTED, **changes))


def test_parts_that_go_together() -> None:
    check_plan(Plan(experts=tuple("ABCD"), recipe=Recipe(frozen=True)))
    check_plan(replace(ROUTED, losses=Losses(load=0.1), gate=Gate(routing="top-k", noise=0.5)))
    check_plan(Plan(experts=("A", "A", "B"), repeats=True))
    check_plan(Plan(experts=("a-b.c_1", "B")))
    check_plan(Plan(experts=("A", "B"), rates=(("A", 0), ("B", 1e3))))
    check_plan(Plan(experts=("A", "B"), recipe=Recipe(frozen=True), rates=(("A", 1),)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"experts": tuple(f"F{number}" for number in range(65))},
            "a mixture takes 2 to 64 experts, not 65: F0, F1, F2, F3, F4, F5, F6 and 58 more",
        ),
        ({"kind": "single", "experts": ()}, "kind single takes one family, not 0: none"),
        ({"experts": ("A", 3)}, "the experts of a plan are names of families, in quotes"),
        (
            {"experts": ("A", "B", "C D")},
            "'C D' is not the name of a family: letters, digits, hyphens, points, underscor",
        ),
        ({"recipe": Recipe(mixup=True)}, "recipe.mixup is True: it must be a number"),
        ({"recipe": Recipe(clip=10**400)}, f"recipe.clip is 1{'0' * 38}…: it must lie between 1e-06 and 1000000.0"),
        ({"gate": Gate(depth=1.5)}, "gate.depth is 1.5: it must be a whole number"),
        ({"gate": Gate(k=1.5)}, "gate.k is 1.5: it must be a whole number"),
        (
            {"gate": Gate(network="dense")},
            "gate.network is 'dense': for kind hetero it may be convolution or convolution_linear or linear",
        ),
        ({"rates": (("A", -0.1),)}, "rates.A is -0.1: it must lie between 0 and 1000.0"),
        ({"rates": (("B", "high"),)}, "rates.B is 'high': it must be a number"),
        ({"rates": (("B", 2.0),), "recipe": Recipe(frozen=True)}, "[rates] are of experts that are trained: leave"),
        (
            {"kind": "homogeneous", "experts": ("Dense", "Dense"), "rates": (("Dense", 2.0),)},
            "[rates] are of families: kind homogeneous has none of its own",
        ),
        ({"losses": Losses(load=0.1)}, 'losses.load evens out a choice of experts: it needs gate.routing = "top-k"'),
    ],
)
def test_messages_of_refused_plans(changes: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError) as refused:
        check_plan(replace(Plan(experts=tuple("ABCD")), **changes))
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("most", "message"),
    [(1, "kind pair takes one family, not 3: A, B and C"), (2, "a mixture takes 1 to 2 experts, not 3: A, B and C")],
)
def test_a_kind_of_up_to_two_experts_is_a_mixture(monkeypatch: pytest.MonkeyPatch, most: int, message: str) -> None:
    monkeypatch.setitem(KINDS, "pair", Kind(template="families", gate="convolution", experts=(1, most)))
    for count in range(1, most + 1):
        check_plan(Plan(experts=("A", "B")[:count], kind="pair", gate=Gate(k=1)))
    with pytest.raises(PlanError) as refused:
        check_plan(Plan(experts=("A", "B", "C"), kind="pair"))
    assert str(refused.value) == message


# Plans of campaigns, whose experts are drawn

FROZEN = "recipe.frozen is for experts that were trained alone: nngen surrogate gates --train"
FOUR = "a campaign draws four families, and kind {} does not take them"


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(experts=(), kind="single"), FOUR.format("single")),
        (Plan(experts=(), kind="homogeneous"), FOUR.format("homogeneous")),
        (Plan(experts=(), kind="few"), FOUR.format("few")),
        (Plan(experts=(), kind="other"), "no kind of mixture is called 'other': there are hetero, homogeneous, single"),
        (Plan(experts=(), gate=Gate(width=1)), "gate.width is 1: it must lie between 2 and 4096"),
        (Plan(experts=(), recipe=Recipe(frozen=True)), FROZEN),
        (Plan(experts=(), rates=(("ICNet", 2e3),)), "rates.ICNet is 2000.0: it must lie between 0 and 1000.0"),
    ],
)
def test_plans_that_no_campaign_can_draw_for(plan: Plan, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "few", Kind(template="families", gate="convolution", experts=(2, 3)))
    with pytest.raises(PlanError) as refused:
        check_drawn(plan)
    assert str(refused.value).startswith(message)


def test_plans_that_a_campaign_draws_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "four", Kind(template="families", gate="convolution", experts=(2, 4)))
    for plan in (Plan(experts=()), Plan(experts=("not looked at",)), Plan(experts=(), kind="four")):
        check_drawn(plan)
