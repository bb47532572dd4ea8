"""Which plans can be assembled."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from nngen.errors import PlanError
from nngen.plan import Plan

__all__ = ["KINDS", "Kind", "check_plan"]

_MOST = 64
"""Experts of one mixture at most: what a trial's report has room for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of mixture.

    Attributes:
        template: Under ``templates/mixtures``.
        gate: Under ``templates/gates``.
        only: The one name that its experts have; None where any family may take part.
        families: Whether its experts are families; otherwise the kind brings its own.
    """

    template: str
    gate: str
    only: str | None = None
    families: bool = True


KINDS: Mapping[str, Kind] = {
    "hetero": Kind(template="families", gate="convolution"),
    "homogeneous": Kind(template="homogeneous", gate="dense", only="Dense", families=False),
    "alexnet": Kind(template="families", gate="convolution_linear", only="AlexNet"),
}
"""The kinds of mixture."""

_RANGES = {
    "gate.width": (2, 4096),
    "gate.depth": (1, 8),
    "gate.temperature": (1e-3, 1e3),
    "gate.noise": (0, 1e3),
    "losses.label_smoothing": (0, 1),
    "losses.balance": (0, 1e3),
    "losses.load": (0, 1e3),
    "losses.switch": (0, 1e3),
    "losses.z": (0, 1e3),
    "losses.bias": (0, 1),
    "losses.entropy": (0, 1e3),
    "losses.diversity": (0, 1e3),
    "recipe.gate_rate": (0, 1e3),
    "recipe.weight_decay": (0, 1e3),
    "recipe.mixup": (0, 1e3),
    "recipe.warmup": (0, 0.99),
    "recipe.clip": (1e-6, 1e6),
    "recipe.cutmix": (0, 1e3),
    "recipe.ema": (0, 0.99999),
}

_WORDS = {"gate.routing": ("soft", "top-k"), "recipe.optimizer": ("adamw", "sgd")}

_WHOLE = frozenset({"gate.width", "gate.depth", "gate.k"})


def check_plan(plan: Plan) -> None:
    """Refuse a plan that cannot be assembled.

    Raises:
        PlanError: If its kind is unknown, its experts do not fit it, or a value is out of range.
    """
    if plan.kind not in KINDS:
        raise PlanError(f"no kind of mixture is called {plan.kind!r}: there are {', '.join(KINDS)}")
    _check_experts(plan)
    for path, (low, high) in _RANGES.items():
        _check_range(path, _value(plan, path), low, high)
    for path, words in _WORDS.items():
        if _value(plan, path) not in words:
            raise PlanError(f"{path} is {_value(plan, path)!r}: it may be {' or '.join(words)}")
    _check_routing(plan)


def _check_experts(plan: Plan) -> None:
    names = plan.experts
    if not all(isinstance(name, str) for name in names):
        raise PlanError("the experts of a plan are names of families, in quotes")
    if not 2 <= len(names) <= _MOST:
        raise PlanError(f"a mixture takes 2 to {_MOST} experts, not {len(names)}: {', '.join(names) or 'none'}")
    only = KINDS[plan.kind].only
    if only is not None:
        others = [name for name in names if name != only]
        if others:
            raise PlanError(f"the experts of kind {plan.kind} are {only}, as often as wanted, not {others[0]}")
        return
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice and not plan.repeats:
        raise PlanError(f"{twice[0]} is named twice: name different families, or ask for --allow-repeats")
    strange = [name for name in names if not name.replace("-", "").replace(".", "").replace("_", "").isalnum()]
    if strange:
        raise PlanError(f"{strange[0]!r} is no name of a family: letters, digits, hyphens, points and underscores")


def _check_routing(plan: Plan) -> None:
    gate, losses, count = plan.gate, plan.losses, len(plan.experts)
    if not isinstance(gate.learned_noise, bool):
        raise PlanError(f"gate.learned_noise is {gate.learned_noise!r}: it may be true or false")
    if gate.learned_noise and not gate.noise > 0:
        raise PlanError("gate.learned_noise needs a gate.noise above 0 to start from")
    if gate.routing == "top-k":
        _check_range("gate.k", gate.k, 1, count - 1)
        if losses.load > 0 and not gate.noise > 0:
            raise PlanError("losses.load is defined under noise: set gate.noise above 0, or losses.load to 0")
        return
    for name in ("load", "bias"):
        if getattr(losses, name) > 0:
            raise PlanError(f'losses.{name} evens out a choice of experts: it needs gate.routing = "top-k"')


def _check_range(path: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PlanError(f"{path} is {value!r}: it must be a number")
    if path in _WHOLE and not float(value).is_integer():
        raise PlanError(f"{path} is {value}: it must be a whole number")
    if not (math.isfinite(value) and low <= value <= high):
        raise PlanError(f"{path} is {value}: it must lie between {low} and {high}")


def _value(plan: Plan, path: str) -> object:
    part, _, name = path.partition(".")
    value: object = getattr(getattr(plan, part), name)
    return value
