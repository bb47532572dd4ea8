"""The mixed model against its definition: dense matrices of all candidates at each point of the grid of shares."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from nngen.analysis.design_matrix import centred_pairs, family_matrix, pair_matrix
from nngen.analysis.mixed_model import Samples, fit
from nngen.space import draw

POOL = "ABCDEFG"


def averaged(samples, contrasts, loadings):
    """Average generalised least squares and best linear predictions over the grid, by their restricted likelihood."""
    x, y, n = samples.fixed, samples.means, len(samples.means)
    pairs = np.asarray(samples.random.toarray() if hasattr(samples.random, "toarray") else samples.random)
    z = pairs @ loadings
    df = int(samples.repeats.sum()) - x.shape[1]
    repeated = samples.repeats.sum() > n
    typical = np.trace(z @ z.T) / n
    logs, found = [], []
    for share in [(step + 0.5) / 12 for step in range(12)] if repeated else [0.0]:
        quartet = share / (1 - share)
        for part in [step / 25 for step in range(25)] if typical else [0.0]:
            pair = part / (1 - part) * (1 + quartet) / typical if typical else 0.0
            inverse = np.linalg.inv(np.diag(quartet + 1 / samples.repeats) + pair * z @ z.T)
            covariance = np.linalg.inv(x.T @ inverse @ x)
            coefficients = covariance @ x.T @ inverse @ y
            residual = y - x @ coefficients
            scale = (residual @ inverse @ residual + samples.within) / df
            prior = 2 * np.log1p(-part) + (np.log(share) if repeated else 0.0)
            dets = -np.linalg.slogdet(inverse)[1] - np.linalg.slogdet(covariance)[1]
            logs.append(prior - 0.5 * (dets + df * np.log(scale * df)))
            projection = inverse - inverse @ x @ covariance @ x.T @ inverse
            spread = pair * np.eye(z.shape[1]) - pair**2 * z.T @ projection @ z
            means = contrasts @ coefficients, pair * loadings @ z.T @ inverse @ residual
            variances = (
                scale * np.diag(contrasts @ covariance @ contrasts.T),
                scale * np.diag(loadings @ spread @ loadings.T),
            )
            found.append((means, variances, scale * np.array([1.0, quartet, pair])))
    weights = np.exp(np.array(logs) - max(logs))
    weights[weights < 1e-4 * weights.sum()] = 0.0
    weights /= weights.sum()
    estimates = []
    for kind in (0, 1):
        mean = sum(weight * means[kind] for weight, (means, _, _) in zip(weights, found, strict=True))
        variance = sum(
            weight * (variances[kind] + (means[kind] - mean) ** 2)
            for weight, (means, variances, _) in zip(weights, found, strict=True)
        )
        estimates.append((mean, variance))
    return df, estimates, sum(weight * parts for weight, (_, _, parts) in zip(weights, found, strict=True))


def simulated(seeds, *, pairs=0.02, count=30):
    rng = np.random.default_rng(4)
    quartets = draw("random", POOL, count, 0)
    units = [(name,) for name in POOL[:-1]]
    fixed = np.hstack([np.ones((count, 1)), family_matrix(units, quartets)])
    effects = dict(zip(combinations(POOL, 2), pairs * rng.normal(size=21), strict=True))
    own = [sum(effects[pair] for pair in combinations(sorted(quartet), 2)) for quartet in quartets]
    repeats = np.array([float(seeds[place % len(seeds)]) for place in range(count)])
    trials = [
        0.5 + mean + 0.03 * rng.normal() + 0.02 * rng.normal(size=int(number))
        for mean, number in zip(own, repeats, strict=True)
    ]
    return Samples(
        fixed=fixed,
        random=pair_matrix(POOL, quartets),
        means=np.array([values.mean() for values in trials]),
        repeats=repeats,
        within=float(sum(((values - values.mean()) ** 2).sum() for values in trials)),
    )


@pytest.mark.parametrize("seeds", [(1,), (2,), (3, 1)], ids=["one", "two", "unequal"])
@pytest.mark.parametrize("pairs", [0.0, 0.05])
def test_the_fit_is_the_average_over_the_grid(seeds, pairs):
    samples = simulated(seeds, pairs=pairs)
    contrasts = np.eye(7) - 0.25 * np.eye(7, k=1)
    found = fit(samples, contrasts, centred_pairs(7))
    df, estimates, (seed, quartet, pair) = averaged(samples, contrasts, centred_pairs(7))
    assert found.df == df
    for ours, (mean, variance) in zip((found.fixed, found.random), estimates, strict=True):
        assert ours.mean == pytest.approx(mean, rel=1e-6, abs=1e-12)
        assert ours.variance == pytest.approx(variance, rel=1e-6)
    repeated = seeds != (1,)
    assert found.seed_variance == (pytest.approx(seed) if repeated else None)
    assert found.quartet_variance == pytest.approx(quartet if repeated else seed)
    assert found.pair_variance == pytest.approx(pair)


def test_without_pairs_only_the_shares_of_the_quartets_are_a_grid():
    samples = simulated((2, 1))
    none = replace(samples, random=np.zeros((30, 0)))
    found = fit(none, np.eye(7), np.zeros((0, 0)))
    _, ((mean, variance), _), (seed, quartet, _) = averaged(none, np.eye(7), np.zeros((0, 0)))
    assert found.fixed.mean == pytest.approx(mean)
    assert found.fixed.variance == pytest.approx(variance)
    assert (found.seed_variance, found.quartet_variance, found.pair_variance) == (
        pytest.approx(seed),
        pytest.approx(quartet),
        0.0,
    )


def test_pairs_that_the_families_determine_have_no_variance():
    samples = simulated((2,))
    still = replace(samples, random=np.full((30, 1), 1e-6))  # adds less than rounding
    assert fit(still, np.eye(7), np.eye(1)).pair_variance == 0.0
    small = replace(still, random=np.linspace(-1e-3, 1e-3, 30)[:, None] ** 2)
    assert fit(small, np.eye(7), np.eye(1)).pair_variance == 0.0
    seen = replace(still, random=np.linspace(-1e-3, 1e-3, 30)[:, None])
    _, _, (_, _, pair) = averaged(seen, np.eye(7), np.eye(1))
    assert fit(seen, np.eye(7), np.eye(1)).pair_variance == pytest.approx(pair)
