"""Refuses plans that cannot be assembled, with the field and what it may hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from nngen.assembly.registries import GATES, KINDS, LOSSES, gate_of
from nngen.errors import PlanError
from nngen.plan import Plan
from nngen.text import did_you_mean, listed, one_line

_RANGES = {
    "gate.width": (2, 4096),
    "gate.depth": (1, 8),
    "gate.temperature": (1e-3, 1e3),
    "gate.noise": (0, 1e3),
    "losses.label_smoothing": (0, 1),
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
        PlanError: If its kind, gate or a loss is unknown, its experts do not fit it, or a value is out of range.
    """
    if plan.kind not in KINDS:
        raise PlanError(f"no kind of mixture is called {plan.kind!r:.60}: there are {', '.join(KINDS)}")
    if not isinstance(plan.repeats, bool):
        raise PlanError(f"repeats is {plan.repeats!r:.40}: it may be true or false")
    _check_experts(plan)
    for path, (low, high) in _RANGES.items():
        _check_range(path, _value(plan, path), low, high)
    for path, words in _WORDS.items():
        if _value(plan, path) not in words:
            raise PlanError(f"{path} is {_value(plan, path)!r:.60}: it may be {' or '.join(words)}")
    check_loss_names(plan)
    _check_frozen(plan)
    _check_rates(plan)
    if KINDS[plan.kind].gate:
        _check_gate(plan)
        _check_losses(plan)
    elif plan != plan.alone(plan.experts[0]):
        raise PlanError(
            f"kind {plan.kind} has no gate: leave out [gate], recipe.gate_rate and all losses but label_smoothing"
        )


def check_drawn(plan: Plan) -> None:
    """Refuse the plan of a campaign's candidates, whose experts are drawn, where it cannot be assembled with any.

    Raises:
        PlanError: As ``check_plan``; also if its kind takes no families that are drawn, or its experts are frozen.
    """
    kind = KINDS.get(plan.kind)
    if kind is not None and not (kind.families and kind.experts[1] >= 4):
        raise PlanError(f"a campaign draws four families, and kind {plan.kind} does not take them")
    check_plan(replace(plan, experts=("A", "B", "C", "D")))
    _check_rates(plan)
    if plan.recipe.frozen:
        raise PlanError("recipe.frozen is for experts that were trained alone: nngen surrogate gates --train")


def _check_frozen(plan: Plan) -> None:
    frozen = plan.recipe.frozen
    if not isinstance(frozen, bool):
        raise PlanError(f"recipe.frozen is {frozen!r:.40}: it may be true or false")
    if frozen and not (KINDS[plan.kind].gate and KINDS[plan.kind].families):
        raise PlanError(f"recipe.frozen is for experts that were trained alone: kind {plan.kind} has none with a gate")
    if frozen and plan.gate.routing != "soft":
        raise PlanError('recipe.frozen blends the probabilities of all experts: it needs gate.routing = "soft"')


def _check_rates(plan: Plan) -> None:
    if plan.rates and not KINDS[plan.kind].families:
        raise PlanError(f"[rates] are of families: kind {plan.kind} has none of its own")
    if plan.rates and plan.recipe.frozen:
        raise PlanError("[rates] are of experts that are trained: leave them out with recipe.frozen")
    for name, rate in plan.rates:
        _check_range(f"rates.{one_line(name, 60)}", rate, 0, 1e3)


def _check_experts(plan: Plan) -> None:
    names = plan.experts
    if not all(isinstance(name, str) for name in names):
        raise PlanError("the experts of a plan are names of families, in quotes")
    least, most = KINDS[plan.kind].experts
    if not least <= len(names) <= most:
        given = one_line(listed(names, 8)) or "none"
        takes = f"a mixture takes {least} to {most} experts" if most > 1 else f"kind {plan.kind} takes one family"
        raise PlanError(f"{takes}, not {len(names)}: {given}")
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
        raise PlanError(f"{strange[0]!r} is not the name of a family: letters, digits, hyphens, points, underscores")


def _check_gate(plan: Plan) -> None:
    gate, name, features = plan.gate, gate_of(plan), KINDS[plan.kind].features
    if name not in GATES or GATES[name].features != features:
        fitting = [
            known
            for known, network in GATES.items()
            if network.features == features and (plan.recipe.frozen or not network.calibrates)
        ]
        hint = did_you_mean(str(name), fitting)
        raise PlanError(
            f"gate.network is {name!r}: {hint}{hint and ' '}for kind {plan.kind} it may be {' or '.join(fitting)}"
        )
    if GATES[name].calibrates and not plan.recipe.frozen:
        raise PlanError(f"gate.network {name} calibrates experts that stay as they are: it needs recipe.frozen = true")
    if not isinstance(gate.learned_noise, bool):
        raise PlanError(f"gate.learned_noise is {gate.learned_noise!r}: it may be true or false")
    if gate.learned_noise and not gate.noise > 0:
        raise PlanError("gate.learned_noise needs a gate.noise above 0 to start from")
    most = len(plan.experts) - 1 if gate.routing == "top-k" else KINDS[plan.kind].experts[1]
    _check_range("gate.k", gate.k, 1, most)


def check_loss_names(plan: Plan) -> None:
    """Refuse a loss that no registry has.

    Raises:
        PlanError: If one is unknown; the message gives the nearest name.
    """
    for name, _ in plan.losses.others:
        if name not in LOSSES:
            known = did_you_mean(name, LOSSES, otherwise=f"there are {', '.join(LOSSES)}")
            raise PlanError(f"no loss is called {name!r}: {known}")


def _check_losses(plan: Plan) -> None:
    for name, loss in LOSSES.items():
        weight = plan.losses.weight(name)
        _check_range(f"losses.{name}", weight, *loss.range)
        if weight > 0 and "top-k" in loss.needs and plan.gate.routing != "top-k":
            raise PlanError(f'losses.{name} evens out a choice of experts: it needs gate.routing = "top-k"')
        if weight > 0 and "noise" in loss.needs and not plan.gate.noise > 0:
            raise PlanError(f"losses.{name} is defined under noise: set gate.noise above 0, or losses.{name} to 0")


def _check_range(path: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PlanError(f"{path} is {value!r}: it must be a number")
    if not low <= value <= high:  # compared first: an integer may be too large for a float
        raise PlanError(f"{path} is {one_line(str(value), 40)}: it must lie between {low} and {high}")
    if path in _WHOLE and not float(value).is_integer():
        raise PlanError(f"{path} is {value}: it must be a whole number")


def _value(plan: Plan, path: str) -> object:
    part, _, name = path.partition(".")
    value: object = getattr(getattr(plan, part), name)
    return value
