"""The space of plans that a rewriter may write: a JSON schema, uniform draws, mutations and a parser of replies.

All four follow one table, ``CHOICES`` of ``nngen.surrogate.plan_text``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from random import Random
from typing import Any

from nngen.llm.proposals.parsing import Fault, ReplyError, one_object
from nngen.plan import Plan
from nngen.space.pool import EXPERTS
from nngen.surrogate.plan_text import CHOICES, Value, compact_number, field_value
from nngen.text import did_you_mean, one_line


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSpace:
    """Plans over a pool of usable families.

    Attributes:
        families: Pool of families; a plan takes four different ones.
        choices: Values of each field, by a ``part.field`` of ``Plan``.

    Raises:
        ReplyError: If the pool has fewer than four different families, or a path is not a field of a plan.
    """

    families: tuple[str, ...]
    choices: Mapping[str, tuple[Value, ...]] = field(default_factory=lambda: CHOICES)

    def __post_init__(self) -> None:
        if len(set(self.families)) < max(EXPERTS, len(self.families)):
            raise ReplyError(Fault.FAMILY, f"a plan needs {EXPERTS} different families, not {self.families}")
        parts = {item.name: getattr(Plan(experts=()), item.name) for item in fields(Plan)}
        paths = {f"{name}.{inner.name}" for name, part in parts.items() if is_dataclass(part) for inner in fields(part)}
        unknown = sorted(set(self.choices) - paths)
        if unknown:
            raise ReplyError(Fault.NOT_A_PLAN, f"no such field in a plan: {', '.join(unknown)}")

    def schema(self, chosen: Sequence[str] = ()) -> dict[str, Any]:
        """Build the JSON schema of a plan; ``chosen`` experts are fixed, and later ones differ from them."""
        rest = [name for name in self.families if name not in chosen]
        items = [{"const": name} for name in chosen] + [{"enum": rest}] * (EXPERTS - len(chosen))
        experts = {"type": "array", "prefixItems": items, "items": False, "minItems": EXPERTS, "maxItems": EXPERTS}
        groups: dict[str, dict[str, Any]] = {}
        for path, values in self.choices.items():
            group, name = path.split(".")
            groups.setdefault(group, {})[name] = {"enum": [compact_number(value) for value in values]}
        return _closed({"experts": experts, **{group: _closed(inner) for group, inner in groups.items()}})

    def draw(self, rng: Random) -> Plan:
        """Draw four different families and every value uniformly."""
        experts = sorted(rng.sample(self.families, EXPERTS))
        return self._plan({path: rng.choice(values) for path, values in self.choices.items()}, experts)

    def mutate(self, plan: Plan, rng: Random) -> Plan:
        """Change one expert, or the value of one field; experts outside of the pool or named twice are replaced."""
        values = {path: field_value(plan, path) for path in self.choices}
        kept = list(dict.fromkeys(name for name in plan.experts if name in self.families))[:EXPERTS]
        others = [name for name in self.families if name not in kept]
        experts = kept + rng.sample(others, EXPERTS - len(kept))
        path = rng.choice(["experts", *self.choices])
        spare = [name for name in self.families if name not in experts]
        if path == "experts" and spare:
            experts[rng.randrange(EXPERTS)] = rng.choice(spare)
        else:
            path = path if path != "experts" else rng.choice(list(self.choices))
            values[path] = rng.choice([value for value in self.choices[path] if value != values[path]])
        return self._plan(values, sorted(experts), plan)

    def read(self, text: str, parent: Plan | None = None) -> Plan:
        """Parse a reply: one JSON object, whatever stands around it.

        Fields outside of ``choices`` are those of ``parent``.

        Raises:
            ReplyError: If it is not a plan of this space; the message serves a second attempt.
        """
        data = one_object(text, "experts")
        return self._plan(self._values(data), self._experts(data), parent)

    def _experts(self, data: Mapping[str, Any]) -> list[str]:
        names = data.get("experts")
        if not isinstance(names, list) or len(names) != EXPERTS or not all(isinstance(name, str) for name in names):
            raise ReplyError(Fault.FAMILY, f"experts must be {EXPERTS} names")
        for name in names:
            if name not in self.families:
                near = did_you_mean(one_line(name, 60), self.families)
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
        # The grammar writes quartets, whatever kind the parent is.
        data = {name: part for name, part in data.items() if name not in ("kind", "repeats")}
        data["experts"] = list(experts)
        for path, value in values.items():
            group, name = path.split(".")
            # A float field stays a float: equal plans have equal texts and equal bytes.
            data[group][name] = type(data[group][name])(value)
        return Plan.from_dict(data)


def _closed(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }
