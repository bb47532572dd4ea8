"""Reliability of accuracies, its ceiling for rankings, and ranks that cannot be told apart."""

import math
from dataclasses import replace

import numpy as np
import pytest

from nngen.analysis.ranking.reliability import ASSUMED_SD, Reliability, half_width, rank_spans, reliability


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


@pytest.mark.parametrize(("icc", "needed"), [(0.5, 4), (0.8, 1), (0.4, 6), (0.41, 6), (0.0, None)])
def test_a_whole_number_of_seeds_is_not_rounded_up(icc, needed):
    assert replace(estimate(simulated(0.01, 0.02)), icc=icc).seeds_needed == needed


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
    assert rank_spans(means, [1] * 5, None, 0) == [(None, None)] * 5
    assert rank_spans(means, [1] * 5, 0.02, 0) == [(1, 2), (1, 2), (3, 4), (3, 4), (5, 5)]
    # Four seeds halve the noise of a candidate: .021 is told from .0141 * sqrt(1/4 + 1/4), and not from a single seed.
    assert rank_spans([0.9, 0.879, 0.878], [4, 4, 1], 0.02, 0) == [(1, 2), (2, 3), (1, 3)]
    spans = rank_spans(means, [1] * 5, 0.0001, 50)
    assert spans[0] == (1, 4) and spans[4] == (5, 5)


def test_ranks_of_many_agree_with_each_pair():
    random = np.random.default_rng(0)
    means = sorted(random.normal(0.6, 0.05, 60), reverse=True)
    seeds, half, images = random.integers(1, 4, 60).tolist(), 0.03, 400
    spans = rank_spans(means, seeds, half, images)
    for i, mean in enumerate(means):
        sampling = 1.959964 * math.sqrt(2 * mean * (1 - mean) / images)
        apart = [max(sampling, half * math.sqrt(1 / seeds[i] + 1 / seeds[j])) for j in range(60)]
        better = sum(means[j] > mean + apart[j] for j in range(60))
        worse = sum(means[j] < mean - apart[j] for j in range(60))
        assert spans[i] == (1 + better, 60 - worse)


def test_the_noise_between_seeds_is_pooled_over_the_candidates():
    stats = pytest.importorskip("scipy.stats")
    places = [(0.005, 2), (0.0, 1), (0.02, 3)]  # of 0.5, 0.6; of 0.7; of 0.4, 0.5, 0.6
    assert half_width(places) == pytest.approx(stats.t.ppf(0.975, 3) * math.sqrt(0.025 / 3))
    assert half_width(places[1:2]) is None


def test_an_unbalanced_analysis_of_variance_by_hand():
    stats = pytest.importorskip("scipy.stats")
    groups = [[0.50, 0.54], [0.60, 0.62, 0.64], [0.70]]
    found = reliability([np.mean(group) for group in groups], [2, 3, 1], 2 * 0.02**2 + 2 * 0.02**2)
    ratio, p = stats.f_oneway(*groups)
    noise = 0.0016 / 3
    size = (6 - (4 + 9 + 1) / 6) / 2
    between = ratio * noise
    own = (between - noise) / size
    ends = ratio / stats.f.ppf(0.975, 2, 3), ratio * stats.f.ppf(0.975, 3, 2)
    assert (found.low, found.high) == pytest.approx([max(0.0, (end - 1) / (end - 1 + size)) for end in ends])
    assert (found.candidates, found.replicated, found.seeds, found.assumed) == (3, 2, 2.0, False)
    assert found.mean == pytest.approx(0.6)
    assert (found.p, found.noise_sd, found.between_sd) == pytest.approx((p, noise**0.5, own**0.5))
    assert found.icc == pytest.approx(own / (own + noise))
    assert found.value == pytest.approx(2 * found.icc / (1 + found.icc))


def test_the_noise_of_single_seeds_is_assumed_or_that_of_few_images():
    stats = pytest.importorskip("scipy.stats")
    means = [0.5, 0.52, 0.57]
    found = reliability(means, [1, 1, 1], 0.0)
    between = np.var(means, ddof=1)
    assert found.p == pytest.approx(stats.chi2.sf(2 * between / ASSUMED_SD**2, 2))
    assert found.between_sd == pytest.approx(math.sqrt(between - ASSUMED_SD**2))
    assert (found.noise_sd, found.low, found.high, found.seeds, found.replicated) == (ASSUMED_SD, None, None, 1.0, 0)
    few = reliability(means, [1, 1, 1], 0.0, 400)
    assert few.noise_sd == pytest.approx(math.sqrt(0.53 * 0.47 / 400))
    assert (few.between_sd > 0, reliability(means, [1, 1, 1], 0.0, 100).icc) == (True, 0.0)


def test_seeds_without_noise_leave_no_doubt():
    found = reliability([0.5, 0.6, 0.7], [2, 2, 2], 0.0)
    assert (found.p, found.icc, found.low, found.high, found.noise_sd) == (0.0, 1.0, 1.0, 1.0, 0.0)
    assert (found.value, found.ceiling, found.seeds_needed) == (1.0, pytest.approx(1.0), 0)
    same = reliability([0.5, 0.5, 0.5], [2, 2, 2], 0.0)
    assert (same.p, same.low, same.high, same.images_needed) == (1.0, None, None, None)
    equal = reliability([0.5, 0.5, 0.5], [2, 2, 2], 0.01)
    assert (equal.p, equal.icc, equal.low) == (1.0, 0.0, 0.0)
    assert reliability([0.5, 0.6], [2, 2], 0.01) is None


TOLD = Reliability(
    candidates=1200,
    replicated=1,
    seeds=2.0,
    mean=0.5,
    between_sd=0.03,
    noise_sd=0.02,
    assumed=False,
    icc=0.8,
    low=0.61,
    high=0.92,
    p=0.0499,
)


def test_the_finding_is_one_clause_with_the_remedy():
    value = 1.6 / 1.8
    told = (
        "the 1,200 candidates are told apart with reliability 0.89 (intraclass correlation 0.80{}; 0.0200 between"
        " seeds{}): no score can rank them with a tau above {:.2f}"
    )
    ceiling = 2 / math.pi * math.asin(math.sqrt(value))
    assert (TOLD.value, TOLD.ceiling, TOLD.distinct) == (pytest.approx(value), pytest.approx(ceiling), True)
    assert TOLD.sentence == told.format(", 95 % interval 0.61 to 0.92", "", ceiling)
    assumed = replace(TOLD, low=None, high=None, assumed=True)
    assert assumed.sentence == told.format("", " is assumed", ceiling)
    chance = replace(TOLD, p=0.05, icc=0.003, between_sd=0.003)
    assert not chance.distinct
    # A reliability of 0.8 is four to one: 4 * 0.997 / 0.003 seeds, and 4 * 0.25 / 0.003 ** 2 images.
    assert chance.sentence == (
        "the 1,200 candidates do not differ beyond the noise (p 0.05, 0.0200 between seeds): their order is chance;"
        " differences of 0.0030 would need about 1,330 seeds each and 111,112 validation images"
    )
    unseen = replace(TOLD, p=0.5, icc=0.0, between_sd=0.0, assumed=True)
    assert unseen.sentence == (
        "the 1,200 candidates do not differ beyond the noise (p 0.50, 0.0200 between seeds is assumed): their order is"
        " chance; no difference is visible to plan by"
    )
    assert unseen.to_dict()["sentence"] == unseen.sentence
    assert TOLD.images_needed == 1112
