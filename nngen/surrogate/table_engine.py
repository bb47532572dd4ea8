"""An engine that answers trainings from a recorded table, and plans that the table lacks by a forest fitted to it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import KFold

from nngen.plan import Plan, flat_fields
from nngen.seeds import derive
from nngen.surrogate.plan_text import rate_paths
from nngen.surrogate.recorded_table import RecordedTable, RecordedTraining, by_name
from nngen.text import counted
from nngen.training.engine import CheckJob, TrainJob
from nngen.types import EpochResult, Outcome, Trial, TrialSpec, Verdict

PREDICTED = "table.predicted"
"""Rule of the verdict on a training that the forest answered; that of a recorded one is ``table.recorded``."""

_OUTSIDE = "table.outside"
_FEWEST_PLANS = 8
_FOLDS = 5
_TREES = 100

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forecast:
    """A forest over the plans of a table, its error, and the noise between seeds."""

    model: RandomForestRegressor  # forest from the features of a plan to its mean accuracy after each epoch
    error: float  # root mean squared error of the last accuracy on plans left out of the fit
    noise: float | None  # standard deviation of the last accuracy between seeds of a plan; None where no plan has two
    residuals: Floats  # differences of single trainings from the mean of their plan, by epoch, ``(N, epochs)``


class TableEngine:
    """Engine that trains nothing: one of the recorded seeds of a plan answers, drawn from the seed of the trial.

    A plan that the table lacks is answered by a forest, with the noise of a recorded training added. A plan is refused
    where it differs from the recorded ones in something that they never vary, or beyond their range.

    Attributes:
        answers: Number of answers so far, by the rule of their verdict.
    """

    slots = 1

    def __init__(self, table: RecordedTable) -> None:
        self.table = table
        self.answers = Counter[str]()
        self._varied = _varied(table)
        self._means: dict[Plan, Floats] = {}

    def check(self, job: CheckJob) -> Verdict:
        """Accept what the table can answer for; the code of the candidate is not run."""
        return self._refusal(job.candidate.plan) or Verdict(outcome=Outcome.VALID, rule="table", message="not checked")

    def train(self, job: TrainJob, on_epoch: Callable[[EpochResult], None] | None = None) -> Trial:
        """Return the recorded or the predicted result of a candidate's plan."""
        plan, spec = job.candidate.plan, job.spec
        refused = self._refusal(plan)
        if refused is not None or plan is None:
            self.answers[_OUTSIDE] += 1
            return Trial(candidate_id=job.candidate.id, spec=spec, verdict=refused or _without_plan())
        trainings = self.table.trainings.get(by_name(plan))
        if trainings:
            found = trainings[derive(spec.seed, "table") % len(trainings)]
            message = f"{found.verdict.message}, one of {len(trainings)}" if found.verdict.valid else ""
            found = replace(found, verdict=replace(found.verdict, message=message or found.verdict.message))
        else:
            found = self._predicted(plan, spec)
        self.answers[found.verdict.rule] += 1
        curve = _curve(found, plan, spec)
        if on_epoch is not None:
            for point in curve:
                on_epoch(point)
        return Trial(
            candidate_id=job.candidate.id,
            spec=spec,
            verdict=found.verdict,
            validation_accuracy=curve[-1].validation_accuracy if curve else None,
            curve=curve,
            seconds=sum(point.seconds for point in curve) or found.seconds,
            batch=spec.batch if curve else None,
            parameters=found.parameters,
            environment={"table": f"{self.table.name} {self.table.fingerprint[:12]}"},
        )

    def describe(self) -> str:
        """Return a sentence on the table: its size, and the error of its forest beside the noise between seeds."""
        table, spec = self.table, self.table.spec
        trainings = sum(map(len, table.trainings.values()))
        images = "all" if spec.train_size is None else f"{spec.train_size:,}"
        text = (
            f"trials are replayed from {table.name}, which holds {counted(trainings, 'training')} of"
            f" {counted(len(table.trainings), 'plan')}, {counted(spec.epochs, 'epoch')} of {images} images each"
        )
        if _trained(table) < _FEWEST_PLANS:
            return f"{text}; plans that it lacks are refused"
        found = forecast(table)
        noise = "is not known" if found.noise is None else f"has a deviation of {found.noise:.4f}"
        return f"{text}; a forest answers for others: error {found.error:.4f} on plans left out, noise of seeds {noise}"

    def mean_accuracy(self, plan: Plan) -> float:
        """Return the accuracy of a plan without the noise of seeds: the mean of its trainings, or of the forest."""
        recorded = [one.curve[-1] for one in self.table.trainings.get(by_name(plan), ()) if one.curve]
        return fmean(recorded) if recorded else float(self._mean_curve(plan)[-1])

    def _mean_curve(self, plan: Plan) -> Floats:
        """Return the forest's accuracies of a plan after each epoch."""
        key = by_name(plan)
        if key not in self._means:
            self._means[key] = forecast(self.table).model.predict(_features(self.table, [key])).reshape(-1)
        return self._means[key]

    def _refusal(self, plan: Plan | None) -> Verdict | None:
        """Return the verdict on a plan that the table has no answer for."""
        if plan is None:
            return _without_plan()
        if by_name(plan) in self.table.trainings:
            return None
        if _trained(self.table) < _FEWEST_PLANS:
            return _outside(f"{self.table.name} lacks this plan, and has too few to predict it from")
        if strange := [family for family in plan.experts if family not in self.table.families]:
            return _outside(f"{self.table.name} holds no training with {strange[0]}")
        for name, value in _fields(plan).items():
            known = self._varied.get(name, frozenset())
            numbers = [one for one in known if isinstance(one, int | float)]
            inside = min(numbers) <= value <= max(numbers) if numbers and isinstance(value, int | float) else False
            if value not in known and not inside:
                there = ", ".join(sorted(f"{one}" for one in known)[:6])
                return _outside(f"{name} {value} is outside of {self.table.name}, whose plans have {there or 'none'}")
        return None

    def _predicted(self, plan: Plan, spec: TrialSpec) -> RecordedTraining:
        """Return the forest's answer, with the noise of a recorded training that the trial's seed draws."""
        found, curve = forecast(self.table), self._mean_curve(plan)
        if len(found.residuals):
            curve = curve + found.residuals[derive(spec.seed, "table") % len(found.residuals)]
        return RecordedTraining(
            seed=spec.seed,
            curve=tuple(np.clip(curve, 0.0, 1.0).tolist()),
            usage=(),
            seconds=0.0,
            parameters=None,
            verdict=Verdict(
                outcome=Outcome.VALID,
                rule=PREDICTED,
                message=f"predicted, not trained: {self.table.name} lacks this plan",
            ),
        )


