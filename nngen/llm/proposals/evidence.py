"""Evidence of trials about plans, for prompts and labels: noise of seeds, effects of numbers, edits that were tried."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

import numpy as np

from nngen.analysis.ranking.reliability import ASSUMED_SD
from nngen.archive.records import StoredTrial
from nngen.llm.proposals.edits import Edit, edit_between
from nngen.plan import Plan
from nngen.surrogate.plan_text import CHOICES, Value, compact_number, field_value, fixed_fields, plan_text, rate_paths

_FEW = 3  # degrees of freedom below which a deviation between seeds is itself mostly noise
_CLEAR = 2.0  # standard errors of a difference that counts
_Z = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedPlan:
    """A candidate's plan with its mean validation accuracy at one fidelity."""

    candidate: str  # id of the candidate; its plan's key where it has none
    plan: Plan
    accuracy: float
    seeds: int  # number of its trials
    squares: float  # sum of the squared deviations of their accuracies from the mean
    first: int  # place of its first trial among those that were read
    campaign: str  # campaign of that trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Noise between the seeds of one plan at one fidelity."""

    sd: float  # standard deviation of one accuracy
    df: int  # degrees of freedom that it was measured with; 0 where it was assumed

    def error(self, one: TrainedPlan, other: TrainedPlan) -> float:
        """Compute the standard error of the difference of two plans' means."""
        return self.sd * math.sqrt(1 / one.seeds + 1 / other.seeds)

    def gap(self, one: TrainedPlan, other: TrainedPlan) -> float:
        """Compute the gain of the second plan over the first in units of two standard errors: clear beyond 1."""
        return (other.accuracy - one.accuracy) / (_CLEAR * self.error(one, other))

    @property
    def points(self) -> str:
        """Smallest clear difference of two plans of one seed each, in points."""
        return f"{100 * _CLEAR * self.sd * math.sqrt(2):.1f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberEffect:
    """Effect of one value of a field, against the field's average value, shrunk towards zero."""

    path: str
    value: Value
    effect: float  # estimate, in accuracy
    error: float  # its standard deviation
    plans: int  # number of plans with the value


def trained_candidates(trials: Iterable[StoredTrial]) -> dict[str, TrainedPlan]:
    """Average the trials of each mixture, by candidate id, in the order of their first trials."""
    places: dict[str, list[int]] = defaultdict(list)
    known = list(trials)
    for place, trial in enumerate(known):
        if trial.trained and trial.plan.kind != "single":
            places[trial.candidate_id or plan_key(trial.plan)].append(place)
    found = {}
    for name, own in places.items():
        accuracies = [known[place].validation_accuracy or 0.0 for place in own]
        mean, first = fmean(accuracies), known[own[0]]
        found[name] = TrainedPlan(
            candidate=name,
            plan=first.plan,
            accuracy=mean,
            seeds=len(own),
            squares=sum((value - mean) ** 2 for value in accuracies),
            first=own[0],
            campaign=first.campaign,
        )
    return found


def trained_plans(trials: Iterable[StoredTrial]) -> list[TrainedPlan]:
    """Average the trials of each plan, in the order of their first trials.

    Only the first candidate of a plan counts: code that a rewriter changed has its parent's plan, and came later.
    """
    found: dict[str, TrainedPlan] = {}
    for row in trained_candidates(trials).values():
        found.setdefault(plan_key(row.plan), row)
    return list(found.values())


def noise_of(trials: Iterable[StoredTrial]) -> Noise:
    """Measure the noise between seeds on candidates that were trained several times.

    Where few were, the deviation is at least ``ASSUMED_SD``.
    """
    rows = trained_candidates(trials).values()
    df = sum(row.seeds - 1 for row in rows)
    sd = math.sqrt(sum(row.squares for row in rows) / df) if df else 0.0
    return Noise(sd=max(sd, ASSUMED_SD) if df < _FEW or sd == 0 else sd, df=df)


@lru_cache(maxsize=2**17)
def plan_key(plan: Plan) -> str:
    """Write a key of a plan with all its fields."""
    return f"{plan_text(plan)} {fixed_fields(plan)}"


def number_effects(plans: Sequence[TrainedPlan]) -> list[NumberEffect]:
    """Estimate the effects of a plan's numbers together with those of its families, by Bayesian ridge regression.

    Fields with one value are left out; nothing is estimated from fewer than three plans or equal accuracies.
    """
    fields = [{path: field_value(row.plan, path) for path in (*CHOICES, *rate_paths(row.plan))} for row in plans]
    counts = Counter(level for own in fields for level in own.items())
    values = Counter(path for path, _ in counts)
    levels = sorted(level for level in counts if values[level[0]] > 1)
    accuracies = np.array([row.accuracy for row in plans])
    if len(plans) < 3 or not levels or float(np.ptp(accuracies)) == 0:
        return []
    # Loads scikit-learn, which --help must not.
    from sklearn.linear_model import BayesianRidge

    families = sorted({name for row in plans for name in row.plan.experts})
    table = [
        [*(name in row.plan.experts for name in families), *(own.get(path) == value for path, value in levels)]
        for row, own in zip(plans, fields, strict=True)
    ]
    model = BayesianRidge().fit(np.array(table, dtype=np.float64), accuracies)
    found = []
    for path in dict(levels):
        own = [place for place, level in enumerate(levels) if level[0] == path]
        columns = [len(families) + place for place in own]
        shares = np.array([counts[levels[place]] for place in own], dtype=np.float64)
        shares /= shares.sum()
        # Each value against the mean over the plans that have the field: a contrast of the field's own coefficients.
        contrasts = np.eye(len(own)) - shares
        effects = contrasts @ model.coef_[columns]
        errors = np.sqrt(np.diag(contrasts @ model.sigma_[np.ix_(columns, columns)] @ contrasts.T))
        for place, effect, error in zip(own, effects.tolist(), errors.tolist(), strict=True):
            level = levels[place]
            found.append(NumberEffect(path=path, value=level[1], effect=effect, error=error, plans=counts[level]))
    return found


def number_lines(effects: Sequence[NumberEffect]) -> list[dict[str, str]]:
    """Write a line for each field: effects in points with half their 95 % interval; the clearest field first."""
    by_field: dict[str, list[NumberEffect]] = {}
    for row in effects:
        by_field.setdefault(row.path, []).append(row)

    def clearness(rows: Sequence[NumberEffect]) -> float:
        return max(abs(row.effect) / max(row.error, 1e-9) for row in rows)

    def write(row: NumberEffect) -> str:
        return f"{compact_number(row.value)} {100 * row.effect:+.1f} +-{100 * _Z * row.error:.1f} ({row.plans})"

    clearest = sorted(by_field.items(), key=lambda item: -clearness(item[1]))
    return [{"name": path, "effect": ", ".join(map(write, rows))} for path, rows in clearest]


def tried_edits(parent: TrainedPlan, plans: Iterable[TrainedPlan], noise: Noise) -> list[tuple[Edit, float, str]]:
    """List the edits of a plan that were trained, with the gain and a verdict, the best first."""
    found = []
    for child in plans:
        edit = edit_between(parent.plan, child.plan)
        if edit is not None:
            gap = noise.gap(parent, child)
            verdict = "inside the noise" if abs(gap) <= 1 else "better" if gap > 0 else "worse"
            found.append((edit, child.accuracy - parent.accuracy, verdict))
    return sorted(found, key=lambda row: -row[1])
