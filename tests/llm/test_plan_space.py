"""Space of plans: draws, mutations, schema."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nngen.assembly.plan_validation import check_plan
from nngen.llm.proposals.edits import edit_between
from nngen.llm.proposals.parsing import Fault, ReplyError
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.plan import Gate, Losses, Plan, Recipe
from nngen.surrogate.plan_text import CHOICES, field_value, fixed_fields, plan_text

NAMES = tuple(f"Family{number}" for number in range(9))
SPACE = PlanSpace(families=NAMES)


@given(st.integers(0, 2**32 - 1))
def test_every_draw_is_read_back_and_can_be_assembled(seed: int) -> None:
    plan = SPACE.draw(Random(seed))
    check_plan(plan)
    assert SPACE.read(plan_text(plan)) == plan


@given(st.integers(0, 2**32 - 1))
def test_a_mutation_changes_one_thing(seed: int) -> None:
    rng = Random(seed)
    before = SPACE.draw(rng)
    after = SPACE.mutate(before, rng)
    check_plan(after)
    edit = edit_between(before, after)
    assert edit is not None
    assert len(edit) == 1


@given(st.integers(0, 2**32 - 1))
def test_a_cross_over_takes_every_value_from_a_parent_and_repeats_neither(seed: int) -> None:
    rng = Random(seed)
    one, other = SPACE.draw(rng), SPACE.draw(rng)
    child = SPACE.cross(one, other, rng)
    check_plan(child)
    assert child not in (one, other)
    assert set(child.experts) <= {*one.experts, *other.experts}
    assert all(field_value(child, path) in (field_value(one, path), field_value(other, path)) for path in CHOICES)
    for name in child.experts:
        owners = [plan for plan in (one, other) if name in plan.experts]
        assert field_value(child, f"rates.{name}") in {field_value(plan, f"rates.{name}") for plan in owners}
    assert SPACE.cross(one, one, rng) != one


def test_the_space_of_recorded_plans_has_what_they_vary_and_the_usual_values_in_between() -> None:
    plans = [
        Plan(experts=NAMES[:4], gate=Gate(width=16), losses=Losses(z=0.001), rates=((NAMES[0], 0.1),)),
        Plan(experts=NAMES[1:5], gate=Gate(width=48, routing="top-k"), losses=Losses(z=0.001)),
        Plan(experts=NAMES[1:5]),
        Plan(experts=NAMES[:1], kind="single", gate=Gate(width=512)),
    ]
    space = PlanSpace.spanned(NAMES, plans)
    assert space.choices["gate.width"] == (16, 32, 48)
    assert space.choices["gate.routing"] == ("soft", "top-k")
    assert space.rates == (0.1, 0.3, 1.0)
    others = space.choices.keys() - {"gate.width", "gate.routing"}
    assert {len(space.choices[path]) for path in others} == {1}
    drawn = {space.draw(Random(seed)) for seed in range(40)}
    assert {plan.losses.z for plan in drawn} == {0.001}
    assert {rate for plan in drawn for _, rate in plan.rates} == {0.1, 0.3}
    assert {plan.gate.width for plan in drawn} == {16, 32, 48}
    for plan in drawn:
        child = space.mutate(plan, Random(0))
        assert child != plan
        assert space.read(plan_text(child)) == child
    with pytest.raises(ReplyError, match=r"gate\.width is 64"):
        space.read(plan_text(replace(plans[0], gate=Gate(width=64))))


def test_without_anything_to_vary_a_plan_stays_as_it_is() -> None:
    plan = Plan(experts=NAMES[:4])
    space = PlanSpace.spanned(NAMES[:4], [plan])
    assert space.draw(Random(0)) == space.mutate(plan, Random(0)) == space.cross(plan, plan, Random(0)) == plan
    assert space.edits(plan) == {}


@pytest.mark.parametrize(
    "parent",
    [
        Plan(experts=("Family0", "Gone", "Family3", "Lost")),
        Plan(experts=("Family0",) * 4, kind="homogeneous", repeats=True),
        Plan(experts=("One", "Two", "Three", "Four"), kind="alexnet"),
    ],
)
def test_experts_outside_of_the_pool_are_replaced_and_the_child_is_a_quartet(parent: Plan) -> None:
    for seed in range(20):
        child = SPACE.mutate(parent, Random(seed))
        assert SPACE.read(plan_text(child), parent) == child
        check_plan(child)
        assert (child.kind, child.repeats) == ("hetero", False)


def test_fixed_fields_are_those_that_the_text_leaves_out() -> None:
    plain = SPACE.draw(Random(0))
    other = replace(plain, losses=replace(plain.losses, entropy=0.01))
    assert plan_text(plain) == plan_text(other)
    assert fixed_fields(plain) != fixed_fields(other)
    assert fixed_fields(plain) == fixed_fields(SPACE.draw(Random(1))) == fixed_fields(SPACE.mutate(plain, Random(2)))
    # A child keeps the fixed fields of its parent.
    assert (
        fixed_fields(SPACE.mutate(other, Random(0)))
        == fixed_fields(SPACE.read(plan_text(plain), other))
        == fixed_fields(other)
    )


@pytest.mark.parametrize(
    ("parent", "held"),
    [
        (Plan(experts=NAMES[:4], gate=Gate(routing="top-k"), losses=Losses(bias=0.1)), {"gate.routing"}),
        (
            Plan(experts=NAMES[:4], gate=Gate(routing="top-k"), losses=Losses(load=0.1)),
            {"gate.routing", "gate.noise"},
        ),
        (Plan(experts=NAMES[:4], gate=Gate(learned_noise=True)), {"gate.noise"}),
        (Plan(experts=NAMES[:4], recipe=Recipe(frozen=True)), {"gate.routing"}),
        (Plan(experts=NAMES[:4]), set()),
    ],
)
def test_fields_that_other_fields_need_are_not_changed(parent: Plan, held: set[str]) -> None:
    assert SPACE.choices.keys() - SPACE.fields(parent).keys() == held
    assert not held & SPACE.edits(parent).keys()
    assert replace(SPACE, base=parent).fields().keys() == SPACE.fields(parent).keys()
    plain = replace(SPACE, rates=(1.0,))
    for seed in range(60):
        check_plan(plain.mutate(parent, Random(seed)))


def test_a_whole_plan_names_every_rate_and_an_edit_keeps_them() -> None:
    parent = Plan(experts=NAMES[:4], rates=((NAMES[0], 0.1), (NAMES[3], 3)))
    assert SPACE.read(plan_text(replace(parent, rates=())), parent).rates == ()
    assert SPACE.read('{"recipe.mixup":0}', parent).rates == parent.rates
    assert SPACE.read(f'{{"experts":"{NAMES[0]}->{NAMES[5]}"}}', parent).rates == ((NAMES[3], 3),)
    assert SPACE.read(f'{{"rates.{NAMES[1]}":3,"rates.{NAMES[0]}":1}}', parent).rates == ((NAMES[1], 3), (NAMES[3], 3))
    assert SPACE.edits(parent)[f"rates.{NAMES[0]}"] == (0.3, 1, 3)
    for reply, fault in (
        (f'{{"rates.{NAMES[5]}":0.1}}', Fault.FAMILY),
        ('{"rates.Nobody":0.1}', Fault.NOT_A_PLAN),
        (f'{{"rates":{{"{NAMES[0]}":7}}}}', Fault.RANGE),
    ):
        with pytest.raises(ReplyError) as refused:
            SPACE.read(reply, parent)
        assert refused.value.fault is fault


def test_draws_are_uniform_over_families() -> None:
    rng = Random(0)
    counts = dict.fromkeys(NAMES, 0)
    for _ in range(2000):
        for name in SPACE.draw(rng).experts:
            counts[name] += 1
    # Each is drawn with probability 4/9: 889 expected, a standard deviation of 22.
    assert all(abs(count - 2000 * 4 / 9) < 5 * 22.3 for count in counts.values())


def test_the_schema_follows_the_dataclass() -> None:
    schema = SPACE.schema()
    default = asdict(Plan(experts=()))
    groups = {path.split(".")[0] for path in CHOICES}
    assert set(schema["properties"]) == {"experts", *groups}
    for group in groups:
        assert set(schema["properties"][group]["properties"]) <= set(default[group])


def test_chosen_experts_leave_the_schema() -> None:
    items = SPACE.schema(("Family3", "Family1"))["properties"]["experts"]["prefixItems"]
    assert items[:2] == [{"const": "Family3"}, {"const": "Family1"}]
    assert items[2]["enum"] == [name for name in NAMES if name not in ("Family3", "Family1")]


def _changed(**changes: object) -> str:
    data = json.loads(plan_text(SPACE.draw(Random(1))))
    return json.dumps({**data, **changes})


@pytest.mark.parametrize(
    ("text", "fault", "message"),
    [
        ("{", Fault.NOT_JSON, "not JSON"),
        ("no plan today", Fault.NO_BLOCK, "write one JSON object"),
        ("", Fault.NO_BLOCK, "write one JSON object"),
        ("```json\n[1, 2]\n```", Fault.NO_BLOCK, "JSON object"),
        ("```\n{}\n```\nor\n```\n{}\n```", Fault.FAMILY, "4 names"),
        ('```\n{"a": 1}\n```\nor\n```\n{"a": 2}\n```', Fault.SEVERAL_BLOCKS, "2 different ones came"),
        (f"{_changed()} or rather {_changed(gate={'width': 16})}", Fault.SEVERAL_BLOCKS, "2 different ones came"),
        (f"<think>{_changed()}", Fault.CUT, "inside its reasoning"),
        (_changed()[:-9], Fault.NOT_JSON, "not JSON"),
        (_changed(experts=["Family1", "Family2"]), Fault.FAMILY, "4 names"),
        (_changed(experts=["Family1", "Family2", "Family3", "Family1"]), Fault.FAMILY, "must differ"),
        (_changed(experts=["Family1", "Family2", "Family3", "Famil4"]), Fault.FAMILY, "did you mean Family4"),
        (_changed(gate={"width": 33}), Fault.RANGE, "gate.width is 33"),
        (_changed(gate={"width": True}), Fault.RANGE, "gate.width is True"),
        (_changed(gate={"hight": 3}), Fault.NOT_A_PLAN, "no field 'gate.hight'"),
        (_changed(gate=3), Fault.NOT_A_PLAN, "'gate' is not a part"),
    ],
)
def test_replies_that_are_not_plans_have_a_fault(text: str, fault: Fault, message: str) -> None:
    with pytest.raises(ReplyError, match=message) as caught:
        SPACE.read(text)
    assert caught.value.fault is fault


PLAN = SPACE.draw(Random(3))
TEXT = plan_text(PLAN)
PRETTY = json.dumps(json.loads(TEXT), indent=4)


@pytest.mark.parametrize(
    "reply",
    [
        f"Here is my plan:\n{TEXT}\nIt uses less noise.",
        f'<think>\nLet me choose {{"a": 1}}, or {{"experts": []}}.\n</think>\n\n{TEXT}',
        f"so, {{maybe}} that\n</think>{TEXT}",
        f"Here it is:\n```json\n{PRETTY}\n```\nGood luck!",
        f"The plan is `{TEXT}`, and again:\n~~~\n{PRETTY}\n~~~",
        "\n".join(f"> {line}" for line in PRETTY.splitlines()),
        "1. The plan:\n" + "\n".join(f"       {line}" for line in PRETTY.splitlines()),
        f'{{"plan": {TEXT}, "reason": "less noise"}}',
        f"[{TEXT}]",
        f"**{TEXT}**",
        f'Given {{"gate": "small"}} I write {TEXT}',
        f"f(x) = {{x}} and {{'a': 1}}; \n\n{PRETTY}",
    ],
)
def test_the_one_plan_of_a_reply_is_found_in_every_dress(reply: str) -> None:
    assert SPACE.read(reply) == PLAN


def test_experts_are_sorted() -> None:
    data = json.loads(TEXT)
    data["experts"].reverse()
    assert SPACE.read(json.dumps(data)) == PLAN


def test_fields_a_rewriter_does_not_write_come_from_the_parent() -> None:
    parent = replace(SPACE.draw(Random(5)), kind="hetero")
    text = json.dumps({"experts": list(NAMES[:4])})
    assert SPACE.read(text, parent) == replace(parent, experts=NAMES[:4])


def test_a_space_needs_four_families() -> None:
    with pytest.raises(ReplyError, match="4 different families"):
        PlanSpace(families=NAMES[:3])
    with pytest.raises(ReplyError, match=r"no such field in a plan: gate\.colour"):
        PlanSpace(families=NAMES, choices={"gate.colour": (1, 2)})
