"""One-line JSON text of a plan, and the table of values that its fields may take there.

The grammar that constrains a language model, the random baselines, the parser of replies and the
predictors of accuracy all use this table, so none of them can write what another would refuse.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from nngen.plan import Plan

Value: TypeAlias = float | int | str

CHOICES: Mapping[str, tuple[Value, ...]] = {
    "gate.width": (16, 32, 64),
    "gate.depth": (1, 2, 3),
    "gate.temperature": (0.5, 1.0, 2.0, 4.0),
    "gate.noise": (0.0, 0.05, 0.1, 0.3),
    "losses.label_smoothing": (0.0, 0.05, 0.1, 0.2),
    "losses.balance": (0.0, 0.001, 0.01, 0.1),
    "recipe.gate_rate": (1.0, 2.0, 3.0, 10.0),
    "recipe.weight_decay": (0.0, 0.001, 0.01, 0.05),
    "recipe.mixup": (0.0, 0.1, 0.2, 0.4),
    "recipe.warmup": (0.05, 0.1, 0.2, 0.3),
    "recipe.clip": (0.5, 1.0, 2.0, 5.0),
}
"""Values of each field, by ``part.field``. Fields of ``Plan`` that are not listed keep the parent's value or the
default: several of them are valid only together, which a grammar of independent fields cannot express."""


def plan_text(plan: Plan) -> str:
    """Write the experts and the fields of ``CHOICES`` as one line of JSON, without blanks, ``1`` for ``1.0``."""
    nested: dict[str, Any] = {"experts": list(plan.experts)}
    for path in CHOICES:
        part, name = path.split(".")
        nested.setdefault(part, {})[name] = compact_number(field_value(plan, path))
    return json.dumps(nested, separators=(",", ":"))


def fixed_fields(plan: Plan) -> str:
    """Write every field that ``plan_text`` leaves out, as JSON: the key that plans with comparable texts share."""
    data = plan.to_dict()
    data.pop("experts")
    for path in CHOICES:
        part, name = path.split(".")
        data[part].pop(name)
    return json.dumps(data, sort_keys=True)


def field_value(plan: Plan, path: str) -> Value:
    """Return the value of a plan at ``part.field``."""
    part, name = path.split(".")
    value: Value = getattr(getattr(plan, part), name)
    return value


def compact_number(value: Value) -> Value:
    """Return a whole float as an integer: ``1`` takes fewer tokens than ``1.0``."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