def _trained(table: RecordedTable) -> int:
    """Return the number of plans with a training that did not fail."""
    return sum(any(one.curve for one in trainings) for trainings in table.trainings.values())


@cache
def forecast(table: RecordedTable) -> Forecast:
    """Fit the forest to the means over seeds, one row a plan, and measure its error by cross-validation over plans."""
    curves = {
        plan: np.array([one.curve for one in trainings if one.curve])
        for plan, trainings in table.trainings.items()
        if any(one.curve for one in trainings)
    }
    features, truth = _features(table, list(curves)), np.array([seeds.mean(axis=0) for seeds in curves.values()])
    held_out = np.zeros(len(truth))
    for train, test in KFold(_FOLDS, shuffle=True, random_state=0).split(features):
        predicted = _forest(features[train], truth[train]).predict(features[test])
        held_out[test] = predicted.reshape(len(test), -1)[:, -1]
    again = [seeds for seeds in curves.values() if len(seeds) > 1]
    # A residual from a mean of n seeds is too small by (n - 1) / n of the variance.
    residuals = [(seeds - seeds.mean(axis=0)) * math.sqrt(len(seeds) / (len(seeds) - 1)) for seeds in again]
    freedom = sum(len(seeds) - 1 for seeds in again)
    squares = sum(float(((seeds - seeds.mean(axis=0))[:, -1] ** 2).sum()) for seeds in again)
    return Forecast(
        model=_forest(features, truth),
        error=math.sqrt(float(((held_out - truth[:, -1]) ** 2).mean())),
        noise=math.sqrt(squares / freedom) if freedom else None,
        residuals=np.vstack(residuals) if residuals else np.zeros((0, table.spec.epochs)),
    )


def _forest(features: Floats, curves: Floats) -> RandomForestRegressor:
    model = RandomForestRegressor(_TREES, max_features=0.5, random_state=0)
    return model.fit(features, curves if curves.shape[1] > 1 else curves[:, 0])


def _fields(plan: Plan) -> dict[str, float | str]:
    """Return the fields of a plan but its experts by dotted name, rates included; what is not a number as text."""
    found = (dict.fromkeys(rate_paths(plan), 1.0) | flat_fields(plan)).items()
    return {name: value if isinstance(value, int | float) else str(value) for name, value in found if name != "experts"}


def _varied(table: RecordedTable) -> Mapping[str, frozenset[float | str]]:
    """Return the values of each field of the recorded plans."""
    found: dict[str, set[float | str]] = {}
    for plan in table.trainings:
        for name, value in _fields(plan).items():
            found.setdefault(name, set()).add(value)
    return {name: frozenset(values) for name, values in found.items()}


def _features(table: RecordedTable, plans: Sequence[Plan]) -> Floats:
    """Return a row for each plan: how often each family is in it, and the fields that the recorded plans vary."""
    varied = {name: sorted(values, key=str) for name, values in sorted(_varied(table).items()) if len(values) > 1}
    rows = []
    for plan in plans:
        own = _fields(plan)
        places = [
            varied[name].index(value) if isinstance(value := own.get(name, 1.0), str) else value for name in varied
        ]
        rows.append([*(plan.experts.count(family) for family in table.families), *places])
    return np.array(rows, dtype=np.float64)


def _curve(found: RecordedTraining, plan: Plan, spec: TrialSpec) -> tuple[EpochResult, ...]:
    """Return the epochs of a training as far as the trial goes, weights of experts in the order of its plan."""
    usage = _in_order(found.usage, plan.experts)
    each = found.seconds / len(found.curve) if found.curve else 0.0
    return tuple(
        EpochResult(
            epoch=epoch, validation_accuracy=accuracy, seconds=each, usage=usage if epoch == len(found.curve) else ()
        )
        for epoch, accuracy in enumerate(found.curve[: spec.epochs], 1)
    )


def _in_order(usage: Sequence[tuple[str, float]], experts: Sequence[str]) -> tuple[float, ...]:
    left, found = list(usage), []
    for expert in experts if usage else ():
        place = next(number for number, (name, _) in enumerate(left) if name == expert)
        found.append(left.pop(place)[1])
    return tuple(found)


def _without_plan() -> Verdict:
    return _outside("a file without a plan is not in the table: replays are of assembled plans")


def _outside(message: str) -> Verdict:
    return Verdict(outcome=Outcome.CONTRACT, rule=_OUTSIDE, message=message)
