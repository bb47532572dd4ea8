"""Predictors of a plan's validation accuracy, and their errors on quartets left out of the fit.

All predictors are ridge regressions with the penalty chosen inside each fold: over the families and
the plan's numbers, over the first epochs as well, or over a frozen language model's vectors of the
plan's text. Two references stand beside them: the mean, and family effects alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nngen.archive.records import StoredTrial
from nngen.errors import UsageError
from nngen.plan import Plan
from nngen.surrogate.plan_features import field_number
from nngen.surrogate.plan_text import CHOICES, fixed_fields, plan_text
from nngen.text import counted

Matrix: TypeAlias = npt.NDArray[np.float64]
Embed: TypeAlias = Callable[[Sequence[str]], Matrix]
"""Texts to vectors, ``(N, D)``."""

MEAN = "mean"
LANGUAGE_MODEL = "language model"

MIN_GROUPS = 8
"""Fewest groups (quartets, for plans) that a predictor is fitted to."""

_FOLDS = 5
_PENALTIES = np.logspace(-3, 5, 17)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A plan with its measured accuracies, averaged over seeds."""

    plan: Plan
    early: tuple[float, ...]  # mean validation accuracy after each epoch but the last
    accuracy: float  # mean validation accuracy after the last epoch

    @property
    def quartet(self) -> str:
        """Name of the group that is left out together in cross-validation."""
        return "+".join(sorted(self.plan.experts))


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorScore:
    """Error of one predictor on groups left out of its fit."""

    predictor: str
    cases: int
    rmse: float  # root mean squared error, in accuracy
    rank: float | None  # spearman's rank correlation; None where all predictions are equal
    r: float | None  # pearson's correlation; None where all predictions are equal


def plan_cases(trials: Iterable[StoredTrial]) -> list[Case]:
    """Gather trials of one fidelity into cases, one for each plan."""
    found: dict[str, list[StoredTrial]] = defaultdict(list)
    for trial in trials:
        if trial.trained and trial.plan.kind != "single":
            found[f"{plan_text(trial.plan)} {fixed_fields(trial.plan)}"].append(trial)
    return [_case(same) for _, same in sorted(found.items())]


class PlanRegressor:
    """Ridge regression over families, the plan's numbers and early accuracies.

    It is fitted to two cases or more; ``early`` is the number of early epochs among the features.
    """

    def __init__(self, known: Sequence[Case], *, numbers: bool = True, early: int = 0) -> None:
        self._families = sorted({name for case in known for name in case.plan.experts})
        self._numbers, self._early = numbers, early
        self._model = fit_ridge(self._features(known), [case.accuracy for case in known])

    def predict(self, cases: Sequence[Case]) -> list[float]:
        """Predict accuracies in [0, 1]; the accuracies of the cases are not read."""
        return self._model(self._features(cases))

    def _features(self, cases: Sequence[Case]) -> Matrix:
        rows = []
        for case in cases:
            families = [float(name in case.plan.experts) for name in self._families]
            paths = [*CHOICES, *(f"rates.{name}" for name in self._families)] if self._numbers else []
            numbers = [field_number(case.plan, path) for path in paths]
            rows.append([*families, *numbers, *case.early[: self._early]])
        return np.array(rows, dtype=np.float64)


class TextRegressor:
    """Ridge regression over a frozen language model's vectors of the plans' texts.

    It is fitted to two cases or more; ``embed`` turns the texts of ``plan_text`` into vectors.
    """

    def __init__(self, known: Sequence[Case], embed: Embed) -> None:
        self._embed = embed
        self._model = fit_ridge(embed([plan_text(case.plan) for case in known]), [case.accuracy for case in known])

    def predict(self, cases: Sequence[Case]) -> list[float]:
        """Predict accuracies in [0, 1]; the accuracies of the cases are not read."""
        return self._model(self._embed([plan_text(case.plan) for case in cases]))


