"""Rows of a campaign's results by family, by outcome, by rung and by stage, from hand-made trials."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nngen.analysis.results import (
    FamilyRow,
    Funnel,
    OutcomeRow,
    RungRow,
    family_rows,
    finished_quartets,
    funnel,
    outcome_rows,
    replay_note,
    rung_rows,
    template_note,
)
from nngen.archive import StoredTrial, TrialState
from nngen.assembly.identity import TEMPLATE_VERSION
from nngen.plan import Plan
from nngen.types import Outcome, Verdict

DONE, READY = TrialState.DONE, TrialState.READY


def trial(experts="ABCD", accuracy=None, *, outcome=Outcome.VALID, rule="", message="", **changes):
    made = StoredTrial(
        id=1,
        campaign="one",
        position=0,
        rung=0,
        replicate=0,
        plan=Plan(experts=tuple(experts)),
        state=DONE,
        candidate_id="c",
        verdict=Verdict(outcome=outcome, rule=rule, message=message),
        validation_accuracy=accuracy,
    )
    return replace(made, **changes)


def test_a_family_is_summarised_by_its_accuracies():
    row = FamilyRow(name="A", drawn=3, done=3, trained=2, accuracies=(0.4, 0.6))
    assert (row.mean, row.std, row.best) == (0.5, pytest.approx(0.02**0.5), 0.6)
    one, none = replace(row, accuracies=(0.4,)), replace(row, accuracies=())
    assert (one.mean, one.std, one.best) == (0.4, None, 0.4)
    assert (none.mean, none.std, none.best) == (None, None, None)


def test_families_are_ordered_by_mean_and_then_by_name():
    trials = [
        trial("ABCD", 0.25),
        trial("AABE", 0.75),
        trial("ABCE", state=READY, verdict=None),
        trial("FFFF", 0.0),
        trial("GHAB", outcome=Outcome.MEMORY),
    ]
    assert family_rows("ZHFEDBA", trials) == (
        FamilyRow(name="E", drawn=2, done=1, trained=1, accuracies=(0.75,)),
        FamilyRow(name="A", drawn=4, done=3, trained=2, accuracies=(0.25, 0.75)),
        FamilyRow(name="B", drawn=4, done=3, trained=2, accuracies=(0.25, 0.75)),
        FamilyRow(name="D", drawn=1, done=1, trained=1, accuracies=(0.25,)),
        FamilyRow(name="F", drawn=1, done=1, trained=1, accuracies=(0.0,)),
        FamilyRow(name="H", drawn=1, done=1, trained=0, accuracies=()),
        FamilyRow(name="Z", drawn=0, done=0, trained=0, accuracies=()),
    )


def test_a_rung_tells_who_went_on_and_who_was_left():
    trials = [
        trial(accuracy=0.5, position=0),
        trial(accuracy=0.4, position=1),
        trial(accuracy=0.6, position=2),
        trial(position=3),
        trial(position=4, state=READY),
        trial(accuracy=0.9, position=2, replicate=1),
        trial(accuracy=0.7, position=0, rung=1),
        trial(position=1, rung=1),
        trial(accuracy=0.9, position=0, rung=1, replicate=1),
    ]
    assert rung_rows((2, 6), trials) == (
        RungRow(epochs=2, trials=5, done=4, trained=3, best=0.6, promoted=2, lowest_promoted=0.4, highest_left=0.6),
        RungRow(epochs=6, trials=2, done=2, trained=1, best=0.7, promoted=0, lowest_promoted=None, highest_left=0.7),
    )
    assert rung_rows((2,), []) == (
        RungRow(epochs=2, trials=0, done=0, trained=0, best=None, promoted=0, lowest_promoted=None, highest_left=None),
    )


def test_outcomes_are_counted_by_rule_with_the_first_message():
    trials = [
        trial(outcome=Outcome.SHAPE, rule="b", message="first"),
        trial(outcome=Outcome.SHAPE, rule="a", message="other"),
        trial(accuracy=0.5),
        trial(outcome=Outcome.SHAPE, rule="b", message="second"),
        trial(state=READY, verdict=None),
    ]
    assert outcome_rows(trials) == (
        OutcomeRow(outcome="shape", rule="b", count=2, example="first"),
        OutcomeRow(outcome="shape", rule="a", count=1, example="other"),
        OutcomeRow(outcome="valid", rule="", count=1, example=""),
    )


def test_each_stage_counts_what_reached_it():
    trials = [
        trial(accuracy=0.5, candidate_id="a"),
        trial(candidate_id="a"),
        trial(candidate_id="b"),
        trial(candidate_id=None),
        trial(candidate_id="a", state=READY),
        trial("AABC", accuracy=0.5, candidate_id="b"),
    ]
    found = funnel(trials, ["a"])
    assert found == Funnel(drawn=6, done=5, assembled=4, checked=2, trained=2)
    assert found.stages() == (("drawn", 6), ("done", 5), ("assembled", 4), ("checked", 2), ("trained", 2))
    assert finished_quartets(trials) == [tuple("ABCD")] * 4


@pytest.mark.parametrize(
    ("versions", "over", "note"),
    [
        ({}, False, ""),
        ({}, True, ""),
        ({TEMPLATE_VERSION: 3}, False, ""),
        ({0: 3}, True, ""),
        (
            {0: 3},
            False,
            "candidates assembled with older templates: 3 with version 0; open quartets are assembled with version"
            f" {TEMPLATE_VERSION}",
        ),
        (
            {0: 3, TEMPLATE_VERSION: 2},
            True,
            f"candidates assembled with older templates: 3 with version 0, 2 with version {TEMPLATE_VERSION}",
        ),
    ],
)
def test_templates_that_differ_are_noted(versions, over, note):
    assert template_note(versions, over=over) == note


def test_answers_of_a_table_are_counted_by_kind():
    assert replay_note({"table.recorded": 1}) == (
        "1 trial answered from a recorded table, not trained: 1 recorded (100%)"
    )
    answers = {"table.recorded": 1500, "table.predicted": 300, "table.outside": 150, "else": 50}
    assert replay_note(answers) == (
        "2,000 trials answered from a recorded table, not trained: "
        "1,500 recorded (75%), 300 predicted (15%), 150 refused (8%), 50 else (2%)"
    )
