"""Gains of mixtures over their families alone, computed by hand from four images, and what the rows say together."""

from __future__ import annotations

from dataclasses import asdict, replace
from statistics import fmean

import numpy as np
import pytest

from nngen.analysis.quality.gains import Gain, Gains, _Alone, _gain, _hits, _pooled, _probabilities, gains, paired
from nngen.analysis.statistics import Difference, mean_interval
from nngen.archive import StoredTrial, TrialState
from nngen.plan import Plan
from nngen.testing.fakes import fake_record
from nngen.types import Shape, TrialSpec

LABELS = np.arange(4, dtype="<u2")


class Store:
    """The part of an archive that gains are computed from; predictions are told by the images that are right."""

    def __init__(self, campaigns, alone, right, logits=()):
        self._campaigns, self._alone, self._right, self._logits = campaigns, alone, right, frozenset(logits)

    def campaigns(self):
        return self._campaigns

    def trials(self, campaign, *, curves):
        assert not curves
        return [trial for trial in self._alone if trial.campaign == campaign]

    def validation_labels(self, fingerprint):
        return LABELS.tobytes() if fingerprint == "d" else b""

    def predictions(self, trial_id, split):
        assert split == "validation"
        return self._predicted(trial_id).tobytes() if trial_id in self._right else b""

    def logits(self, trial_id):
        if trial_id not in self._logits:
            return b""
        predicted = self._predicted(trial_id)
        sure = np.where(predicted == LABELS, 8.0, 1.0)
        return (np.eye(5)[predicted] * sure[:, None]).astype("<f2").tobytes()

    def _predicted(self, trial_id):
        right = np.isin(LABELS, self._right[trial_id])
        return np.where(right, LABELS, LABELS + 1).astype("<u2")


def trial(number, experts, *, campaign="main", candidate="m", seed=0, epochs=2, rung=1, **changes):
    plan = Plan(experts=tuple("AB")).alone(experts) if len(experts) == 1 else Plan(experts=tuple(experts))
    made = StoredTrial(
        id=number,
        campaign=campaign,
        position=0,
        rung=rung,
        replicate=0,
        plan=plan,
        state=TrialState.DONE,
        candidate_id=candidate,
        spec=TrialSpec(dataset="digits", shape=Shape(1, 8, 8), epochs=epochs, seed=seed),
        validation_accuracy=0.5,
        data_fingerprint="d",
        parameters=10_000_000 if len(experts) == 1 else 40_000_000,
        seconds=10.0 if len(experts) == 1 else 50.0,
    )
    return replace(made, **changes)


MAIN = fake_record("main", epochs=2, rungs=(1, 2), data_fingerprint="d")
CAMPAIGNS = [
    MAIN,
    fake_record("alone", epochs=2, sampler="alone", data_fingerprint="d"),
    fake_record("foreign", epochs=2, sampler="alone", data_fingerprint="e"),
]
ALONE = [
    trial(50, "A", campaign="foreign"),
    trial(51, "C", campaign="foreign"),
    trial(52, "A", campaign="main"),
    # None of these counts, though all are right everywhere.
    trial(53, "A", campaign="alone", epochs=1),
    trial(54, "A", campaign="alone", suspect="perfect"),
    trial(55, "A", campaign="alone", validation_accuracy=None),
    trial(56, "A", campaign="alone", spec=None),
    trial(60, "A", campaign="alone"),
    trial(61, "A", campaign="alone", seed=1, seconds=None),
    trial(62, "A", campaign="alone", seed=1),  # the same work again
    trial(63, "B", campaign="alone"),
    trial(64, "D", campaign="alone"),  # without predictions
]
TRIALS = [
    trial(1, "AB"),
    trial(2, "AB", seed=1, seconds=None),
    trial(3, "AB", candidate="k"),
    trial(4, "AB", candidate="z"),
    trial(5, "AC", candidate="without C alone"),
    trial(6, "AD", candidate="without the predictions of D"),
    trial(7, "AB", candidate="without its own predictions"),
    trial(8, "AB", candidate="on a rung before", rung=0),
    trial(9, "AB", candidate="suspect", suspect="perfect"),
    trial(10, "AB", candidate="failed", validation_accuracy=None),
    trial(11, "AB", candidate=None),
    trial(12, "AB", candidate="without a specification", spec=None),
]
EVERY = (0, 1, 2, 3)
RIGHT = {
    **dict.fromkeys((*range(50, 57), 62, 4, 5, 6, 8, 9, 10, 11, 12), EVERY),
    1: EVERY,
    2: (0, 1),
    3: (0, 1, 2),
    60: (0, 1),
    61: (0,),
    63: (2,),
}


