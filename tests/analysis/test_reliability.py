"""Reliability of accuracies, its ceiling for rankings, and ranks that cannot be told apart."""

import math

import numpy as np
import pytest

from nngen.analysis.leaderboard import _rank_spans
from nngen.analysis.ranking.reliability import ASSUMED_SD, reliability


def estimate(values, **more):
    """Estimate from accuracies, ``(candidates, seeds)``; nan where there is none."""
    rows = [row[~np.isnan(row)] for row in np.asarray(values, dtype=float)]
    within = sum(((row - row.mean()) ** 2).sum() for row in rows)
    return reliability([row.mean() for row in rows], [len(row) for row in rows], within, **more)


def simulated(between, noise, candidates=40, seeds=3, rng=0):
    random = np.random.default_rng(rng)
    own = random.normal(0.5, between, (candidates, 1)) if between else np.full((candidates, 1), 0.5)
    return own + random.normal(0, noise, (candidates, seeds))


def test_it_agrees_with_a_mixed_model_and_finds_what_was_put_in():
    values = simulated(0.03, 0.015, candidates=200)
    found = estimate(values)
    assert found.icc == pytest.approx(0.8, abs=0.05)
    assert (found.low < found.icc < found.high, found.assumed, found.replicated) == (True, False, 200)
    assert found.value == pytest.approx(3 * found.icc / (1 + 2 * found.icc))
    assert found.ceiling == pytest.approx(2 / math.pi * math.asin(math.sqrt(found.value)))
    lm = pytest.importorskip("statsmodels.regression.mixed_linear_model")
    groups = np.repeat(np.arange(200), 3)
    fitted = lm.MixedLM(100 * values.ravel(), np.ones((600, 1)), groups).fit(reml=True)  # in points, for its optimizer
    assert (100 * found.noise_sd) ** 2 == pytest.approx(fitted.scale, rel=0.01)
    assert (100 * found.between_sd) ** 2 == pytest.approx(float(np.asarray(fitted.cov_re)[0, 0]), rel=0.02)


def test_a_noiseless_score_cannot_pass_the_ceiling():
    """The correlation of true values with means of two seeds, by simulation."""
    kendalltau = pytest.importorskip("scipy.stats").kendalltau
    random = np.random.default_rng(3)
    own = random.normal(0, 1, 4000)
    values = own[:, None] + random.normal(0, 1, (4000, 2))
    assert kendalltau(own, values.mean(axis=1)).statistic == pytest.approx(estimate(values).ceiling, abs=0.02)


def test_only_noise_is_called_noise():
    held = [estimate(simulated(0, 0.02, rng=seed)).distinct for seed in range(200)]
    assert sum(held) <= 20  # 5 % expected
    found = estimate(simulated(0, 0.02, rng=1))
    assert "do not differ beyond the noise" in found.sentence and "order is chance" in found.sentence


def test_seeds_needed_reach_the_reliability():
    found = estimate(simulated(0.01, 0.02, candidates=200))
    needed = found.seeds_needed
    assert needed * found.icc / (1 + (needed - 1) * found.icc) >= 0.8
    fewer = needed - 1
    assert fewer * found.icc / (1 + (fewer - 1) * found.icc) < 0.8
    assert found.images_needed == math.ceil(4 * found.mean * (1 - found.mean) / found.between_sd**2)


def test_unequal_numbers_of_seeds():
    """Two finalists with three seeds, the others with one."""
    values = simulated(0.05, 0.01, candidates=30)
    values[2:, 1:] = np.nan
    found = estimate(values)
    assert (found.replicated, found.seeds, found.assumed) == (2, 1.0, False)
    assert found.between_sd == pytest.approx(0.05, rel=0.3)


def test_without_replicates_the_noise_is_assumed_and_stated():
    values = simulated(0.05, 0.01, seeds=1)
    found = estimate(values)
    assert (found.assumed, found.noise_sd, found.low) == (True, ASSUMED_SD, None)
    assert "0.0140 between seeds is assumed" in found.sentence
    few = estimate(values, images=100)
    assert few.noise_sd == pytest.approx(0.05, abs=0.001)
    assert not few.distinct
    assert "validation images" in few.sentence or "no difference" in few.sentence


def test_too_few_or_equal_candidates():
    assert estimate([[0.5], [0.6]]) is None
    same = estimate([[0.5, 0.5]] * 4)
    assert (same.icc, same.p, same.distinct, same.seeds_needed) == (0.0, 1.0, False, None)


def test_ranks_that_candidates_may_have():
    means = [0.90, 0.89, 0.80, 0.79, 0.50]
    assert _rank_spans(means, [1] * 5, None, 0) == [(None, None)] * 5
    assert _rank_spans(means, [1] * 5, 0.02, 0) == [(1, 2), (1, 2), (3, 4), (3, 4), (5, 5)]
    # Four seeds halve the noise of a candidate: .021 is told from .0141 * sqrt(1/4 + 1/4), and not from a single seed.
    assert _rank_spans([0.9, 0.879, 0.878], [4, 4, 1], 0.02, 0) == [(1, 2), (2, 3), (1, 3)]
    spans = _rank_spans(means, [1] * 5, 0.0001, 50)
    assert spans[0] == (1, 4) and spans[4] == (5, 5)


def test_ranks_of_many_agree_with_each_pair():
    random = np.random.default_rng(0)
    means = sorted(random.normal(0.6, 0.05, 60), reverse=True)
    seeds, half, images = random.integers(1, 4, 60).tolist(), 0.03, 400
    spans = _rank_spans(means, seeds, half, images)
    for i, mean in enumerate(means):
        sampling = 1.959964 * math.sqrt(2 * mean * (1 - mean) / images)
        apart = [max(sampling, half * math.sqrt(1 / seeds[i] + 1 / seeds[j])) for j in range(60)]
        better = sum(means[j] > mean + apart[j] for j in range(60))
        worse = sum(means[j] < mean - apart[j] for j in range(60))
        assert spans[i] == (1 + better, 60 - worse)
