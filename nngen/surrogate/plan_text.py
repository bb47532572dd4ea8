"""One-line JSON text of a plan, and the table of values that its fields may take there.

The grammar that constrains a language model, the random baselines, the parser of replies and the
predictors of accuracy all use this table, so none of them can write what another would refuse.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from nngen.plan import Plan

Value: TypeAlias = float | int | str

CHOICES: Mapping[str, tuple[Value, ...]] = {
    "gate.width": (16, 32, 64),
    "gate.depth": (1, 2, 3),
    "gate.temperature": (0.5, 1.0, 2.0, 4.0),
    "gate.noise": (0.0, 0.05, 0.1, 0.3),
    "gate.routing": ("soft", "top-k"),
    "losses.label_smoothing": (0.0, 0.05, 0.1, 0.2),
    "losses.balance": (0.0, 0.001, 0.01, 0.1),
    "recipe.gate_rate": (1.0, 2.0, 3.0, 10.0),
    "recipe.weight_decay": (0.0, 0.001, 0.01, 0.05),
    "recipe.mixup": (0.0, 0.1, 0.2, 0.4),
    "recipe.warmup": (0.05, 0.1, 0.2, 0.3),
    "recipe.clip": (0.5, 1.0, 2.0, 5.0),
    "recipe.optimizer": ("adamw", "sgd"),
    "recipe.cutmix": (0.0, 0.5, 1.0),
    "recipe.ema": (0.0, 0.9, 0.99),
}
"""Values of each field, by ``part.field``, beside the ``RATES`` of experts. Fields of ``Plan`` that are not listed keep
the parent's value or the default: several of them are valid only together."""

RATES: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
"""Multiples of the learning rate that each expert may have, at ``rates.FAMILY``."""


def plan_text(plan: Plan) -> str:
    """Write the experts, the fields of ``CHOICES`` and rates other than 1 as one line of JSON, without blanks."""
    return json_text(plan.experts, {path: field_value(plan, path) for path in (*CHOICES, *rate_paths(plan))})


def json_text(experts: Sequence[str], values: Mapping[str, Value]) -> str:
    """Write experts and values by ``part.field`` as one line of JSON, without blanks, ``1`` for ``1.0``."""
    nested: dict[str, Any] = {"experts": list(experts)}
    for path, value in values.items():
        part, name = path.split(".", 1)
        if part != "rates" or value != 1:
            nested.setdefault(part, {})[name] = compact_number(value)
    return json.dumps(nested, separators=(",", ":"))


def rate_paths(plan: Plan) -> list[str]:
    """Return the path of each expert's rate, in alphabetic order."""
    return [f"rates.{name}" for name in sorted(set(plan.experts))]


def fixed_fields(plan: Plan) -> str:
    """Write every field that ``plan_text`` leaves out, as JSON: the key that plans with comparable texts share."""
    data = plan.to_dict()
    data.pop("experts")
    data.pop("rates", None)
    for path in CHOICES:
        part, name = path.split(".")
        data[part].pop(name, None)
    return json.dumps(data, sort_keys=True)


def field_value(plan: Plan, path: str) -> Value:
    """Return the value of a plan at ``part.field``, or of an expert's rate at ``rates.FAMILY``."""
    part, name = path.split(".", 1)
    value: Value = dict(plan.rates).get(name, 1.0) if part == "rates" else getattr(getattr(plan, part), name)
    return value


def compact_number(value: Value) -> Value:
    """Return a whole float as an integer: ``1`` takes fewer tokens than ``1.0``."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