def test_a_mixture_is_paired_with_its_best_family_and_the_mean_of_predictions():
    found = gains(Store(CAMPAIGNS, ALONE, RIGHT, logits=[60, 61, 63]), MAIN, TRIALS)
    assert [(row.id, row.accuracy) for row in found.rows] == [("z", 1.0), ("k", 0.75), ("m", 0.75)]
    assert found.missing == 3
    half, pooled_half = 1.96 * 0.25 / 2, 1.96 * (0.5 / 3) ** 0.5 / 2
    assert asdict(found.rows[2]) == {
        "id": "m",
        "experts": ("A", "B"),
        "seeds": 2,
        "accuracy": 0.75,
        "best": "A",
        "best_accuracy": 0.375,  # right on 0 and 1, with the other seed on 0
        "over_best": pytest.approx({"mean": 0.375, "low": 0.375 - half, "high": 0.375 + half}),
        "pooled_accuracy": 0.75,  # A is sure of 0 and 1, B of 2; their second seeds have no partner
        "over_pooled": pytest.approx({"mean": 0.0, "low": -pooled_half, "high": pooled_half}),
        "parameters": 4.0,
        "seconds": 5.0,  # 50 and 0 over 10 and 0
        "per_million_parameters": pytest.approx(0.375 / 30),
        "per_second": pytest.approx(0.375 / 20),
    }


def test_without_logits_only_the_best_family_is_compared():
    found = gains(Store(CAMPAIGNS, ALONE, RIGHT), MAIN, TRIALS)
    assert [(row.pooled_accuracy, row.over_pooled) for row in found.rows] == [(None, None)] * 3
    assert found.over_pooled is None
    assert len(found.sentences) == 4


def test_without_families_alone_every_trained_candidate_is_missing_once():
    found = gains(Store([MAIN, CAMPAIGNS[2]], ALONE, RIGHT), MAIN, TRIALS)
    assert found == Gains(rows=(), missing=7)
    assert (found.best_alone, found.over_best, found.over_pooled, found.sentences) == (None, None, None, ())
    assert found.to_dict() == {"over_best": None, "over_pooled": None, "missing": 7, "mixtures": []}


@pytest.mark.parametrize(
    ("parameters", "own_parameters", "seconds", "own_seconds", "expected"),
    [
        (30_000_000, 10_000_000, 50.0, 10.0, (3.0, 5.0, 0.25 / 20, 0.25 / 40)),
        (10_000_000, 10_000_000, 10.0, 10.0, (1.0, 1.0, None, None)),
        (5_000_000, 10_000_000, 5.0, 10.0, (0.5, 0.5, None, None)),
        (None, 10_000_000, None, 10.0, (None, 0.0, None, None)),
        (30_000_000, None, 50.0, 0.0, (None, None, None, 0.25 / 50)),
    ],
)
def test_costs_are_multiples_and_gains_are_per_cost_that_is_more(
    parameters, own_parameters, seconds, own_seconds, expected
):
    alone = _Alone(np.array([1.0, 1.0, 0.0, 0.0]), (None,), own_parameters, own_seconds)
    worse = _Alone(np.zeros(4), (None,), 1, 1.0)
    same = [trial(1, "AB", candidate=None, parameters=parameters, seconds=seconds)]
    found = _gain(same, np.array([1.0, 1.0, 1.0, 0.0]), {"B": worse, "A": alone}, LABELS)
    assert (found.id, found.best, found.over_best.mean) == ("", "A", 0.25)
    costs = (found.parameters, found.seconds, found.per_million_parameters, found.per_second)
    assert costs == pytest.approx(expected)


