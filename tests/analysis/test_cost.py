"""Cost of campaigns: time, energy and price."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nngen.analysis.cost import Share, cost, family_seconds, forecast, remaining
from nngen.archive import StoredTrial, TrialState
from nngen.archive.records import TrialScore
from nngen.plan import Plan
from nngen.space import draw
from nngen.types import Outcome, Shape, TrialSpec, Verdict

POOL = [f"F{number}" for number in range(9)]
SECONDS = {name: float(2 + number**2) for number, name in enumerate(POOL)}


def trial(quartet, place=0, *, accuracy=0.5, seconds=None, epochs=1, state=TrialState.DONE, **more):
    spent = epochs * sum(SECONDS[name] for name in quartet) if seconds is None else seconds
    return StoredTrial(
        id=place,
        campaign="c",
        position=place,
        rung=0,
        replicate=0,
        plan=Plan(experts=tuple(quartet)),
        state=state,
        candidate_id=f"MoE4-{place}",
        spec=TrialSpec(dataset="digits", shape=Shape(1, 8, 8), epochs=epochs),
        verdict=Verdict(outcome=Outcome.VALID if accuracy is not None else Outcome.TIMEOUT),
        validation_accuracy=accuracy,
        seconds=spent if state is TrialState.DONE else None,
        **more,
    )


def test_hours_money_and_energy_add_up():
    trials = [
        trial(POOL[:4], 0, seconds=1800, energy_j=360000.0),
        trial(POOL[1:5], 1, seconds=1800, accuracy=None, energy_j=720000.0),
        trial(POOL[:4], 2, seconds=9999, accuracy=0.4, copied_from=0),
    ]
    found = cost(trials, price_per_hour=2.0)
    assert (found.trials, found.copied, found.valid, found.best_accuracy) == (2, 1, 2, 0.5)
    assert found.total.hours == pytest.approx(1)
    assert found.total.money == pytest.approx(2)
    assert found.total.kwh == pytest.approx(0.3)
    assert found.failed.hours == pytest.approx(0.5)
    assert found.per_trial.hours == pytest.approx(0.5)
    assert found.per_point.hours == pytest.approx(1 / 50)
    assert found.devices == {"cpu": pytest.approx(1)}
    assert found.notes == ()
    json.dumps(found.to_dict(), allow_nan=False)


NO_ENERGY = "energy was not measured: it needs an NVIDIA device and pynvml"
NO_ACCURACY = "no candidate has an accuracy: no cost per valid candidate or per point can be computed"


@pytest.mark.parametrize(
    ("trials", "notes"),
    [
        ([], ("no trial is finished: no cost can be computed yet",)),
        ([trial(POOL[:4], accuracy=None)], (NO_ACCURACY, NO_ENERGY)),
        ([trial(POOL[:4], accuracy=math.nan, energy_j=1.0)], (NO_ACCURACY,)),
        ([trial(POOL[:4], copied_from=7)], ("every result was copied from earlier work: nothing was spent",)),
        ([trial(POOL[:4])], (NO_ENERGY,)),
        ([trial(POOL[:4], seconds=0.0)], (NO_ENERGY,)),
        ([trial(POOL[:4], energy_j=1.0), trial(POOL[:4], 1, seconds=0.0)], ()),
        ([trial(POOL[:4], state=TrialState.RUNNING)], ("no trial is finished: no cost can be computed yet",)),
    ],
)
def test_what_is_missing_is_said(trials, notes):
    found = cost(trials, 1.0)
    assert found.notes == notes
    json.dumps(found.to_dict(), allow_nan=False)


def test_hours_are_told_by_device_and_parts_are_shares():
    trials = [
        trial(POOL[:4], 0, seconds=3600.0),
        trial(POOL[:4], 1, seconds=1800.0),
        replace(trial(POOL[:4], 2, accuracy=math.inf), seconds=None),
        replace(trial(POOL[:4], 3, seconds=900.0), spec=None, candidate_id="MoE4-0"),
    ]
    trials[0] = replace(trials[0], spec=replace(trials[0].spec, device="cuda"))
    found = cost(trials)
    assert found.devices == {"cpu": 0.5, "cuda": 1.0} and list(found.devices) == ["cpu", "cuda"]
    assert (found.trials, found.valid, found.total.hours, found.failed.hours) == (4, 2, 1.75, 0.0)
    share = Share(hours=4.0, kwh=2.0, money=None)
    assert share.over(4) == Share(hours=1.0, kwh=0.5, money=None)
    assert share.over(1) == share
    assert (share.over(0), share.over(-1)) == (None, None)


def test_the_scatter_of_trials_of_one_quartet_is_their_error():
    trials = [trial(POOL[:4], place, seconds=seconds) for place, seconds in enumerate((10.0, 12.0, 14.0))]
    left_out = [
        trial(POOL[:4], 3, seconds=99.0, copied_from=0),
        trial(POOL[:4], 4, seconds=99.0, accuracy=None),
        trial(POOL[:4], 5, seconds=0.0),
    ]
    found = family_seconds([*trials, *left_out])
    assert found.seconds == {name: pytest.approx(3.0, rel=1e-5) for name in POOL[:4]}
    assert (found.typical, found.error, found.trials) == (3.0, pytest.approx(2.0), 3)
    two = family_seconds([trial(POOL[:4], seconds=8.0), trial(POOL[4:8], 1, seconds=16.0)])
    assert (two.error, two.typical) == (pytest.approx(32**0.5), 3.0)
    assert two.of(["F0", "F4", "new"]) == pytest.approx(2 + 4 + 3, rel=1e-5)


def test_seconds_are_of_the_epochs_that_a_trial_trained_itself():
    later = trial(POOL[:4], seconds=24.0, epochs=3, epochs_before=1)
    assert family_seconds([later]).typical == 3.0
    none = trial(POOL[:4], seconds=24.0, epochs=3, epochs_before=3)
    assert family_seconds([none]).typical == 6.0
    score = TrialScore(
        id=1,
        candidate_id="c",
        experts=tuple(POOL[:4]),
        spec=later.spec,
        seed=0,
        fidelity=later.fidelity,
        test_accuracy=None,
        validation_accuracy=0.5,
        seconds=24.0,
    )
    assert family_seconds([score]).typical == 2.0


def test_the_seconds_of_each_family_come_back_whatever_the_epochs():
    trials = [trial(q, i, epochs=1 + i % 3) for i, q in enumerate(draw("random", POOL, 40, 0))]
    measured = family_seconds(trials)
    for name in POOL:
        assert measured.seconds[name] == pytest.approx(SECONDS[name], rel=1e-2, abs=0.05)


def test_forecast_and_remaining_agree_with_what_is_spent_in_the_end():
    quartets = draw("random", POOL, 60, 1)
    begun = [
        trial(q, i, epochs=2, state=TrialState.DONE if i < 30 else TrialState.READY) for i, q in enumerate(quartets)
    ]
    left = remaining(begun, family_seconds(begun), epochs=2, price_per_hour=3.0)
    truly = 2 * sum(SECONDS[name] for quartet in quartets[30:] for name in quartet) / 3600
    assert left.trials == 30
    assert left.hours == pytest.approx(truly, rel=1e-2)
    assert left.low <= left.hours <= left.high
    assert left.money == pytest.approx(3 * left.hours)
    assert left.unmeasured == ()


def test_a_family_that_was_never_measured_is_typical_and_named():
    measured = family_seconds([trial(POOL[:4], 0, seconds=40.0)])
    found = forecast([("F0", "F1", "F2", "new")], measured)
    assert found.hours * 3600 == pytest.approx(40, rel=1e-3)
    assert found.unmeasured == ("new",)


def test_nothing_measured_nothing_foretold():
    assert family_seconds([]) is None
    assert remaining([trial(POOL[:4], state=TrialState.READY)], None) is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(draw("random", POOL, 20, 2)), st.floats(0.01, 1e5)), min_size=1, max_size=30))
def test_seconds_are_never_negative(rows):
    measured = family_seconds([trial(quartet, i, seconds=seconds) for i, (quartet, seconds) in enumerate(rows)])
    assert min(measured.seconds.values()) >= 0
    assert forecast([q for q, _ in rows], measured).low >= 0


def test_a_forecast_from_too_few_trials_is_not_sure_of_itself():
    alone = family_seconds([trial(POOL[:4])])
    assert alone.error == pytest.approx(sum(SECONDS[name] for name in POOL[:4]))
    two = family_seconds([trial(POOL[:4]), trial(POOL[4:8], 1)])
    assert two.error > 0
    ahead = forecast([POOL[:4]], two)
    assert ahead.low < ahead.hours < ahead.high


def test_the_interval_of_a_forecast_is_the_scatter_of_the_trials_and_the_error_of_their_mean():
    quartets = draw("random", POOL, 12, 3)
    measured = family_seconds(
        [trial(q, i, seconds=sum(SECONDS[n] for n in q) + (-1) ** i * 8) for i, q in enumerate(quartets)]
    )
    found = forecast(quartets[:5], measured, epochs=3)
    half = 1.96 * 3 * measured.error * math.sqrt(5 + 25 / 12) / 3600
    assert found.high - found.hours == pytest.approx(half)
    assert found.hours - found.low == pytest.approx(min(half, found.hours))
    assert (found.money, forecast(quartets[:5], measured, price_per_hour=2.0).money) == (
        None,
        pytest.approx(2.0 * forecast(quartets[:5], measured).hours),
    )


def test_quartets_that_are_not_drawn_yet_have_typical_families():
    trials = [trial(POOL[:4], 0), trial(POOL[4:8], 1), trial(POOL[1:5], 2, state=TrialState.READY)]
    measured = family_seconds(trials)
    left = remaining(trials, measured, size=5)
    assert left.trials == 3
    assert left.hours * 3600 == pytest.approx(measured.of(POOL[1:5]) + 2 * 4 * measured.typical)
    assert remaining(trials, measured, size=2).trials == 1
    nothing = remaining([], measured)
    assert (nothing.trials, nothing.hours, nothing.low, nothing.high) == (0, 0.0, 0.0, 0.0)
    plain, twice = forecast([POOL[:4]], measured), forecast([POOL[:4]], measured, epochs=2)
    assert (plain.trials, plain.hours * 3600) == (1, pytest.approx(measured.of(POOL[:4])))
    assert twice.hours == pytest.approx(2 * plain.hours)
    assert plain.to_dict()["hours"] == plain.hours


def test_costs_of_parts_need_parts():
    nothing = cost([trial(POOL[:4], accuracy=None)], 1.0)
    assert (nothing.per_valid, nothing.per_point, nothing.best_accuracy) == (None, None, None)
    assert nothing.per_trial == nothing.total == nothing.failed
    assert cost([]).per_trial is None
    assert cost([trial(POOL[:4])]).total.money is None
    assert cost([trial(POOL[:4], energy_j=1.0), trial(POOL[:4], 1)]).total.kwh is None
