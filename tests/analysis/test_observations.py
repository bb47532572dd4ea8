"""Observations from hand-made trials: which count, which families fail too often, and which campaigns can be pooled."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import pytest

from nngen.analysis.observations import (
    LowYield,
    Observation,
    describe_failures,
    is_quartet,
    low_yield,
    observe,
    refuse_mixture,
    success_rates,
    trained_quartets,
    with_results,
)
from nngen.analysis.statistics import wilson
from nngen.archive import TrialLine, TrialState
from nngen.errors import UsageError
from nngen.testing.fakes import fake_record
from nngen.types import Outcome

LINE = TrialLine(
    id=1,
    campaign="one",
    position=0,
    rung=0,
    replicate=0,
    state=TrialState.DONE,
    experts=("D", "C", "B", "A"),
    candidate_id="c1",
    outcome=Outcome.VALID,
    validation_accuracy=0.5,
    seed=7,
    suspect="",
)


def failed(quartet, outcome=Outcome.MEMORY):
    return Observation(quartet=tuple(quartet), outcome=outcome)


def test_an_observation_is_of_a_candidate_and_its_accuracy_finite_or_not():
    line = Observation(quartet=tuple("DCBA"))
    assert (line.seed, line.accuracy, line.outcome, line.suspect) == (0, None, Outcome.VALID, False)
    assert line.key == (tuple("ABCD"), "")
    trained = [replace(line, accuracy=value).trained for value in (0.0, 0.5, None, math.nan, math.inf)]
    assert trained == [True, True, False, False, False]
    assert [is_quartet(experts) for experts in ("ABCD", "ABC", "ABCC", "ABCDE")] == [True, False, False, False]


def test_each_finished_quartet_of_a_rung_is_observed_once():
    trials = [
        LINE,
        LINE._replace(id=2, experts=tuple("ABCD"), validation_accuracy=0.6),  # the same work again
        LINE._replace(id=3, seed=8, suspect="perfect"),
        LINE._replace(id=4, candidate_id=None, outcome=Outcome.MEMORY, validation_accuracy=None),
        LINE._replace(id=5, candidate_id="c2", state=TrialState.RUNNING),
        LINE._replace(id=6, candidate_id="c3", rung=1),
        LINE._replace(id=7, candidate_id="c4", outcome=None),
        LINE._replace(id=8, candidate_id="c5", outcome=Outcome.DUPLICATE),
        LINE._replace(id=9, candidate_id="c6", experts=tuple("ABCC")),
        LINE._replace(id=10, candidate_id="c7", experts=tuple("ABC")),
    ]
    first = Observation(quartet=tuple("ABCD"), seed=7, accuracy=0.5, candidate="c1")
    assert observe(trials) == (
        first,
        replace(first, seed=8, suspect=True),
        replace(first, accuracy=None, outcome=Outcome.MEMORY, candidate=""),
    )
    assert observe(trials, rung=1) == (replace(first, candidate="c3"),)


def test_campaigns_have_results_from_a_finished_quartet_of_the_first_rung():
    trials = [
        LINE,
        LINE._replace(campaign="later", rung=1),
        LINE._replace(campaign="begun", state=TrialState.RUNNING),
        LINE._replace(campaign="pairs", experts=("A", "B")),
    ]
    records = [fake_record(name) for name in ("later", "one", "begun", "pairs", "none")]
    assert with_results(records, trials) == [records[1]]
    assert with_results(records, []) == []


def test_campaigns_of_several_fidelities_are_refused_by_their_names():
    same = [fake_record(name) for name in "fedcb"]
    assert refuse_mixture(same) is None
    words = (
        "the archive's campaigns differ in data, shape, training images, epochs, batch or rate, and cannot be read"
        " together: ({})"
    )
    with pytest.raises(UsageError) as error:
        refuse_mixture([*same[1:], fake_record("a", epochs=9)])
    assert str(error.value) == words.format("a, b, c, d, e")
    with pytest.raises(UsageError) as error:
        refuse_mixture([*same, fake_record("a", epochs=9)])
    assert str(error.value) == words.format("a, b, c, d, e, ...")


def test_a_family_succeeds_in_each_quartet_that_was_trained_once():
    lines = [
        failed("DCBA"),
        Observation(quartet=tuple("ABCD"), accuracy=0.5),
        failed("ABCD"),
        failed("ABCE"),
        Observation(quartet=tuple("ABDE"), accuracy=math.nan),
    ]
    assert trained_quartets(lines) == {tuple("ABCD"): True, tuple("ABCE"): False, tuple("ABDE"): False}
    found = success_rates("ADEZ", lines)
    assert found == {"A": wilson(1, 3), "D": wilson(1, 2), "E": wilson(0, 2), "Z": wilson(0, 0)}
    assert success_rates("A", lines, 0.8) == {"A": wilson(1, 3, 0.8)}


def test_failures_are_counted_by_reason_the_most_frequent_first():
    lines = [
        Observation(quartet=tuple("ABCD"), accuracy=0.5),
        Observation(quartet=tuple("ABCD")),
        Observation(quartet=tuple("ABCD"), accuracy=math.nan),
        *[failed("ABCD", Outcome.TIMEOUT)] * 1000,
        *[failed("ABCD")] * 2,
    ]
    assert describe_failures(lines) == "timeout 1,000, memory 2, accuracy not a number 1, no accuracy 1"
    assert describe_failures([]) == ""


def test_families_are_excluded_worst_first_with_the_evidence():
    lines = [failed(quartet) for quartet in combinations("ABCDE", 4)]
    lines += [failed((*trio, "Z"), Outcome.SHAPE) for trio in combinations("FGHI", 3)]
    found = low_yield(lines, "ZEDCBAFGHI")
    assert [(one.family, one.success) for one in found.excluded] == [("A", wilson(0, 4)), ("Z", wilson(0, 4))]
    assert [one.reason for one in found.excluded] == [
        "A: 0 of 4 quartets trained (0%, 95% interval 0% to 49%), below 50%; failures: memory 4",
        "Z: 0 of 4 quartets trained (0%, 95% interval 0% to 49%), below 50%; failures: shape 4",
    ]
    assert (found.kept, found.note) == (tuple("BCDEFGHI"), "")
    worse = [*lines, failed("ZFJK"), failed("ZGJK")]
    assert [one.family for one in low_yield(worse, "ABCDEFGHIJKZ").excluded] == ["Z", "A"]


def test_the_upper_end_of_the_interval_must_lie_below_the_threshold():
    lines = [failed("ABCD"), Observation(quartet=tuple("ABCE"), accuracy=0.5)]
    high = wilson(0, 1, 0.8).high
    assert low_yield(lines, "ABCDE", threshold=high, confidence=0.8).excluded == ()
    (one,) = low_yield(lines, "ABCDE", threshold=high + 1e-9, confidence=0.8).excluded
    assert one.reason == (
        f"D: 0 of 1 quartets trained (0%, 80% interval 0% to {high:.0%}), below {high:.0%}; failures: memory 1"
    )
    assert low_yield([], "ABCD", threshold=1.0).excluded == ()
    for threshold in (0, 1.01):
        with pytest.raises(ValueError, match=f"^a threshold must be above 0 and at most 1, not {threshold}$"):
            low_yield([], "ABCD", threshold=threshold)


def test_as_many_families_remain_as_a_mixture_needs():
    lines = [failed(quartet) for quartet in combinations("ABCDE", 4)]
    found = low_yield(lines, "ABCDE", threshold=0.9)
    assert [one.family for one in found.excluded] == ["A"]
    assert found.kept == tuple("BCDE")
    assert found.note == "B, C, D, E would be next, but a mixture needs 4 families"
    note = "A, B, C, D, E would be next, but a mixture needs 5 families"
    assert low_yield(lines, "ABCDE", least=5) == LowYield(excluded=(), kept=tuple("ABCDE"), note=note)
