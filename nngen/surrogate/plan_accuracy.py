"""Accuracy of a plan nobody trained, from the plan and the first epochs where there are some.

Ridge regression over which families are in it, the plan's numbers and the early accuracies; the
penalty is chosen inside of each fold. It is judged on quartets that it never saw, next to two
predictors that any model has to beat: always the mean, and family effects alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.stats import pearsonr, spearmanr
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold

from nngen.archive import StoredTrial
from nngen.errors import UsageError
from nngen.llm.prompts import estimate_tokens, prompt, render
from nngen.llm.proposals.plan_space import CHOICES, frame, plan_text
from nngen.types import Plan

__all__ = [
    "FEWEST",
    "LM",
    "Case",
    "Embed",
    "Judged",
    "Predictor",
    "Reader",
    "cases",
    "fit_ridge",
    "folds",
    "judge_predictors",
    "judged",
]

FEWEST = 8
"""Different quartets below which nothing is fitted."""

_FOLDS = 5
_PENALTIES = np.logspace(-3, 5, 17)

Matrix: TypeAlias = npt.NDArray[np.float64]
Embed: TypeAlias = Callable[[Sequence[str]], Matrix]

LM = "language model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A plan and what it came to, the mean over its seeds.

    Attributes:
        early: Mean validation accuracy after each epoch but the last.
    """

    plan: Plan
    early: tuple[float, ...]
    accuracy: float

    @property
    def quartet(self) -> str:
        """Names the group that is held out together."""
        return "+".join(sorted(self.plan.experts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """How well a predictor did on quartets it never saw.

    Attributes:
        rmse: Root mean squared error, in accuracy.
        rank: Spearman's correlation; None where all predictions are equal.
        r: Pearson's; likewise.
    """

    predictor: str
    cases: int
    rmse: float
    rank: float | None
    r: float | None


def cases(trials: Iterable[StoredTrial]) -> list[Case]:
    """Gather the trials of one fidelity, one case a plan."""
    found: dict[str, list[StoredTrial]] = defaultdict(list)
    for trial in trials:
        if trial.validation_accuracy is not None:
            # Plans that differ in a field their text leaves out are different cases.
            found[f"{plan_text(trial.plan)} {frame(trial.plan)}"].append(trial)
    return [_case(same) for _, same in sorted(found.items())]


class Predictor:
    """Fits cases and predicts others.

    Args:
        known: At least two cases.
        numbers: Whether the plan's numbers are looked at, besides its families.
        early: How many early epochs are looked at.
    """

    def __init__(self, known: Sequence[Case], *, numbers: bool = True, early: int = 0) -> None:
        self._families = sorted({name for case in known for name in case.plan.experts})
        self._numbers, self._early = numbers, early
        self._model = fit_ridge(self._features(known), [case.accuracy for case in known])

    def predict(self, asked: Sequence[Case]) -> list[float]:
        """Predict accuracies, kept inside [0, 1]; the cases' own accuracies are not looked at."""
        return self._model(self._features(asked))

    def _features(self, asked: Sequence[Case]) -> Matrix:
        return np.array([self._row(case) for case in asked], dtype=np.float64)

    def _row(self, case: Case) -> list[float]:
        row = [float(name in case.plan.experts) for name in self._families]
        if self._numbers:
            row += _numbers(case.plan)
        return row + list(case.early[: self._early])


class Reader:
    """Fits a frozen language model's vectors of plans, and predicts others.

    Args:
        known: At least two cases.
        embed: Turns texts into vectors, ``(N, D)``.
    """

    def __init__(self, known: Sequence[Case], embed: Embed) -> None:
        self._embed = embed
        self._model = fit_ridge(embed([_told(case) for case in known]), [case.accuracy for case in known])

    def predict(self, asked: Sequence[Case]) -> list[float]:
        """Predict accuracies, kept inside [0, 1]; the cases' own accuracies are not looked at."""
        return self._model(self._embed([_told(case) for case in asked]))


def fit_ridge(features: Matrix, wanted: Sequence[float]) -> Callable[[Matrix], list[float]]:
    """Fit ridge regression on standardised features, ``(N, D)``; what comes back predicts accuracies in [0, 1]."""
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale[scale == 0] = 1.0
    model = RidgeCV(alphas=_PENALTIES).fit((features - mean) / scale, wanted)
    return lambda asked: [float(value) for value in np.clip(model.predict((asked - mean) / scale), 0.0, 1.0)]


def judge_predictors(known: Sequence[Case], embed: Embed | None = None) -> list[Judged]:
    """Cross-validate every predictor on held-out quartets.

    Args:
        known: Cases of one fidelity.
        embed: Turns texts into vectors; with it, the language model is judged too.

    Raises:
        UsageError: If there are too few different quartets.
    """
    groups = [case.quartet for case in known]
    if len(set(groups)) < FEWEST:
        raise UsageError(f"{len(set(groups))} trained quartets are too few to learn from: train at least {FEWEST}")
    early = min(len(case.early) for case in known)
    vectors = None if embed is None else embed([_told(case) for case in known])
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for learned, held in folds(groups):
        train, test = [known[index] for index in learned], [known[index] for index in held]
        truth = [case.accuracy for case in test]
        predictions = _predict_all(train, test, early)
        if vectors is not None:
            predictions[LM] = fit_ridge(vectors[learned], [case.accuracy for case in train])(vectors[held])
        for name, values in predictions.items():
            found[name] += zip(truth, values, strict=True)
    return [judged(name, pairs) for name, pairs in found.items()]


def folds(groups: Sequence[str]) -> list[tuple[list[int], list[int]]]:
    """Cut cases into folds, whole groups at a time: what is learned from and what is held out, as indices."""
    parts = GroupKFold(min(_FOLDS, len(set(groups)))).split(groups, groups=groups)
    return [(learned.tolist(), held.tolist()) for learned, held in parts]


def _predict_all(train: Sequence[Case], test: Sequence[Case], early: int) -> dict[str, list[float]]:
    mean = fmean(case.accuracy for case in train)
    told = {
        "mean": [mean] * len(test),
        "families": Predictor(train, numbers=False).predict(test),
        "plan": Predictor(train).predict(test),
    }
    for epoch in range(1, early + 1):
        told[f"plan + {epoch} epochs" if epoch > 1 else "plan + 1 epoch"] = Predictor(train, early=epoch).predict(test)
    return told


def judged(name: str, pairs: Sequence[tuple[float, float]]) -> Judged:
    """Sum a predictor up over pairs of truth and prediction."""
    truth, told = (np.array(side) for side in zip(*pairs, strict=True))
    flat = name == "mean" or bool(np.ptp(told) == 0 or np.ptp(truth) == 0)
    return Judged(
        predictor=name,
        cases=len(pairs),
        rmse=math.sqrt(float(np.mean((truth - told) ** 2))),
        rank=None if flat else float(spearmanr(truth, told).statistic),
        r=None if flat else float(pearsonr(truth, told).statistic),
    )


def _case(same: Sequence[StoredTrial]) -> Case:
    shortest = min(len(trial.curve) for trial in same)
    early = tuple(fmean(t.curve[epoch].validation_accuracy for t in same) for epoch in range(max(shortest - 1, 0)))
    accuracy = fmean(trial.validation_accuracy for trial in same if trial.validation_accuracy is not None)
    return Case(plan=same[0].plan, early=early, accuracy=accuracy)


def _told(case: Case) -> str:
    """Write a plan as the feedback set asks about it, early epochs left out."""
    values = {"text": plan_text(case.plan), "dataset": "this data set", "epochs": "all", "early": []}
    return render(prompt("accuracy"), values, estimate_tokens).messages[-1].content


def _numbers(plan: Plan) -> list[float]:
    """Give the plan's numbers; those that span orders of magnitude on a log scale."""
    data = plan.to_dict()
    row = []
    for path, values in CHOICES.items():
        group, name = path.split(".")
        value, positive = float(data[group][name]), [float(v) for v in values if float(v) > 0]
        wide = bool(positive) and max(positive) / min(positive) >= 8
        row.append(math.log10(max(value, min(positive) / 10)) if wide else value)
    return row
