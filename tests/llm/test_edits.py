"""Edits of a plan: writing, reading, schema and grammar."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optional import needs

from nngen.llm.proposals.edits import MOST_CHANGES, edit_between, edit_grammar, edit_text
from nngen.llm.proposals.parsing import Fault, ReplyError
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.plan import Plan
from nngen.surrogate.plan_text import plan_text

NAMES = tuple(f"Family{number}" for number in range(9))
SPACE = PlanSpace(families=NAMES)
PARENT = Plan(experts=NAMES[:4])


@given(st.integers(0, 2**32 - 1), st.integers(1, MOST_CHANGES))
def test_an_edit_leads_from_the_parent_to_the_child(seed: int, steps: int) -> None:
    rng = Random(seed)
    parent = child = SPACE.draw(rng)
    for _ in range(steps):
        child = SPACE.mutate(child, rng)
    edit = edit_between(parent, child)
    if edit is None:  # two experts were replaced, one that came got a rate, or the steps led back
        came = {*child.experts} - {*parent.experts}
        assert parent == child or len(came) > 1 or any(name in came for name, _ in child.rates)
    else:
        assert SPACE.read(edit_text(edit), parent) == child
        assert len(edit) <= steps


def test_plans_that_differ_in_more_have_no_edit() -> None:
    gate = replace(PARENT.gate, width=64, depth=1, noise=0.0)
    assert edit_between(PARENT, replace(PARENT, gate=gate)) == {"gate.width": 64, "gate.depth": 1, "gate.noise": 0}
    assert edit_between(PARENT, replace(PARENT, gate=gate, experts=(*NAMES[:3], NAMES[5]))) is None
    assert edit_between(PARENT, replace(PARENT, experts=NAMES[2:6])) is None
    assert edit_between(PARENT, PARENT) is None
    routed = replace(PARENT, gate=replace(PARENT.gate, width=64, learned_noise=True))
    assert edit_between(PARENT, routed) is None
    # An expert that comes has no rate of its own yet.
    came = replace(PARENT, experts=(*NAMES[:3], NAMES[5]), rates=((NAMES[5], 0.1),))
    assert edit_between(PARENT, came) is None
    assert edit_between(PARENT, replace(came, rates=((NAMES[0], 0.1),))) == {
        "experts": f"{NAMES[3]}->{NAMES[5]}",
        f"rates.{NAMES[0]}": 0.1,
    }


@pytest.mark.parametrize(
    "reply",
    [
        '{"gate.width":64,"experts":"Family1->Family7"}',
        '{"experts": "Family1 \u2192 Family7", "gate": {"width": 64}}',
        'I change two things: {"change": {"experts": "Family1->Family7", "gate.width": 64, "recipe.mixup": null}}.',
        '```json\n{"gate.width": 64.0, "experts": "Family1->Family7", "gate.depth": 3}\n```',
        plan_text(replace(PARENT, experts=("Family0", "Family2", "Family3", "Family7"))).replace(
            '"width":32', '"width":64'
        ),
    ],
)
def test_edits_are_read_in_every_dress(reply: str) -> None:
    child = SPACE.read(reply, PARENT)
    assert child.experts == ("Family0", "Family2", "Family3", "Family7")
    assert replace(child, experts=PARENT.experts) == replace(PARENT, gate=replace(PARENT.gate, width=64))


@pytest.mark.parametrize(
    ("reply", "fault", "message"),
    [
        ('{"recipe.mixap": 0}', Fault.NOT_A_PLAN, "no field 'recipe.mixap'; did you mean recipe.mixup"),
        ('{"mixup": 0}', Fault.NOT_A_PLAN, "'mixup' is not a part of a plan"),
        ('{"recipe.mixup": 0.7}', Fault.RANGE, "recipe.mixup is 0.7; it may be"),
        ('{"recipe.mixup": [0]}', Fault.RANGE, r"recipe.mixup is \[0\]"),
        ("{}", Fault.UNCHANGED, "changes nothing"),
        ('{"recipe.mixup": null}', Fault.UNCHANGED, "changes nothing"),
        ('{"recipe.mixup": 0.2}', Fault.UNCHANGED, "has these values already"),
        ('{"experts": "Family8->Family7"}', Fault.FAMILY, "the plan has no expert 'Family8'"),
        ('{"experts": "Family1->Famly7"}', Fault.FAMILY, "did you mean Family7"),
        ('{"experts": "Family1->Family2"}', Fault.FAMILY, "has the expert Family2 already"),
        ('{"experts": "Family7"}', Fault.FAMILY, "OLD->NEW to replace one"),
        ('{"experts": {"old": 3}}', Fault.FAMILY, "OLD->NEW to replace one"),
        ("no change today", Fault.NO_BLOCK, "write one JSON object"),
    ],
)
def test_replies_that_are_not_edits_have_a_fault(reply: str, fault: Fault, message: str) -> None:
    with pytest.raises(ReplyError, match=message) as caught:
        SPACE.read(reply, PARENT)
    assert caught.value.fault is fault


def test_an_edit_without_a_parent_is_refused() -> None:
    with pytest.raises(ReplyError, match="experts must be 4 names"):
        SPACE.read('{"recipe.mixup": 0}')


def test_a_parent_outside_of_the_space_takes_a_whole_plan() -> None:
    for parent in (
        None,
        Plan(experts=("Family0", "Gone", "Family3", "Family4")),
        Plan(experts=("Family0",) * 4, kind="homogeneous", repeats=True),
    ):
        assert SPACE.edits(parent) == {}
        assert SPACE.reply_schema(parent) == SPACE.schema()


def test_the_schema_offers_no_value_of_the_parent() -> None:
    fields: dict[str, Any] = SPACE.reply_schema(PARENT)["properties"]
    assert fields["gate.width"] == {"enum": [16, 64]}
    assert len(fields["experts"]["enum"]) == 4 * 5
    for path, field in fields.items():
        for value in field["enum"]:
            assert SPACE.read(json.dumps({path: value}), PARENT) != PARENT


def test_the_grammar_names_each_field_once_and_in_order() -> None:
    grammar = edit_grammar({"a": (1,), "b": (2, "x"), "c": (3,)})
    rules = dict(re.findall(r"^(\w+): (.*)$", grammar, re.MULTILINE))
    assert rules["start"] == '"{" r0_3 "}"'
    assert rules["F1"] == r'"\"b\":2" | "\"b\":\"x\""'
    assert rules["r0_3"] == 'F0 | F0 "," r1_2 | F1 | F1 "," r2_2 | F2'
    assert rules["r2_1"] == "F2"
    assert set(re.findall(r"\br\d_\d", grammar)) <= set(rules)


@pytest.mark.slow
@needs("llm", "llguidance", "transformers")
def test_the_grammar_accepts_every_edit_and_nothing_after_it(tokenizer: Any) -> None:
    from nngen.llm.rewriters.decoding import PlanMatcher, tokenizer_for_grammar

    wrapped, rng = tokenizer_for_grammar(tokenizer, len(tokenizer)), Random(0)
    for _ in range(12):
        parent = SPACE.draw(rng)
        values = SPACE.edits(parent)
        chosen = sorted(rng.sample(list(values), rng.randint(1, 3)), key=list(values).index)
        text = edit_text({path: rng.choice(values[path]) for path in chosen})
        matcher = PlanMatcher(wrapped, SPACE, parent)
        for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
            assert matcher.allowed(len(tokenizer))[token], text
            matcher.consume(token)
        allowed = matcher.allowed(len(tokenizer)).nonzero().flatten().tolist()
        assert allowed == [tokenizer.eos_token_id]
