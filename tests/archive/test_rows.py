"""Values and the text of their columns: what is parsed quickly reads the same as what is parsed slowly."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nngen.archive import LoopRole
from nngen.archive.rows import trials
from nngen.archive.rows.builders import campaign_from_row, campaign_to_text, names_from_row
from nngen.archive.rows.columns import DamagedRowError, amount, check_texts, checked, share
from nngen.archive.rows.trials import TrialRows
from nngen.archive.rows.values import (
    dump,
    environment_to_text,
    plan_from_text,
    plan_id,
    spec_from_text,
    spec_to_text,
    verdict_from_row,
)
from nngen.plan import Plan
from nngen.testing.fakes import fake_record
from nngen.types import Outcome, Shape, Trial, TrialSpec, Verdict

SPEC = TrialSpec(dataset="digits", shape=Shape(1, 8, 8), seed=3)
NAMES = st.lists(st.text(st.sampled_from('AB"\\,[] é'), min_size=1, max_size=6), min_size=1, max_size=4, unique=True)


def line(**changes):
    """Return a row of ``LINES`` in the order of its columns."""
    row = {
        "id": 1,
        "campaign": "one",
        "position": 2,
        "rung": 3,
        "replicate": 4,
        "state": "done",
        "candidate_id": "c",
        "outcome": "valid",
        "validation_accuracy": 0.5,
        "suspect": "",
        "spec": spec_to_text(SPEC),
        "plan": dump(Plan(experts=("A", "B")).to_dict()),
    }
    return Row(row | changes)


class Row(dict):
    """A row that is unpacked to its values, as one of SQLite."""

    def __iter__(self):
        return iter(self.values())

    def keys(self):
        return list(super().keys())


@given(names=NAMES)
def test_experts_of_any_name_are_read_as_json_reads_them(names):
    text = dump({"experts": names, "gate": {"width": 8}})
    expected = tuple(names)
    assert TrialRows().line(line(plan=text)).experts == expected
    assert TrialRows().line(line(plan=json.dumps({"experts": names}))).experts == expected


@given(names=NAMES)
def test_plans_of_any_names_are_read_as_json_reads_them(names):
    plan = Plan(experts=tuple(names))
    text = dump(plan.to_dict())
    made = TrialRows()
    for _ in range(2):
        assert made.named_plan({"id": "c", "plan": text}) == ("c", plan)
    assert plan_from_text(text) == plan
    assert plan_id(plan) == plan_id(replace(plan)) != plan_id(replace(plan, experts=("other",)))


def counting(monkeypatch, name):
    """Count the calls of a function of the module that reads rows."""
    calls, function = [], getattr(trials, name)
    monkeypatch.setattr(trials, name, lambda text: calls.append(text) or function(text))
    return calls


def test_what_the_trials_of_a_campaign_share_is_parsed_once(monkeypatch):
    """Their plans differ in the experts, and their specifications in the seed."""
    plans, specs = counting(monkeypatch, "plan_from_text"), counting(monkeypatch, "spec_from_text")
    empty = dict.fromkeys([*trials._SAME, *trials.SCORED, "test_accuracy", "environment", "outcome", "given_isolation"])
    made = TrialRows()
    for names, seed in (("ABCD", 0), ("ABCE", 70), (["É", "Eight-2"], 8), (["alone"], 2**62)):
        plan, spec = Plan(experts=tuple(names)), replace(SPEC, seed=seed)
        row = empty | {"plan": dump(plan.to_dict()), "spec": spec_to_text(spec), "state": "ready", "suspect": ""}
        trial = made.trial(row, [])
        assert (trial.plan, trial.spec, trial.given) == (plan, spec, False)
        assert made.trial(row, []).plan is trial.plan
    assert len(plans) == len(specs) == 1
    odd = Plan(experts=('quoted "A"', "B"))
    assert made.named_plan({"id": "c", "plan": dump(odd.to_dict())}) == ("c", odd)
    assert len(plans) == 2


@pytest.mark.parametrize("names", ["ABCD", ["one"], ["Eight-2", "É", "[x]"]])
def test_experts_of_usual_names_are_read_without_the_rest_of_the_plan(names):
    text = dump(Plan(experts=tuple(names)).to_dict())
    end = text.index('],"') + 1
    assert text[end:].startswith(',"')
    found = TrialRows().line(line(plan=text[:end] + " and what is no JSON"))
    assert found.experts == tuple(names)


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"b":["A","B"],"experts":["C","D"]}',
        '{"experts": ["C","D"]}',
        '{"experts":["C", "D"]}',
        '{"experts":["C","D"],"a":"]"}',
        '{"experts":["C","\\u0044"]}',
    ],
)
def test_experts_of_plans_that_others_wrote_are_found(text):
    assert TrialRows().line(line(plan=text)).experts == ("C", "D")


@pytest.mark.parametrize(
    ("trial", "text"),
    [
        (Trial(candidate_id="c", spec=SPEC, verdict=Verdict(outcome=Outcome.VALID)), "{}"),
        (
            Trial(candidate_id="c", spec=SPEC, verdict=Verdict(outcome=Outcome.VALID), epochs_before=0, energy_j=0.0),
            '{"energy_j":"0.000","epochs_before":"0"}',
        ),
        (
            Trial(
                candidate_id="c",
                spec=SPEC,
                verdict=Verdict(outcome=Outcome.VALID),
                environment={"z": "1", "batch": "mine"},
                batch=4,
                predicted_mib=2.5,
                energy_j=0.0006,
            ),
            '{"batch":"4","energy_j":"0.001","predicted_mib":"2","z":"1"}',
        ),
    ],
    ids=["nothing", "zero", "rounded"],
)
def test_an_environment_has_the_conditions_that_are_known(trial, text):
    assert environment_to_text(trial) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1}', "environment cannot be read (its values are not all texts)"),
        ('{"batch": "4", "a": null}', "environment cannot be read (its values are not all texts)"),
        ('{"batches_tried": "4,x"}', "environment cannot be read (invalid literal for int() with base 10: '4,x')"),
    ],
)
def test_an_environment_is_texts(text, reason):
    empty = dict.fromkeys([*trials._SAME, *trials.SCORED, "test_accuracy", "spec", "outcome", "given_isolation"])
    row = empty | {"plan": dump(Plan(experts=("A",)).to_dict()), "state": "ready", "suspect": "", "environment": text}
    with pytest.raises(DamagedRowError) as caught:
        TrialRows().trial(row, [])
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"plan": '{"experts": [1]}'}, "plan cannot be read ("),
        ({"plan": "{"}, "plan is not valid JSON"),
        ({"spec": "{}"}, "spec cannot be read"),
        ({"outcome": "great"}, "outcome cannot be read ('great' is not a valid Outcome)"),
        ({"state": "lost"}, "state cannot be read ('lost' is not a valid TrialState)"),
        ({"validation_accuracy": 1.5}, "validation_accuracy cannot be read (1.5 is not between 0 and 1)"),
        ({"campaign": None}, "a column has another type"),
    ],
)
def test_the_column_that_cannot_be_read_is_named(changes, reason):
    with pytest.raises(DamagedRowError) as caught:
        TrialRows().line(line(**changes))
    assert str(caught.value).startswith(reason)


def test_a_line_has_the_seed_of_its_specification():
    found = TrialRows().line(line())
    assert (found.id, found.campaign, found.position, found.rung, found.replicate) == (1, "one", 2, 3, 4)
    assert (found.seed, found.outcome, found.experts) == (3, Outcome.VALID, ("A", "B"))
    assert TrialRows().line(line(spec=None, plan=None, outcome=None)).seed == 4


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pool": {"A": "f"}, "left_out": {"B": "no"}, "data_fingerprint": "d", "classes": 3, "known": 2, "nngen": "1"},
        {"candidates": ("c1", "c2"), "pool": {}},
        {"loop": "l", "cycle": 0, "role": LoopRole.CYCLE},
    ],
)
def test_a_campaign_is_read_as_it_was_written(changes):
    record = fake_record("one", **changes)
    text = campaign_to_text(record)
    row = {"spec": text, "loop": record.loop, "cycle": record.cycle, "role": record.role, "created_at": ""}
    assert campaign_from_row(row) == record
    inputs = {"left_out", "data_fingerprint", "classes", "known", "nngen", "candidates"}
    assert inputs & json.loads(text).keys() == inputs & changes.keys()
    assert "pool" in json.loads(text)


def test_a_campaign_is_told_with_its_inputs():
    record = fake_record("one", classes=3, known=2, nngen="1", data_fingerprint="d", pool={"A": "f"})
    found = record.arguments()
    assert {name: found[name] for name in ("classes", "known", "nngen", "data_fingerprint", "name")} == {
        "classes": 3,
        "known": 2,
        "nngen": "1",
        "data_fingerprint": "d",
        "name": "one",
    }
    assert found.keys() >= record.spec.to_dict().keys()
    assert (record.name, record.fidelity) == ("one", record.spec.trial(seed=0).fidelity("d"))


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({}, set()),
        ({"start": "abc"}, {"start"}),
        ({"horizon": 9}, {"horizon"}),
        ({"class_weights": "balanced"}, {"class_weights"}),
        ({"train_size": 5, "augment": "flip"}, {"train_size", "augment"}),
    ],
)
def test_later_fields_of_a_specification_are_written_where_they_are_set(changes, keys):
    spec = replace(SPEC, **changes)
    text = spec_to_text(spec)
    later = {"start", "horizon", "class_weights", "train_size", "augment"}
    assert later & json.loads(text).keys() == keys
    assert json.loads(text)["shape"] == "1x8x8"
    assert spec_from_text(text) == spec


def test_missing_texts_of_a_verdict_are_empty():
    row = {"outcome": "shape", "rule": None, "message": None, "line": None}
    assert verdict_from_row(row) == Verdict(outcome=Outcome.SHAPE)
    full = {"outcome": "shape", "rule": "r", "message": "m", "line": 4}
    assert verdict_from_row(full) == Verdict(outcome=Outcome.SHAPE, rule="r", message="m", line=4)


@pytest.mark.parametrize("text", ['{"a": 1}', "[1]", '["a", 1]', "3", "null"])
def test_names_are_a_list_of_texts(text):
    with pytest.raises(DamagedRowError, match=r"^names cannot be read \(it is not a list of names\)$"):
        names_from_row({"names": text})
    assert names_from_row({"names": '["a", "é"]'}) == ("a", "é")


def test_long_values_are_cut_in_messages():
    for check, tail in ((share, "is not between 0 and 1"), (amount, "is not an amount")):
        with pytest.raises(ValueError, match="^'x{39} " + tail):
            check("x" * 100)
    with pytest.raises(TypeError, match=r"^cycle is 'x{59}$"):
        checked(fake_record("one", cycle="x" * 100))


def test_texts_of_any_script_are_read():
    check_texts({"a": "", "b": "日本", "c": 5, "d": None, "e": b"\xff"})
    with pytest.raises(DamagedRowError, match=r"^c is not UTF-8$"):
        check_texts({"a": "日本", "b": 3, "c": "\udc80", "d": "x"})


def test_json_of_columns_is_the_same_for_equal_values():
    assert dump({"b": [1, 2], "a": "é"}) == '{"a":"é","b":[1,2]}'
