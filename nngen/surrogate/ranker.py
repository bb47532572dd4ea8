"""Ranker of drafts: a Gaussian process over numeric features, fitted to the accuracies measured so far.

Encoders from plans, cells or records to features stand beside their grammar; that of plans is
``nngen.surrogate.plan_features``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Hyperparameter, Kernel, WhiteKernel

from nngen.surrogate.experts import Floats

KAPPA = 1.0
"""Standard deviations that are added to the mean (docs/design/0007)."""

_MIDDLE = 1.349  # standard deviations between the quartiles of a normal distribution
_FAR = 1_000.0

_MOST_TUNED = 250  # rows that the kernel's parameters are fitted to; the time of a fit grows with their cube

_WIDE = 3.0  # standard deviation of the prior of the parameters' logarithms

_MOST_KNOWN = 2_000  # rows that predictions are made from


class Anova(Kernel):  # type: ignore[misc]
    """Covariance of rows that are alike in groups of columns: the product of ``1 + w k`` over the groups.

    It is the kernel of an analysis of variance (Durrande et al. 2012): each group has an effect of its own, groups have
    interactions, and a group whose weight is near zero has no part in either. ``k`` is a Gaussian of the distance in
    the group's columns.

    Args:
        groups: Columns of each group.
        lengths: Length of the Gaussian of each group.
        weights: Weight of each group.
    """

    def __init__(self, groups: Sequence[Sequence[int]], lengths: Sequence[float], weights: Floats) -> None:
        self.groups, self.lengths, self.weights = groups, lengths, weights
        self._known: tuple[Floats, Floats] | None = None

    @property
    def hyperparameter_weights(self) -> Hyperparameter:
        """What is fitted."""
        return Hyperparameter("weights", "numeric", (1e-5, 1e4), len(self.groups))

    def __call__(self, X: Floats, Y: Floats | None = None, eval_gradient: bool = False) -> Any:  # noqa: N803
        """Return the covariance of rows, ``(n, m)``, if asked with its derivatives by the logarithms of the weights."""
        weights = np.atleast_1d(self.weights)
        if not eval_gradient:  # one group at a time: there may be thousands of rows
            found = np.ones((len(X), len(X if Y is None else Y)))
            for group, weight in enumerate(weights):
                found *= 1 + weight * self._alike(group, X, X if Y is None else Y)
            return found
        # A fit asks for the same rows again and again.
        if self._known is None or self._known[0] is not X:
            self._known = X, np.stack([self._alike(group, X, X) for group in range(len(weights))])
        terms = weights[:, np.newaxis, np.newaxis] * self._known[1]
        found = (1 + terms).prod(axis=0)
        return found, np.moveaxis(found * terms / (1 + terms), 0, -1)

    def diag(self, X: Floats) -> Floats:  # noqa: N803
        """Return the variance of each row, ``(n,)``."""
        return np.full(len(X), np.prod(1 + np.atleast_1d(self.weights)))

    def is_stationary(self) -> bool:
        """Return True: the covariance depends on distances alone."""
        return True

    def _alike(self, group: int, rows: Floats, others: Floats) -> Floats:
        """Return ``k`` of a group, ``(n, m)``."""
        own, length = list(self.groups[group]), self.lengths[group]
        distances = cdist(rows[:, own], others[:, own], "sqeuclidean")
        found: Floats = np.exp(-distances / (2 * length**2))
        return found


class Ranker:
    """Gaussian process with a linear part and one of groups of columns, whose shares follow from the data.

    It is fitted to the normal scores of the accuracies' ranks, and predictions are turned back: networks that learn
    nothing would otherwise take up the variance, and the best ones would look alike. Columns are divided by their
    range, so that indicators and numbers count alike. More rows than a fit can take are thinned out evenly.

    Args:
        groups: Columns of each field that rows are made of; by default all columns are one group. Columns without a
            group have linear effects alone.
    """

    def __init__(self, groups: Sequence[Sequence[int]] | None = None) -> None:
        self._groups = groups

    def fit(self, features: Floats, accuracies: Floats) -> Self:
        """Fit to measured rows.

        Args:
            features: One row for each measurement, ``(n, d)`` with ``n >= 1``.
            accuracies: Measured accuracies, ``(n,)``.
        """
        from scipy.stats import norm, rankdata

        kept = _thinned(len(features), _MOST_KNOWN)
        features, accuracies = features[kept], accuracies[kept]
        self._low, span = features.min(axis=0), np.ptp(features, axis=0)
        self._span = np.where(span > 0, span, 1.0)
        self._rows = self._scaled(features)
        values: Floats = norm.ppf((rankdata(accuracies) - 0.5) / len(accuracies))
        self._scores, self._accuracies = _extended(np.sort(values), np.sort(accuracies))
        linear = ConstantKernel(0.1, (1e-4, 1e2)) * DotProduct(sigma_0=1.0, sigma_0_bounds="fixed")
        kernel = linear + ConstantKernel(0.3, (1e-5, 1e2)) * self._anova() + WhiteKernel(0.3, (1e-4, 1e1))
        tuned = _thinned(len(values), _MOST_TUNED)
        with warnings.catch_warnings():
            # A part that the data do not need ends at its bound, which is as it should be.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = GaussianProcessRegressor(kernel, optimizer=_most_likely).fit(self._rows[tuned], values[tuned])
            if len(tuned) < len(values):
                model = GaussianProcessRegressor(model.kernel_, optimizer=None).fit(self._rows, values)
        self._signal, self._noise = model.kernel_.k1, float(model.kernel_.k2.noise_level)
        self._weights, self._factor = model.alpha_, model.L_
        return self

    def _anova(self) -> Anova:
        """Return the part of the groups in which the measured rows differ; lengths are their standard deviations."""
        groups = [list(range(self._rows.shape[1]))] if self._groups is None else self._groups
        spread = [float(np.sqrt(self._rows[:, own].var(axis=0).sum())) for own in groups]
        kept = [(own, length) for own, length in zip(groups, spread, strict=True) if length > 0] or [(groups[0], 1.0)]
        own, lengths = zip(*kept, strict=True)
        return Anova(own, lengths, np.full(len(kept), 0.3))

    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """Predict rows ``(m, d)``: their mean accuracies ``(m,)`` and the standard deviations of these means ``(m,)``.

        The noise between trainings of one row is not part of the deviation.
        """
        mean, variance, _ = self._posterior(self._scaled(features))
        # Over two deviations to each side, since single accuracies lie unevenly.
        middle, low, high = (self._accuracy(mean + step * np.sqrt(variance)) for step in (0, -2, 2))
        return middle, (high - low) / 4

    def choose(self, features: Floats, number: int, *, kappa: float = KAPPA) -> list[int]:
        """Choose rows by mean plus ``kappa`` deviations, both of normal scores, one by one.

        After each choice the chosen row is believed: its predicted mean becomes an observation, so rows like it are
        less uncertain and the next choice is another kind.

        Args:
            features: Rows to choose from, ``(m, d)``.
            number: Number of rows; all in their order of choice where there are fewer.
            kappa: Weight of the deviation.
        """
        rows = self._scaled(features)
        mean, variance, known = self._posterior(rows)
        chosen: list[int] = []
        factors = np.empty((0, len(rows)))
        for _ in range(min(number, len(rows))):
            value = mean + kappa * np.sqrt(variance)
            value[chosen] = -np.inf
            best = int(value.argmax())
            # An observation that equals the predicted mean changes no mean. It takes from the covariance a part of rank
            # one, as in a pivoted Cholesky decomposition, so that nothing is fitted again.
            column = self._signal(rows, rows[best : best + 1])[:, 0] - known.T @ known[:, best]
            column -= factors.T @ factors[:, best]
            factor = column / np.sqrt(max(column[best], 0.0) + self._noise)
            variance = np.maximum(variance - factor**2, 0.0)
            factors = np.vstack([factors, factor])
            chosen.append(best)
        return chosen

    def _scaled(self, features: Floats) -> Floats:
        scaled: Floats = (features - self._low) / self._span
        return scaled

    def _accuracy(self, scores: Floats) -> Floats:
        found: Floats = np.interp(scores, self._scores, self._accuracies)
        return found

    def _posterior(self, rows: Floats) -> tuple[Floats, Floats, Floats]:
        """Return means, variances, and the rows' covariance with what is known, divided by its Cholesky factor."""
        from scipy.linalg import solve_triangular

        cross = self._signal(self._rows, rows)
        known = solve_triangular(self._factor, cross, lower=True, check_finite=False)
        variance = np.maximum(self._signal.diag(rows) - (known**2).sum(axis=0), 0.0)
        return cross.T @ self._weights, variance, known