def test_the_interval_of_a_paired_difference_needs_two_images():
    assert paired(np.array([1.0]), np.array([0.5])) == Difference(mean=0.5, low=None, high=None)
    found = paired(np.array([1.0, 1.0]), np.array([0.0, 1.0]))
    assert asdict(found) == pytest.approx({"mean": 0.5, "low": 0.5 - 0.98, "high": 0.5 + 0.98})


def test_hits_need_a_prediction_of_every_image():
    store = Store([], [], {1: (0, 1), 2: (1,)})
    same = [trial(1, "AB"), trial(2, "AB")]
    assert _hits(store, same, LABELS).tolist() == [0.5, 1.0, 0.0, 0.0]
    assert _hits(store, [*same, trial(3, "AB")], LABELS) is None
    assert _hits(store, same, LABELS[:3]) is None
    assert _hits(store, [], LABELS[:0]) is None


def test_probabilities_are_those_of_softmax_however_large_the_logits():
    special = pytest.importorskip("scipy.special")
    logits = np.array([[200.0, 0.0, 199.0], [1.0, 2.0, 3.0]], "<f2")
    found = _probabilities(logits.tobytes(), 2)
    assert found == pytest.approx(special.softmax(logits.astype(float), axis=1), rel=1e-5)
    assert _probabilities(b"", 2) is None


def test_the_mean_of_predictions_is_over_the_seeds_that_all_families_have_with_logits():
    sure, wrong = np.eye(4, dtype="f4"), np.roll(np.eye(4, dtype="f4"), 1, axis=1) * 0.6
    alone = [
        _Alone(np.zeros(4), seeds, 1, 1.0) for seeds in ((sure, None, wrong, sure), (wrong, sure, wrong), (wrong,) * 4)
    ]
    # The first seeds outvote the sure one, 1.2 to 1; the second ones are not all known.
    assert _pooled(alone, LABELS).tolist() == [0.0] * 4
    assert _pooled(alone[:2], LABELS).tolist() == [0.5] * 4
    assert _pooled([_Alone(np.zeros(4), (None,), 1, 1.0)], LABELS) is None


def row(over_best, *, accuracy, best, best_accuracy, **changes):
    made = Gain(
        id="m",
        experts=("A", "B"),
        seeds=1,
        accuracy=accuracy,
        best=best,
        best_accuracy=best_accuracy,
        over_best=Difference(mean=over_best, low=None, high=None),
        pooled_accuracy=None,
        over_pooled=None,
        parameters=None,
        seconds=None,
        per_million_parameters=None,
        per_second=None,
    )
    return replace(made, **changes)


def test_what_the_rows_say_together():
    pooled = Difference(mean=-0.02, low=None, high=None)
    rows = (
        row(0.1, accuracy=0.7, best="A", best_accuracy=0.6, parameters=4.0, seconds=5.0, over_pooled=pooled),
        row(0.0, accuracy=0.69, best="B", best_accuracy=0.69, parameters=2.0),
        row(-0.04, accuracy=0.5, best="C", best_accuracy=0.54),
    )
    found = Gains(rows=rows, missing=1)
    low, high = mean_interval([0.1, 0.0, -0.04])
    minus = "\N{MINUS SIGN}"
    assert found.sentences == (
        "3 mixtures against the best of their own families alone: +2.00 points"
        f" ({minus}{-100 * low:.2f} to +{100 * high:.2f}); 1 are better than it",
        f"against the mean of their families' predictions: {minus}2.00 points",
        "the best mixture reaches 0.7000, the best family alone, B, 0.6900",
        "a mixture takes 3.0 times the parameters of its best family (median)",
        "a mixture takes 5.0 times the seconds of training of its best family (median)",
    )
    assert found.best_alone is rows[1]
    assert found.over_best == Difference(mean=fmean([0.1, 0.0, -0.04]), low=low, high=high)
    assert found.to_dict() == {
        "over_best": {"mean": found.over_best.mean, "low": low, "high": high},
        "over_pooled": {"mean": -0.02, "low": None, "high": None},
        "missing": 1,
        "mixtures": [asdict(one) for one in rows],
    }
    many = Gains(rows=rows[:1] * 1000, missing=0)
    assert many.sentences[0].startswith("1,000 mixtures against")
    assert many.sentences[0].endswith("; 1,000 are better than it")
