"""The rule that ends trials early: its prediction, compared with least squares of statsmodels, and what it saved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nngen.analysis.ranking.early_stop import _FEWEST, EarlyStop, Saving, _places, _reason, is_ended, saving
from nngen.archive import Archive
from nngen.campaign_spec import CampaignSpec
from nngen.testing.fakes import fake_campaign
from nngen.types import EpochResult, Shape

SPEC = CampaignSpec(
    name="x", size=20, shape=Shape(1, 8, 8), epochs=8, rungs=(4, 8), reduction_factor=4, stop_early=True
)


def curves(count, noise=0.02, seed=0):
    random = np.random.default_rng(seed)
    early = random.uniform(0.2, 0.5, count)
    return [(float(e), 0.1, float(0.2 + 0.9 * e + random.normal(0, noise))) for e in early]


@pytest.mark.long
@pytest.mark.parametrize("count", [_FEWEST, 25])
@pytest.mark.parametrize("accuracy", [0.15, 0.25])
def test_the_upper_end_is_that_of_a_prediction_by_least_squares(count, accuracy):
    api = pytest.importorskip("statsmodels.api")
    known = curves(count)
    early, last = (np.array([curve[place] for curve in known]) for place in (0, -1))
    fitted = api.OLS(last, api.add_constant(early)).fit()
    # One-sided at 95 %: the upper end of a two-sided interval at 90 %.
    upper = fitted.get_prediction([[1.0, accuracy]]).conf_int(obs=True, alpha=0.1)[0, 1]
    goes_on = sorted(last)[-3]
    assert upper < goes_on
    assert _reason(known, [accuracy], 3) == (
        f"ended early after epoch 1 of 3: at most {upper:.4f}, and {goes_on:.4f} goes on"
    )


def test_few_trials_and_the_last_epoch_end_nothing():
    known = curves(_FEWEST)
    assert _reason(known, [0.15], 1)
    assert _reason(known[1:], [0.15], 1) is None
    assert _reason(known, [0.15], _FEWEST + 1) is None
    assert _reason(known, [0.15, 0.1, 0.1], 1) is None
    assert _reason(curves(20), [0.2], 20) is None  # where all go on


def test_equal_beginnings_predict_the_mean():
    stats = pytest.importorskip("scipy.stats")
    last = np.array([*np.random.default_rng(0).normal(0.5, 0.01, 11), 0.9])
    upper = last.mean() + stats.t.ppf(0.95, 10) * np.sqrt(last.var(ddof=1) * 11 / 10 * (1 + 1 / 12))
    found = _reason([(0.3, float(value)) for value in last], [0.3], 1)
    assert found == f"ended early after epoch 1 of 2: at most {upper:.4f}, and 0.9000 goes on"


@pytest.fixture(scope="module")
def trained():
    with Archive.in_memory() as archive:
        fake_campaign(archive, size=1).run()
        return archive.trials("one")[0]


def trials(model, known, ended=()):
    """Make trials with these accuracies, two seconds an epoch; those with fewer than four were ended early."""
    made = []
    for place, accuracies in enumerate((*known, *ended)):
        curve = tuple(
            EpochResult(epoch=epoch, validation_accuracy=accuracy, seconds=2.0)
            for epoch, accuracy in enumerate(accuracies, start=1)
        )
        suspect = "ended early after epoch 1 of 4" if len(accuracies) < 4 else ""
        made.append(
            replace(model, id=place, position=place, curve=curve, validation_accuracy=accuracies[-1], suspect=suspect)
        )
    return made


def test_what_was_saved_and_what_it_would_have_cost(trained):
    assert saving(SPEC, trials(trained, [])) is None
    steady = [(own, own, own, own) for own in np.linspace(0.3, 0.6, 12)]
    late = (0.31, 0.31, 0.31, 0.9)  # would have been ended, and is the best
    found = saving(SPEC, trials(trained, steady, [(0.1,), (0.1, 0.1)]))
    assert (found.ended, found.saved_s, found.tested, found.wrong) == (2, 6.0 + 4.0, 12, 0)
    assert found.regret == 0.0
    worse = saving(SPEC, trials(trained, [*steady, late], [(0.1,)]))
    assert (worse.ended, worse.saved_s, worse.tested, worse.wrong) == (1, 6.0, 13, 1)
    assert worse.regret == pytest.approx(0.9 - 0.6)
    assert worse.sentence == (
        "ended early: 1 trial, which saved about 6.0 s; of 13 that ran to their end the rule would have ended 1 "
        "that went on, and the best would have lost 0.3000"
    )
    assert Saving(ended=2, saved_s=150, tested=1, wrong=0, regret=0).sentence.startswith(
        "ended early: 2 trials, which saved about 2.5 min; of 1 "
    )


def test_the_prediction_is_from_the_last_epoch_that_is_known():
    api = pytest.importorskip("statsmodels.api")
    known = [(0.1, early, last) for early, _, last in curves(12)]
    fitted = api.OLS([c[2] for c in known], api.add_constant(np.array([c[1] for c in known]))).fit()
    upper = fitted.get_prediction([[1.0, 0.15]]).conf_int(obs=True, alpha=0.1)[0, 1]
    best = max(curve[2] for curve in known)
    found = _reason(known, [0.3, 0.15], 1)
    assert found == f"ended early after epoch 2 of 3: at most {upper:.4f}, and {best:.4f} goes on"


def test_a_trial_ends_only_below_what_goes_on():
    known = [(own, own) for own in np.linspace(0.3, 0.6, _FEWEST)]
    assert _reason(known, [0.61], 1) is None
    assert _reason(known, [0.59], 1) == "ended early after epoch 1 of 2: at most 0.5900, and 0.6000 goes on"
    assert _reason([(0.25, 0.5)] * _FEWEST, [0.25], 1) is None  # what goes on is reached exactly


def test_one_in_so_many_goes_on_and_at_least_one():
    assert [_places(done, SPEC) for done in (0, 3, 4, 7, 8, 9)] == [1, 1, 1, 1, 2, 2]


def test_the_rule_learns_from_whole_curves_of_first_seeds(trained):
    steady = [(own, own, own, own) for own in np.linspace(0.3, 0.6, 12)]
    made = trials(trained, steady)
    model = made[0]
    assert not is_ended(model)
    (ended,) = trials(trained, [], [(0.1,)])
    assert is_ended(ended)
    left_out = [
        replace(model, replicate=1),
        replace(model, suspect="perfect"),
        replace(model, validation_accuracy=None),
        replace(model, curve=model.curve[:3]),
        replace(model, rung=1),
    ]
    assert EarlyStop(SPEC, [*made[3:], *left_out]).reason(0, [0.2]) is None  # nine are too few
    rule = EarlyStop(SPEC, [*made, *left_out])
    # Three of twelve go on.
    found = "ended early after epoch 1 of 4: at most {}, and {:.4f} goes on"
    assert rule.reason(0, [0.2]) == found.format("0.2000", steady[-3][0])
    assert (rule.reason(0, [0.6]), rule.reason(0, [0.2] * 4)) == (None, None)
    assert (rule.reason(1, [0.2]), rule.reason(2, [0.2])) == (None, None)
    for _ in range(4):  # each ended trial is one that was done, and four of sixteen go on
        rule.finish(ended)
    assert rule.reason(0, [0.2]) == found.format("0.2000", steady[-4][0])
    more = replace(SPEC, rungs=(2, 4, 8))
    on_second = EarlyStop(more, [replace(trial, rung=1) for trial in made])
    assert on_second.reason(1, [0.2]) is not None
    assert on_second.reason(0, [0.2]) is None


def test_savings_are_of_trials_of_each_rung_that_ended_with_a_curve(trained):
    steady = [(own, own, own, own) for own in np.linspace(0.3, 0.6, 12)]
    made = trials(trained, steady, [(0.1,)])
    last = [replace(trial, rung=1, suspect="", curve=trial.curve * 2) for trial in made[:12]]
    other = [replace(made[0], replicate=1), replace(made[0], suspect="perfect")]
    without = replace(made[-1], curve=())
    assert saving(SPEC, [*made[:12], without]) is None
    found = saving(SPEC, [*made, *last, *other, without])
    assert found == Saving(ended=1, saved_s=6.0, tested=12, wrong=0, regret=0.0)
    again = replace(made[-1], rung=1)  # of the eight epochs of the last rung it trained one
    assert saving(SPEC, [*made, again]).saved_s == 6.0 + 14.0
    assert saving(SPEC, made[-1:]) == Saving(ended=1, saved_s=6.0, tested=0, wrong=0, regret=0.0)


def test_the_rung_with_the_largest_loss_counts(trained):
    spec = replace(SPEC, rungs=(3, 4, 8))
    steady = [(own, own, own, own) for own in np.linspace(0.3, 0.6, 12)]
    late = (0.31, 0.31, 0.9, 0.9)
    made = [replace(trial, curve=trial.curve[:3]) for trial in trials(trained, [*steady, late], [(0.1,)])]
    second = [replace(trial, rung=1) for trial in trials(trained, steady)]
    found = saving(spec, [*made, *second])
    assert (found.tested, found.wrong, found.regret) == (25, 1, pytest.approx(0.3))
