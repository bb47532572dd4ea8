"""Rewriters by Optuna's sampler TPE (Bergstra et al. 2011): whole plans, or their numbers alone.

The second is the ceiling of tuning without new mixtures, beside which every claim about proposals has to stand.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from random import Random
from statistics import fmean
from typing import Any

from nngen.llm import optional_import
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.rewriters.base import Kind, Reply, Request
from nngen.llm.rewriters.baselines import Baseline, register_baseline
from nngen.plan import Plan
from nngen.seeds import derive
from nngen.space.pool import EXPERTS
from nngen.surrogate.plan_text import field_value, fixed_fields, json_text, rate_paths

_PLACES = tuple(f"expert {place}" for place in range(EXPERTS))
_RATES = tuple(f"rate {place}" for place in range(EXPERTS))


class Tpe(Baseline):
    """Draws from TPE over the plan grammar, fitted to the trained plans; uniform ones until ten are trained."""

    name = "tpe"
    numbers_alone = False

    def __init__(self) -> None:
        self._optuna = optional_import("optuna", "tpe")
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        self._studies: dict[tuple[str, tuple[str, ...]], Any] = {}

    def propose(self, requests: Sequence[Request]) -> list[Reply]:
        self._studies.clear()  # their plans are those of one batch
        return super().propose(requests)

    def write(self, request: Request, rng: Random) -> str | None:
        if request.kind is not Kind.PLAN or request.space is None:
            return None
        space = request.space
        fixed = self._experts(request, rng) if self.numbers_alone else ()
        key = (fixed_fields(request.parent or Plan(experts=())), fixed)
        if key not in self._studies:
            self._studies[key] = self._study(request, fixed)
        study = self._studies[key]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the joint draw of all fields is marked as an experiment
            # A sampler of its own for each request, which does not read plans that were drawn and not measured: a reply
            # depends on no other one.
            study.sampler = self._optuna.samplers.TPESampler(
                seed=derive(request.seed, self.name), multivariate=True, constant_liar=False
            )
            drawn = study.ask(self._distributions(request, fixed)).params
        experts = list(fixed or (drawn[place] for place in _PLACES))
        rates = {name: space.rates[drawn[place]] for name, place in zip(experts, _RATES, strict=True)}
        # The sampler cannot express that experts differ: a repeated one is drawn anew.
        spare = [name for name in space.families if name not in rates]
        values = {path: values[drawn[path]] for path, values in space.fields(request.parent).items()}
        values |= {f"rates.{name}": rate for name, rate in rates.items()}
        return json_text(sorted([*rates, *rng.sample(spare, EXPERTS - len(rates))]), values)

    def _experts(self, request: Request, rng: Random) -> tuple[str, ...]:
        """Return the experts to keep: those of the parent, of the best plan, or drawn ones."""
        assert request.space is not None
        best = max(request.lessons.plans, key=lambda row: row[1], default=None)
        plan = request.parent or (best[0] if best else request.space.draw(rng))
        return plan.experts if _inside(plan, request.space) else request.space.draw(rng).experts

    def _study(self, request: Request, fixed: tuple[str, ...]) -> Any:
        """Make a study of the trained plans that the grammar can write and that share the fields outside of it."""
        assert request.space is not None
        space, outside = request.space, fixed_fields(request.parent or Plan(experts=()))
        known = [
            (plan, accuracy)
            for plan, accuracy in request.lessons.plans
            if _inside(plan, space) and fixed_fields(plan) == outside
        ]
        if fixed:
            known = _without_quartets(known)
        distributions = self._distributions(request, fixed)
        study = self._optuna.create_study(direction="maximize")
        for plan, accuracy in known:
            experts = sorted(plan.experts)
            numbers = {path: values.index(field_value(plan, path)) for path, values in space.fields(plan).items()}
            rates = (space.rates.index(float(field_value(plan, f"rates.{name}"))) for name in experts)
            numbers |= zip(_RATES, rates, strict=True)
            names = {} if fixed else dict(zip(_PLACES, experts, strict=True))
            study.add_trial(
                self._optuna.trial.create_trial(params=names | numbers, distributions=distributions, value=accuracy)
            )
        return study

    def _distributions(self, request: Request, fixed: tuple[str, ...]) -> dict[str, Any]:
        assert request.space is not None
        kinds, space = self._optuna.distributions, request.space
        # Values of a field are ordered: their places are drawn, so that neighbours are alike.
        fields = {**space.fields(request.parent), **dict.fromkeys(_RATES, space.rates)}
        numbers = {path: kinds.IntDistribution(0, len(values) - 1) for path, values in fields.items()}
        experts = {} if fixed else dict.fromkeys(_PLACES, kinds.CategoricalDistribution(space.families))
        return experts | numbers


class TpeNumbers(Tpe):
    """Draws of the numbers alone, with the experts of the parent."""

    name = "tpe-numbers"
    numbers_alone = True


def _inside(plan: Plan, space: PlanSpace) -> bool:
    """Whether the grammar can write a plan."""
    quartet = len(set(plan.experts)) == len(plan.experts) == EXPERTS and set(plan.experts) <= set(space.families)
    fields = {**space.choices, **dict.fromkeys(rate_paths(plan), space.rates)}
    return quartet and all(field_value(plan, path) in values for path, values in fields.items())


def _without_quartets(known: Sequence[tuple[Plan, float]]) -> list[tuple[Plan, float]]:
    """Subtract from each accuracy the mean of its quartet, which leaves what the numbers do."""
    quartets: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for plan, accuracy in known:
        quartets[tuple(sorted(plan.experts))].append(accuracy)
    means = {quartet: fmean(values) for quartet, values in quartets.items() if len(values) > 1}
    found = ((plan, accuracy, means.get(tuple(sorted(plan.experts)))) for plan, accuracy in known)
    return [(plan, accuracy - mean) for plan, accuracy, mean in found if mean is not None]


register_baseline(Tpe, "Optuna's sampler, pip install '.[tpe]'")
register_baseline(TpeNumbers, "the same with the parent's experts")
