"""Ranker that learns from joint trainings: a Gaussian process over scores, families and pairs of families."""

from __future__ import annotations

import warnings
from functools import reduce
from operator import add
from typing import Any, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Hyperparameter, Kernel, WhiteKernel
from sklearn.model_selection import KFold

from nngen.space.pool import EXPERTS
from nngen.surrogate.experts import Floats

ACCURACIES = (
    *("mean_single", "best_single", "second_single", "mean_probabilities"),
    *("mean_logits", "convex_weights", "ridge_gate", "stacking"),
)
"""Scores that the ranker reads: accuracies of what the experts put out. Those of diversity, speed and size made fits of
some tens of mixtures worse (docs/design/0028)."""

_BOUNDS = (1e-4, 1e2)
_FOLDS = 5
_BLOCK = 20_000  # mixtures that are predicted at a time


class Shared(Kernel):  # type: ignore[misc]
    """Covariance of what mixtures share: their scores, their families, or their pairs of families.

    The last columns of a row say which families a mixture has, ``(Q, S + E)`` for ``S`` scores and ``E`` families.

    Args:
        what: ``scores`` (a linear model), ``families`` (an effect of each), or ``pairs`` (an effect of each).
        scores: Number of columns in front of the families.
        variance: Share of the variance of the accuracies.
    """

    def __init__(self, what: str, scores: int, variance: float = 1.0) -> None:
        self.what, self.scores, self.variance = what, scores, variance

    @property
    def hyperparameter_variance(self) -> Hyperparameter:
        """What is fitted."""
        return Hyperparameter("variance", "numeric", _BOUNDS)

    def __call__(self, X: Floats, Y: Floats | None = None, eval_gradient: bool = False) -> Any:  # noqa: N803
        """Return the covariance of rows, ``(n, m)``, if asked with its derivative by the logarithm of the variance."""
        found = self.variance * self._shared(X, X if Y is None else Y)
        return (found, found[:, :, np.newaxis]) if eval_gradient else found

    def diag(self, X: Floats) -> Floats:  # noqa: N803
        """Return the variance of each row, ``(n,)``."""
        own: Floats = np.square(X[:, : self.scores]).mean(axis=1) if self.what == "scores" else np.ones(len(X))
        return self.variance * own

    def is_stationary(self) -> bool:
        """Return False: the covariance is that of a linear model."""
        return False

    def _shared(self, rows: Floats, others: Floats) -> Floats:
        if self.what == "scores":
            found: Floats = rows[:, : self.scores] @ others[:, : self.scores].T / self.scores
            return found
        families: Floats = rows[:, self.scores :] @ others[:, self.scores :].T  # number of shared families
        if self.what == "families":
            return families / EXPERTS
        return families * (families - 1) / (EXPERTS * (EXPERTS - 1))


class LearnedRanker:
    """Gaussian process (Rasmussen and Williams 2006) with the shares of variance of the highest likelihood.

    With few trainings the scores decide, since the shares of families and pairs stay small. With more of them the
    effects of the families that were trained jointly come in, and then those of pairs. For a family that was in none
    of them, the scores are what is known.

    Args:
        scores: Number of scores, the first columns of its rows.
    """

    _model: GaussianProcessRegressor

    def __init__(self, scores: int) -> None:
        self._scores = scores

    def fit(self, rows: Floats, truth: Floats, like: LearnedRanker | None = None) -> Self:
        """Fit to joint trainings.

        Args:
            rows: Scores of the mixtures, and which families they have, ``(n, S + E)``; ``E`` may be 0.
            truth: Mean accuracies, ``(n,)``.
            like: Ranker whose shares are taken in place of fitted ones.
        """
        own = rows[:, : self._scores]
        deviation = own.std(axis=0)
        self._middle, self._deviation = own.mean(axis=0), np.where(deviation > 0, deviation, 1.0)
        self._spread = float(truth.std()) or 1.0
        parts = ["scores", "families", "pairs"] if rows.shape[1] > self._scores else ["scores"]
        kernel = reduce(add, (Shared(what, self._scores) for what in parts)) + WhiteKernel(0.3, _BOUNDS)
        chosen: dict[str, Any] = (
            {"kernel": kernel} if like is None else {"kernel": like._model.kernel_, "optimizer": None}
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a part that the data do not need ends at its bound
            self._model = GaussianProcessRegressor(**chosen, normalize_y=True).fit(self._scaled(rows), truth)
        return self

    def predict(self, rows: Floats) -> tuple[Floats, Floats]:
        """Predict rows ``(m, S + E)``: mean accuracies ``(m,)`` and their deviations ``(m,)``, without seeds' noise."""
        blocks = [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
        found = [self._model.predict(self._scaled(block), return_std=True) for block in blocks]
        means, deviations = (np.concatenate(side) for side in zip(*found, strict=True))
        noise = self._model.kernel_.k2.noise_level
        return means, np.sqrt(np.maximum(deviations**2 - noise * self._spread**2, 0.0))

    def _scaled(self, rows: Floats) -> Floats:
        own = (rows[:, : self._scores] - self._middle) / self._deviation
        return np.hstack([own, rows[:, self._scores :]])


def predict_left_out(
    ranker: LearnedRanker, rows: Floats, truth: Floats, scores: int, fewest: int
) -> tuple[Floats, Floats]:
    """Predict each joint training by fits without it, with the shares of a fitted ranker.

    Returns:
        Predictions by fits without a fifth of the mixtures, ``(n,)``, and by fits without every mixture of one of its
        four families, ``(4, n)``: in each row another of them; nan where fewer than ``fewest`` mixtures are left.
    """
    members = rows[:, scores:] > 0
    mixtures, families = np.full(len(truth), np.nan), np.full((EXPERTS, len(truth)), np.nan)
    for known, held in KFold(_FOLDS, shuffle=True, random_state=0).split(rows):
        mixtures[held] = LearnedRanker(scores).fit(rows[known], truth[known], ranker).predict(rows[held])[0]
    # Place of each family among those of its mixture, turned by the mixture's number: rows hold families alike.
    places = (members.cumsum(axis=1) + np.arange(len(members))[:, np.newaxis]) % EXPERTS
    for family in np.flatnonzero(members.any(axis=0)):
        known, held = np.flatnonzero(~members[:, family]), np.flatnonzero(members[:, family])
        if len(known) >= fewest:
            fitted = LearnedRanker(scores).fit(rows[known], truth[known], ranker)
            families[places[held, family], held] = fitted.predict(rows[held])[0]
    return mixtures, families