def _most_likely(
    objective: Callable[[Floats], tuple[float, Floats]], start: Floats, bounds: Floats
) -> tuple[Floats, float]:
    """Find the parameters of the highest likelihood times a wide normal prior of their logarithms.

    Without the prior, fits of some tens of rows take chance for weights of single groups.
    """
    from scipy.optimize import minimize

    def penalised(place: Floats) -> tuple[float, Floats]:
        value, slope = objective(place)
        away = (place - start) / _WIDE
        return value + 0.5 * float(away @ away), slope + away / _WIDE

    found = minimize(penalised, start, jac=True, bounds=bounds, method="L-BFGS-B")
    return found.x, float(found.fun)


def _extended(scores: Floats, accuracies: Floats) -> tuple[Floats, Floats]:
    """Extend sorted pairs to both sides by the slope of their middle half, for predictions above the best."""
    slope = float(np.ptp(np.quantile(accuracies, (0.25, 0.75)))) / _MIDDLE
    scores = np.concatenate([[scores[0] - _FAR], scores, [scores[-1] + _FAR]])
    return scores, np.concatenate([[accuracies[0] - _FAR * slope], accuracies, [accuracies[-1] + _FAR * slope]])


def _thinned(rows: int, most: int) -> list[int]:
    """Return the numbers of at most so many rows, spread evenly."""
    return [round(place) for place in np.linspace(0, rows - 1, min(rows, most)).tolist()]
