"""Linear mixed model of the effects, in closed form over a grid of variance shares.

An accuracy is ``mean + family effects + pair effects + quartet + seed``: families are fixed, the
other three are normal with unknown variances. Given the shares of those variances, everything is
least squares; the shares are weighted by their restricted likelihood (REML) under flat priors, so the
intervals include the uncertainty of the shares. The grid costs one eigenvalue decomposition per share
of the quartets, whatever the number of trials.

Written out rather than taken from statsmodels, whose ``MixedLM`` has one grouping factor, no average over
variance shares, and takes seconds; ``tests/analysis/test_mixed_model.py`` compares both where both apply.

Sources: Patterson and Thompson 1971 (restricted likelihood); Henderson 1975 (prediction of random
effects); Gelman et al., Bayesian Data Analysis, 3rd edition, chapter 15.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nngen.analysis.design_matrix import Matrix

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_PAIR_SHARES = tuple(step / 25 for step in range(25))
_QUARTET_SHARES = tuple((step + 0.5) / 12 for step in range(12))
_ROUNDING = 1e-9
"""Variance that a unit pair variance adds to a candidate, six where its pairs are free, below which it is rounding.

Where the families determine all pairs there is none, and variances scaled by it would be infinite.
"""

_NEGLIGIBLE = 1e-4  # share of the total weight below which a grid point is left out of the average


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Data of the model: one row per candidate."""

    fixed: Matrix  # design of the fixed effects, ``(n, r)`` of full column rank, the mean among them
    # pairs of each candidate, ``(n, pairs)``, dense or sparse; with ``fit``'s loadings, the design of the pair effects
    random: Matrix | csr_array
    means: Matrix  # mean accuracy of each candidate, ``(n,)``
    repeats: Matrix  # number of seeds of each candidate, ``(n,)``
    within: float  # sum of squares of the seeds around their candidates' means


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Means and squared standard errors, ``(m,)`` each, for intervals with Student's t."""

    mean: Matrix
    variance: Matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Result of a fit."""

    df: int  # degrees of freedom of the residual
    fixed: Estimate  # estimates of the contrasts of the fixed effects
    random: Estimate  # predictions of the pair effects
    seed_variance: float | None  # variance between seeds of one candidate; None without repeats
    # variance between candidates beyond families and pairs; without repeats it includes the seeds' variance
    quartet_variance: float
    pair_variance: float  # variance of one pair effect


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    """The model at one grid point; variances are in units of the variance between seeds."""

    log_weight: float
    pair: float
    quartet: float
    scale: float
    damping: Matrix
    coefficients: Matrix
    covariance: Matrix


def fit(samples: Samples, contrasts: Matrix, loadings: Matrix) -> Fit:
    """Fit the model.

    Args:
        samples: At least one more trial than fixed effects.
        contrasts: Combinations of the fixed effects to estimate, ``(m, r)``.
        loadings: Matrix from pair coordinates to pair effects, ``(pairs, d)``.

    Raises:
        ValueError: If no degree of freedom is left.
    """
    trials = int(samples.repeats.sum())
    df = trials - samples.fixed.shape[1]
    if df < 1:
        raise ValueError(f"{trials} trials leave nothing beyond {samples.fixed.shape[1]} fixed effects")
    # Without repeats seeds and quartets cannot be separated: both variances are one, and its share is not a grid axis.
    repeated = trials > len(samples.means)
    shares = _QUARTET_SHARES if repeated else (0.0,)
    moments = _moments(samples, loadings)
    # Mean variance that a unit pair variance adds to one candidate, to turn shares into variances.
    typical = float(sum(np.trace(one.pairs) for one in moments)) / len(samples.means)
    # Equal weights scale the matrix of all slices: its directions are the same.
    shared = np.linalg.eigh(moments[0].pairs) if len(moments) == 1 else None
    slices = [_Slice(moments, samples.within, loadings, typical, share / (1 - share), shared) for share in shares]
    grid = [(piece, point) for piece in slices for point in piece.points(df)]
    weights = _weights([point.log_weight for _, point in grid])
    kept = [(weight, *grid[index]) for index, weight in enumerate(weights) if weight > 0]
    # Averages of the variances over the grid; ``scale`` is the variance between seeds, the unit of the other two.
    seed, quartet, pair = (
        float(sum(weight * point.scale * part for (weight, _, point), part in zip(kept, parts, strict=True)))
        for parts in zip(*((1.0, point.quartet, point.pair) for _, _, point in kept), strict=True)
    )
    return Fit(
        df=df,
        fixed=_mix([(weight, _fixed(point, contrasts)) for weight, _, point in kept]),
        random=_mix([(weight, piece.predict(point)) for weight, piece, point in kept]),
        seed_variance=seed if repeated else None,
        quartet_variance=quartet if repeated else seed,
        pair_variance=pair,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moments:
    """Sums of products over the candidates with equally many seeds, which weigh alike in every slice."""

    repeats: float  # number of seeds of each
    count: int  # number of candidates
    pairs: Matrix  # products of the pair coordinates, ``(d, d)``
    pairs_fixed: Matrix  # products of the pair coordinates and the fixed effects, ``(d, r)``
    pairs_means: Matrix  # products of the pair coordinates and the mean accuracies, ``(d,)``
    fixed: Matrix  # products of the fixed effects, ``(r, r)``
    fixed_means: Matrix  # products of the fixed effects and the mean accuracies, ``(r,)``
    means: float  # sum of the squared mean accuracies


def _moments(samples: Samples, loadings: Matrix) -> list[_Moments]:
    from scipy.sparse import csr_array

    found = []
    for repeats in np.unique(samples.repeats):
        rows = np.flatnonzero(samples.repeats == repeats)
        # Products are formed over pairs, where each candidate has six entries, and turned into coordinates afterwards:
        # the design in coordinates, Z = pairs @ loadings, would be dense and take gigabytes at 50,000 candidates.
        pairs, fixed, means = csr_array(samples.random)[rows], samples.fixed[rows], samples.means[rows]
        found.append(
            _Moments(
                repeats=float(repeats),
                count=len(rows),
                pairs=loadings.T @ (pairs.T @ pairs).toarray() @ loadings,
                pairs_fixed=loadings.T @ (pairs.T @ fixed),
                pairs_means=loadings.T @ (pairs.T @ means),
                fixed=fixed.T @ fixed,
                fixed_means=fixed.T @ means,
                means=float(means @ means),
            )
        )
    return found


class _Slice:
    """Sums of squares for one share of the quartets, decomposed once for all shares of the pairs.

    With weights W of the candidates' means, the covariance of the means is W^-1 + pair * Z Z'. In the eigenvectors of
    Z' W Z its inverse and determinant are sums over d directions (Woodbury), so a grid point costs O(d r).
    """

    def __init__(
        self,
        moments: Sequence[_Moments],
        within: float,
        loadings: Matrix,
        typical: float,
        quartet: float,
        shared: tuple[Matrix, Matrix] | None,
    ) -> None:
        weights = [1.0 / (quartet + 1.0 / one.repeats) for one in moments]  # precision of each mean
        self.quartet, self.within, self.typical = quartet, within, typical
        self.log_det = -sum(one.count * math.log(weight) for one, weight in zip(moments, weights, strict=True))

        def total(name: str) -> Matrix:
            return np.asarray(
                sum(weight * getattr(one, name) for one, weight in zip(moments, weights, strict=True)), dtype=float
            )

        if shared is not None:
            values, vectors = weights[0] * shared[0], shared[1]
        else:
            values, vectors = np.linalg.eigh(total("pairs"))  # (d,), (d, d)
        self.values = np.clip(values, 0.0, None)  # rounding can make zeros slightly negative
        self.turned = loadings @ vectors  # (pairs, d), loadings in the directions of the decomposition
        self.fixed = vectors.T @ total("pairs_fixed")  # (d, r)
        self.means = vectors.T @ total("pairs_means")  # (d,)
        self.plain_fixed, self.plain_cross = total("fixed"), total("fixed_means")  # (r, r), (r,)
        self.plain_means = float(total("means"))

    def points(self, df: int) -> list[_Point]:
        """Evaluate the restricted likelihood over the pairs' shares.

        The prior is flat over all ways to share the variance among pairs, triples, whole quartets
        and seeds (Dirichlet with ones): a share h of the pairs weighs (1 - h)^2, and a share c of
        triples and quartets together, of what pairs leave, weighs c.
        """
        own = math.log(self.quartet / (1 + self.quartet)) if self.quartet > 0 else 0.0  # log of the share c
        if not self.values.size or self.typical < _ROUNDING:
            return [self._point(0.0, df, own)]
        unit = (1 + self.quartet) / self.typical
        return [self._point(share / (1 - share) * unit, df, own + 2 * math.log1p(-share)) for share in _PAIR_SHARES]

    def _point(self, pair: float, df: int, log_prior: float) -> _Point:
        """Solve generalised least squares and weigh the grid point by its restricted likelihood."""
        from scipy.linalg import cho_factor, cho_solve

        damping = pair / (1 + pair * self.values)  # (d,), Woodbury's correction per direction
        # Normal equations X' V^-1 X b = X' V^-1 y, each product corrected from W to V^-1.
        normal = self.plain_fixed - self.fixed.T @ (damping[:, None] * self.fixed)
        cross = self.plain_cross - self.fixed.T @ (damping * self.means)
        factor = cho_factor(normal, lower=True)
        coefficients = cho_solve(factor, cross)
        squares = self.plain_means - float(damping @ self.means**2) - float(cross @ coefficients) + self.within
        # A perfect fit leaves only rounding errors; the floor keeps its logarithm finite.
        squares = max(squares, 1e-12 * (self.plain_means + self.within), np.finfo(float).tiny)
        # log|V| by the determinant lemma, and the term of the fixed effects that REML adds to the likelihood.
        log_det = self.log_det + np.log1p(pair * self.values).sum() + 2 * np.log(np.diag(factor[0])).sum()
        return _Point(
            log_weight=log_prior - 0.5 * float(log_det + df * np.log(squares)),
            pair=pair,
            quartet=self.quartet,
            scale=squares / df,
            damping=damping,
            coefficients=coefficients,
            covariance=cho_solve(factor, np.eye(len(cross))),
        )

    def predict(self, point: _Point) -> Estimate:
        """Predict the pair effects (BLUP); their variance is that of prediction less truth."""
        residual = self.means - self.fixed @ point.coefficients
        # Two sources of error: the shrunken effects, and the fixed effects that were subtracted.
        through = self.turned @ (point.damping[:, None] * self.fixed)  # (pairs, r)
        spread = self.turned**2 @ point.damping + ((through @ point.covariance) * through).sum(axis=1)
        return Estimate(mean=self.turned @ (point.damping * residual), variance=point.scale * spread)


def _fixed(point: _Point, contrasts: Matrix) -> Estimate:
    spread = ((contrasts @ point.covariance) * contrasts).sum(axis=1)
    return Estimate(mean=contrasts @ point.coefficients, variance=point.scale * spread)


def _weights(logs: Sequence[float]) -> Matrix:
    values = np.array(logs)
    weights: Matrix = np.exp(values - values.max())  # subtracting the maximum avoids overflow
    weights[weights < _NEGLIGIBLE * weights.sum()] = 0.0
    normalised: Matrix = weights / weights.sum()
    return normalised


def _mix(parts: Sequence[tuple[float, Estimate]]) -> Estimate:
    """Average over the grid: the variance is the mean of the variances plus that of the means."""
    mean = sum((weight * part.mean for weight, part in parts), np.zeros(()))
    variance = sum((weight * (part.variance + (part.mean - mean) ** 2) for weight, part in parts), np.zeros(()))
    return Estimate(mean=np.asarray(mean), variance=np.asarray(variance))
