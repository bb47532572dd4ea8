"""The space of plans a rewriter may write: which values, as a JSON schema, as draws, as a reader.

One table says what each field of the plan's dataclasses may hold. The grammar that binds a model,
the ``random`` and ``mutate`` baselines and the reader all follow it, so none can write what
another would refuse.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from random import Random
from typing import Any, TypeAlias

from nngen.llm.proposals.parsing import Fault, ReplyError, one_block
from nngen.text import did_you_mean
from nngen.types import Plan

__all__ = ["CHOICES", "EXPERTS", "PlanSpace", "frame", "plan_text"]

Value: TypeAlias = float | int | str

EXPERTS = 4

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
"""What each field may hold. A field of ``Plan`` that is not here keeps its parent's value, or its default."""


def plan_text(plan: Plan) -> str:
    """Write a plan as the one line of JSON that a rewriter writes: no blanks, 1 and not 1.0."""
    named = {path: _get(plan.to_dict(), path) for path in CHOICES}
    nested: dict[str, Any] = {"experts": list(plan.experts)}
    for path, value in named.items():
        group, name = path.split(".")
        nested.setdefault(group, {})[name] = _number(value)
    return json.dumps(nested, separators=(",", ":"))


def frame(plan: Plan) -> str:
    """Write what ``plan_text`` leaves out of a plan: two plans of one frame differ in what their texts say alone."""
    data = plan.to_dict()
    data.pop("experts")
    for path in CHOICES:
        group, name = path.split(".")
        data[group].pop(name)
    return json.dumps(data, sort_keys=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSpace:
    """The plans over a pool of usable families.

    Attributes:
        families: The pool; experts are four different ones of it.
        choices: As ``CHOICES``; its paths exist in ``Plan``.
    """

    families: tuple[str, ...]
    choices: Mapping[str, tuple[Value, ...]] = field(default_factory=lambda: CHOICES)

    def __post_init__(self) -> None:
        if len(set(self.families)) < max(EXPERTS, len(self.families)):
            raise ReplyError(Fault.FAMILY, f"a plan needs {EXPERTS} different families, not {self.families}")
        unknown = sorted(set(self.choices) - set(_paths()))
        if unknown:
            raise ReplyError(Fault.NOT_A_PLAN, f"no such field in a plan: {', '.join(unknown)}")

    def schema(self, chosen: Sequence[str] = ()) -> dict[str, Any]:
        """Derive the JSON schema of a plan.

        Args:
            chosen: The experts written so far; they stand, and no later one may repeat them.
        """
        rest = [name for name in self.families if name not in chosen]
        items = [{"const": name} for name in chosen] + [{"enum": rest}] * (EXPERTS - len(chosen))
        experts = {"type": "array", "prefixItems": items, "items": False, "minItems": EXPERTS, "maxItems": EXPERTS}
        groups: dict[str, dict[str, Any]] = {}
        for path, values in self.choices.items():
            group, name = path.split(".")
            groups.setdefault(group, {})[name] = {"enum": [_number(value) for value in values]}
        return _closed({"experts": experts, **{group: _closed(inner) for group, inner in groups.items()}})

    def draw(self, rng: Random) -> Plan:
        """Draw a plan: families without replacement and every value uniformly."""
        experts = sorted(rng.sample(self.families, EXPERTS))
        return self._plan({path: rng.choice(values) for path, values in self.choices.items()}, experts)

    def mutate(self, plan: Plan, rng: Random) -> Plan:
        """Change one thing of a plan: one expert, or one value of one field.

        Experts that the pool does not have, or that are named twice, give way to others first.
        """
        values = {path: _get(plan.to_dict(), path) for path in self.choices}
        held = list(dict.fromkeys(name for name in plan.experts if name in self.families))[:EXPERTS]
        others = [name for name in self.families if name not in held]
        experts = held + rng.sample(others, EXPERTS - len(held))
        path = rng.choice(["experts", *self.choices])
        spare = [name for name in self.families if name not in experts]
        if path == "experts" and spare:
            experts[rng.randrange(EXPERTS)] = rng.choice(spare)
        else:
            path = path if path != "experts" else rng.choice(list(self.choices))
            values[path] = rng.choice([value for value in self.choices[path] if value != values[path]])
        return self._plan(values, sorted(experts), plan)

    def read(self, text: str, parent: Plan | None = None) -> Plan:
        """Read a reply: bare JSON, or JSON as the one code block in it.

        Args:
            text: What a rewriter wrote.
            parent: Gives the fields that a rewriter does not write.

        Raises:
            ReplyError: With the fault and a line that a second try can learn from.
        """
        stripped = text.strip()
        try:
            data = json.loads(stripped if stripped.startswith("{") else one_block(text))
        except json.JSONDecodeError as error:
            raise ReplyError(Fault.NOT_JSON, f"not JSON: {error}") from error
        if not isinstance(data, dict):
            raise ReplyError(Fault.NOT_A_PLAN, "a plan is a JSON object")
        return self._plan(self._values(data), self._experts(data), parent)

    def _experts(self, data: Mapping[str, Any]) -> list[str]:
        names = data.get("experts")
        if not isinstance(names, list) or len(names) != EXPERTS or not all(isinstance(name, str) for name in names):
            raise ReplyError(Fault.FAMILY, f"experts must be {EXPERTS} names")
        for name in names:
            if name not in self.families:
                near = did_you_mean(name, self.families)
                raise ReplyError(Fault.FAMILY, f"no usable family is called {name!r}{near and '; '}{near}")
        if len(set(names)) < EXPERTS:
            raise ReplyError(Fault.FAMILY, f"the experts must differ: {', '.join(names)}")
        return sorted(names)

    def _values(self, data: Mapping[str, Any]) -> dict[str, Value]:
        flat: dict[str, Value] = {}
        for group, inner in data.items():
            if group == "experts":
                continue
            if not isinstance(inner, dict):
                raise ReplyError(Fault.NOT_A_PLAN, f"{group!r} is not a part of a plan with fields")
            flat |= {f"{group}.{name}": value for name, value in inner.items()}
        for path, value in flat.items():
            if path not in self.choices:
                raise ReplyError(Fault.NOT_A_PLAN, f"a plan has no field {path!r}")
            if isinstance(value, bool) or value not in self.choices[path]:
                raise ReplyError(Fault.RANGE, f"{path} is {value!r}; it may be {self.choices[path]}")
        return flat

    def _plan(self, values: Mapping[str, Value], experts: Sequence[str], parent: Plan | None = None) -> Plan:
        data = (parent or Plan(experts=tuple(experts))).to_dict()
        # Whatever the parent is, what the grammar writes is a quartet.
        data = {name: part for name, part in data.items() if name not in ("kind", "repeats")}
        data["experts"] = list(experts)
        for path, value in values.items():
            group, name = path.split(".")
            # A float field stays a float, so that equal plans have equal text and bytes.
            data[group][name] = type(data[group][name])(value)
        return Plan.from_dict(data)


def _paths() -> list[str]:
    plan = Plan(experts=())
    groups = [(item.name, getattr(plan, item.name)) for item in fields(plan)]
    return [f"{name}.{inner.name}" for name, group in groups if is_dataclass(group) for inner in fields(group)]


def _get(data: Mapping[str, Any], path: str) -> Value:
    group, name = path.split(".")
    value: Value = data[group][name]
    return value


def _number(value: Value) -> Value:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _closed(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }
