"""Mixed model in closed form, compared with packages: least squares, REML, corrections, score intervals."""

import numpy as np
import pytest

from nngen.analysis.design_matrix import centred_pairs
from nngen.analysis.mixed_model import Samples, fit
from nngen.analysis.statistics import benjamini_hochberg, holm, wilson


def ordinary(rng, n=40, seeds=1, quartet=0.0):
    fixed = np.column_stack([np.ones(n), rng.normal(size=(n, 3))])
    means = fixed @ [1.0, 0.5, -0.5, 0.0] + quartet * rng.normal(size=n)
    trials = means[:, None] + 0.1 * rng.normal(size=(n, seeds))
    return fixed, trials


def samples(fixed, trials, random=None):
    n, seeds = trials.shape
    return Samples(
        fixed=fixed,
        random=np.zeros((n, 0)) if random is None else random,
        means=trials.mean(axis=1),
        repeats=np.full(n, float(seeds)),
        within=float(((trials - trials.mean(axis=1, keepdims=True)) ** 2).sum()),
    )


def test_without_pairs_and_repeats_it_is_least_squares():
    api = pytest.importorskip("statsmodels.api")
    fixed, trials = ordinary(np.random.default_rng(0))
    ours = fit(samples(fixed, trials), np.eye(4), np.zeros((0, 0)))
    theirs = api.OLS(trials[:, 0], fixed).fit()
    assert ours.fixed.mean == pytest.approx(theirs.params)
    assert np.sqrt(ours.fixed.variance) == pytest.approx(theirs.bse)
    assert ours.quartet_variance == pytest.approx(theirs.mse_resid)


def test_with_repeats_it_agrees_with_statsmodels_mixed_model():
    lm = pytest.importorskip("statsmodels.regression.mixed_linear_model")
    fixed, trials = ordinary(np.random.default_rng(1), n=150, seeds=3, quartet=0.2)
    ours = fit(samples(fixed, trials), np.eye(4), np.zeros((0, 0)))
    groups = np.repeat(np.arange(150), 3)
    theirs = lm.MixedLM(trials.ravel(), np.repeat(fixed, 3, axis=0), groups).fit(reml=True)
    assert ours.fixed.mean == pytest.approx(theirs.fe_params, abs=1e-4)
    assert np.sqrt(ours.fixed.variance) == pytest.approx(theirs.bse_fe, rel=0.05)
    assert ours.seed_variance == pytest.approx(theirs.scale, rel=0.05)
    assert ours.quartet_variance == pytest.approx(float(theirs.cov_re[0, 0]), rel=0.1)


@pytest.mark.filterwarnings("ignore:The MLE may be on the boundary")  # its test for that is absolute
def test_with_a_random_part_it_agrees_with_statsmodels_variance_components():
    lm = pytest.importorskip("statsmodels.regression.mixed_linear_model")
    rng = np.random.default_rng(2)
    fixed, trials = ordinary(rng, n=400)
    random = rng.normal(size=(400, 40))
    truth = 0.02 * rng.normal(size=40)
    trials = trials + (random @ truth)[:, None]
    ours = fit(samples(fixed, trials, random), np.eye(4), np.eye(40))
    components = lm.VCSpec(["pairs"], [[[f"p{i}" for i in range(40)]]], [[random]])
    theirs = lm.MixedLM(trials.ravel(), fixed, np.zeros(400), exog_vc=components).fit(reml=True)
    assert ours.fixed.mean == pytest.approx(theirs.fe_params, abs=2e-3)
    assert np.sqrt(ours.fixed.variance) == pytest.approx(theirs.bse_fe, rel=0.05)
    assert ours.random.mean == pytest.approx(np.asarray(theirs.random_effects[0.0]), abs=5e-3)
    assert ours.pair_variance == pytest.approx(float(theirs.vcomp[0]), rel=0.4)


def test_no_degree_of_freedom_is_an_error():
    with pytest.raises(ValueError, match="3 trials leave nothing beyond 3"):
        fit(samples(np.eye(3), np.ones((3, 1))), np.eye(3), np.zeros((0, 0)))


@pytest.mark.parametrize("families", [4, 5, 9, 29])
def test_centred_pairs_sum_to_zero_over_each_family(families):
    from itertools import combinations

    basis = centred_pairs(families)
    pairs = list(combinations(range(families), 2))
    assert basis.shape == (len(pairs), len(pairs) - families)
    assert basis.T @ basis == pytest.approx(np.eye(basis.shape[1]), abs=1e-9)
    for family in range(families):
        assert basis[[family in pair for pair in pairs]].sum(axis=0) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("ours", "method"), [(holm, "holm"), (benjamini_hochberg, "fdr_bh")])
def test_corrections_agree_with_statsmodels(ours, method):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p_values = np.random.default_rng(0).uniform(size=50) ** 3
    assert ours(list(p_values)) == pytest.approx(multitest.multipletests(p_values, method=method)[1])
    assert ours([]) == ()


@pytest.mark.parametrize(("successes", "tries"), [(0, 5), (1, 12), (7, 7), (50, 203)])
def test_wilson_agrees_with_scipy(successes, tries):
    stats = pytest.importorskip("scipy.stats")
    theirs = stats.binomtest(successes, tries).proportion_ci(method="wilson")
    ours = wilson(successes, tries)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


def test_wilson_without_tries_and_out_of_range():
    assert (wilson(0, 0).rate, wilson(0, 0).low, wilson(0, 0).high) == (None, 0.0, 1.0)
    with pytest.raises(ValueError, match="3 successes of 2 tries"):
        wilson(3, 2)
    with pytest.raises(ValueError, match="between 0 and 1"):
        wilson(1, 2, confidence=95)