def fit_ridge(features: Matrix, accuracies: Sequence[float]) -> Callable[[Matrix], list[float]]:
    """Fit ridge regression on standardised features, ``(N, D)``; the result predicts accuracies in [0, 1]."""
    from sklearn.linear_model import RidgeCV

    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale[scale == 0] = 1.0
    model = RidgeCV(alphas=_PENALTIES).fit((features - mean) / scale, accuracies)
    return lambda rows: [float(value) for value in np.clip(model.predict((rows - mean) / scale), 0.0, 1.0)]


def compare_predictors(known: Sequence[Case], embed: Embed | None = None) -> list[PredictorScore]:
    """Cross-validate every predictor of plans on cases of one fidelity, whole quartets left out.

    With ``embed``, the language model is compared too.

    Raises:
        UsageError: If there are too few different quartets.
    """
    groups = [case.quartet for case in known]
    if len(set(groups)) < MIN_GROUPS:
        raise UsageError(f"{len(set(groups))} trained quartets are too few to learn from: train at least {MIN_GROUPS}")
    early = min(len(case.early) for case in known)
    vectors = None if embed is None else embed([plan_text(case.plan) for case in known])

    def predict(train: Sequence[int], test: Sequence[int]) -> dict[str, list[float]]:
        fitted, asked = [known[index] for index in train], [known[index] for index in test]
        found = {
            "families": PlanRegressor(fitted, numbers=False).predict(asked),
            "plan": PlanRegressor(fitted).predict(asked),
        }
        for epoch in range(1, early + 1):
            name = f"plan + {counted(epoch, 'epoch')}"
            found[name] = PlanRegressor(fitted, early=epoch).predict(asked)
        if vectors is not None:
            found[LANGUAGE_MODEL] = fit_ridge(vectors[train], [case.accuracy for case in fitted])(vectors[test])
        return found

    return cross_validate(groups, [case.accuracy for case in known], predict)


def cross_validate(
    groups: Sequence[str],
    accuracies: Sequence[float],
    predict: Callable[[Sequence[int], Sequence[int]], Mapping[str, Sequence[float]]],
) -> list[PredictorScore]:
    """Score predictors on every fold, the mean of the train cases first.

    Args:
        groups: Group of each case; a group is never on both sides of a fold.
        accuracies: Measured accuracy of each case.
        predict: From the indices of train and test cases to predictions for the test cases, by predictor.
    """
    pairs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for train, test in folds(groups):
        truth = [accuracies[index] for index in test]
        mean = fmean(accuracies[index] for index in train)
        for name, values in {MEAN: [mean] * len(test), **predict(train, test)}.items():
            pairs[name] += zip(truth, values, strict=True)
    return [_score(name, found) for name, found in pairs.items()]


def folds(groups: Sequence[str]) -> list[tuple[list[int], list[int]]]:
    """Split cases into folds by whole groups; each fold is the indices of its train and of its test cases."""
    from sklearn.model_selection import GroupKFold

    parts = GroupKFold(min(_FOLDS, len(set(groups)))).split(groups, groups=groups)
    return [(train.tolist(), test.tolist()) for train, test in parts]


def _score(name: str, pairs: Sequence[tuple[float, float]]) -> PredictorScore:
    from scipy.stats import pearsonr, spearmanr

    truth, predicted = (np.array(side) for side in zip(*pairs, strict=True))
    flat = name == MEAN or bool(np.ptp(predicted) == 0 or np.ptp(truth) == 0)
    return PredictorScore(
        predictor=name,
        cases=len(pairs),
        rmse=math.sqrt(float(np.mean((truth - predicted) ** 2))),
        rank=None if flat else float(spearmanr(truth, predicted).statistic),
        r=None if flat else float(pearsonr(truth, predicted).statistic),
    )


def _case(same: Sequence[StoredTrial]) -> Case:
    shortest = min(len(trial.curve) for trial in same)
    early = tuple(fmean(t.curve[epoch].validation_accuracy for t in same) for epoch in range(max(shortest - 1, 0)))
    accuracy = fmean(trial.validation_accuracy for trial in same if trial.validation_accuracy is not None)
    return Case(plan=same[0].plan, early=early, accuracy=accuracy)
