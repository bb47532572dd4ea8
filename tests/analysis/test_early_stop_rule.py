"""The rule that ends trials early: its prediction, compared with least squares of statsmodels, and what it saved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nngen.analysis.ranking.early_stop import _FEWEST, Saving, _reason, saving
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
        "1 trials were ended early, which saved about 0 min; of 13 that ran to their end the rule would have ended 1 "
        "that went on, and the best would have lost 0.3000"
    )
    assert Saving(ended=2, saved_s=150, tested=1, wrong=0, regret=0).sentence.startswith(
        "2 trials were ended early, which saved about 2 min"
    )
