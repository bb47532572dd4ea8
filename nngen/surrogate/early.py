"""Best accuracy of a long training, predicted from its first epochs and its hyperparameters.

Extremely randomized trees (Geurts et al. 2006) learn from LEMUR's learning curves of 50 epochs and more. Intervals are
conformal (Lei et al. 2018): residuals on models that were left out of a fit, in units of the spread of the trees.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nngen.errors import UsageError
from nngen.surrogate.plan_accuracy import MIN_GROUPS, Matrix, PredictorScore, cross_validate, fit_ridge, folds
from nngen.types import Hyperparameters, Record

if TYPE_CHECKING:
    from sklearn.ensemble import ExtraTreesRegressor

LONG = 50
"""Epochs of the shortest training that is learned from."""

COVERAGE = 0.9
"""Share of accuracies that intervals are to hold."""

_SIDE = re.compile(r"_(\d{2,3})(?:_|$)")
_TREES = 100
_LEAF = 3
_LEAST_SPREAD = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A long training."""

    model: str  # name of the model
    dataset: str  # LEMUR's name of the data set
    accuracies: tuple[float, ...]  # accuracy after each epoch from 1
    hyperparameters: Hyperparameters  # values that LEMUR recorded

    def best_after(self, epochs: int) -> float:
        """Return the best accuracy after more than so many epochs."""
        return max(self.accuracies[epochs:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """A predicted best accuracy with the interval that holds ``COVERAGE`` of such accuracies."""

    accuracy: float
    low: float
    high: float


def long_runs(records: Iterable[Record]) -> list[Run]:
    """Join records into trainings, and return those of at least 50 epochs without a gap."""
    found: dict[tuple[Any, ...], dict[int, float]] = {}
    for record in records:
        key = record.model, record.dataset, *sorted(record.hyperparameters.items())
        points = found.setdefault(key, {})
        points[record.epoch] = max(record.accuracy, points.get(record.epoch, 0.0))
    runs = []
    for (model, dataset, *settings), points in found.items():
        if len(points) >= LONG and len(points) == max(points):
            accuracies = tuple(points[epoch] for epoch in sorted(points))
            runs.append(Run(model=model, dataset=dataset, accuracies=accuracies, hyperparameters=dict(settings)))
    return runs


class EarlyPredictor:
    """Predicts the best accuracy of a training from its first epochs.

    Raises:
        UsageError: If there are too few models.
    """

    def __init__(self, runs: Sequence[Run], epochs: int) -> None:
        models = [run.model for run in runs]
        if len(set(models)) < MIN_GROUPS:
            raise UsageError(f"{len(set(models))} models with {LONG} epochs are too few to learn from")
        self._epochs = epochs
        self._sets = sorted({run.dataset for run in runs})
        features = np.array([self._features(run) for run in runs])
        truth = np.array([run.best_after(epochs) for run in runs])
        scores = []
        for train, test in folds(models):
            point, spread = _predict(_fit(features[train], truth[train]), features[test])
            scores += (np.abs(truth[test] - point) / spread).tolist()
        # The rank of a new score among those of n known ones is uniform: hence n + 1.
        share = min(1.0, math.ceil(COVERAGE * (len(scores) + 1)) / len(scores))
        self._reach = float(np.quantile(scores, share))
        self._trees = _fit(features, truth)

    def predict(self, runs: Sequence[Run]) -> list[Forecast]:
        """Predict trainings, of which only the first epochs are read."""
        point, spread = _predict(self._trees, np.array([self._features(run) for run in runs]))
        low, high = (np.clip(point + sign * self._reach * spread, 0.0, 1.0) for sign in (-1, 1))
        rows = zip(point.tolist(), low.tolist(), high.tolist(), strict=True)
        return [Forecast(accuracy=one, low=least, high=most) for one, least, most in rows]

    def _features(self, run: Run) -> list[float]:
        early = run.accuracies[: self._epochs]
        if len(early) < self._epochs:
            raise UsageError(f"the accuracies of {self._epochs} epochs are needed, not of {len(early)}")
        return [*early, early[-1] - early[0], max(early), *_settings(run), *(run.dataset == s for s in self._sets)]


def _settings(run: Run) -> list[float]:
    """Return hyperparameters as numbers; what a model does not have is -1, which trees set apart."""
    prm = run.hyperparameters
    logs = (math.log10(value) if (value := _number(prm.get(name))) > 0 else -9.0 for name in ("lr", "batch"))
    plain = (_number(prm.get(name)) for name in ("momentum", "dropout"))
    transform = str(prm.get("transform", ""))
    side = _SIDE.search(transform)
    marks = (float(transform.startswith("norm")), float(transform.endswith("_flip")))
    return [*logs, *plain, float(side[1]) if side else 0.0, *marks]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else -1.0


def _fit(features: Matrix, truth: Matrix) -> ExtraTreesRegressor:
    from sklearn.ensemble import ExtraTreesRegressor

    return ExtraTreesRegressor(_TREES, min_samples_leaf=_LEAF, random_state=0).fit(features, truth)


def _predict(trees: ExtraTreesRegressor, features: Matrix) -> tuple[Matrix, Matrix]:
    """Return the mean of the trees and their spread, ``(N,)`` each."""
    each = np.array([tree.predict(features) for tree in trees.estimators_])  # (trees, N)
    return each.mean(axis=0), np.maximum(each.std(axis=0), _LEAST_SPREAD)


def compare_early(runs: Sequence[Run], epochs: int) -> tuple[list[PredictorScore], float]:
    """Cross-validate predictors of the best accuracy after the first epochs, whole models left out.

    Returns:
        Scores of the mean, of the last early epoch as it is, of ridge regression on the early epochs, and of the trees;
        and the share of accuracies in the trees' intervals.
    """
    truth = [run.best_after(epochs) for run in runs]
    inside: list[bool] = []

    def predict(train: Sequence[int], test: Sequence[int]) -> dict[str, list[float]]:
        known, asked = [runs[index] for index in train], [runs[index] for index in test]
        fitted = EarlyPredictor(known, epochs)
        forecasts = fitted.predict(asked)
        inside.extend(one.low <= truth[index] <= one.high for one, index in zip(forecasts, test, strict=True))
        early = [np.array([run.accuracies[:epochs] for run in some]) for some in (known, asked)]
        return {
            f"epoch {epochs} as it is": [run.accuracies[epochs - 1] for run in asked],
            "ridge": fit_ridge(early[0], [truth[index] for index in train])(early[1]),
            "trees": [one.accuracy for one in forecasts],
        }

    scores = cross_validate([run.model for run in runs], truth, predict)
    return scores, sum(inside) / len(inside)
