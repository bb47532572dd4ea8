"""The space of plans that a rewriter may write: schemas, uniform draws, mutations and a parser of replies.

All follow one table, ``CHOICES`` of ``nngen.surrogate.plan_text``. A reply is a whole plan, or an edit of the parent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from random import Random
from typing import Any, Self

from nngen.assembly.registries import LOSSES
from nngen.llm.proposals.edits import SWAP, edit_schema, edit_values, swapped
from nngen.llm.proposals.parsing import Fault, ReplyError, one_object
from nngen.plan import Plan
from nngen.space.pool import EXPERTS
from nngen.surrogate.plan_text import CHOICES, RATES, Value, compact_number, field_value, fixed_fields, rate_paths
from nngen.text import did_you_mean, one_line

_PLAIN = Plan(experts=())


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSpace:
    """Plans over a pool of usable families.

    Raises:
        ReplyError: If the pool has fewer than four different families, or a path is not a field of a plan.
    """

    families: tuple[str, ...]  # pool of families; a plan takes four different ones
    # values of each field, by a ``part.field`` of ``Plan``
    choices: Mapping[str, tuple[Value, ...]] = field(default_factory=lambda: CHOICES)
    rates: tuple[float, ...] = RATES  # multiples of the learning rate that an expert may have
    base: Plan = _PLAIN  # plan whose other fields a plan without a parent has; it names no rates

    def __post_init__(self) -> None:
        if len(set(self.families)) < max(EXPERTS, len(self.families)):
            raise ReplyError(Fault.FAMILY, f"a plan needs {EXPERTS} different families, not {self.families}")
        parts = {item.name: getattr(_PLAIN, item.name) for item in fields(Plan)}
        paths = {f"{name}.{inner.name}" for name, part in parts.items() if is_dataclass(part) for inner in fields(part)}
        unknown = sorted(set(self.choices) - paths)
        if unknown:
            raise ReplyError(Fault.NOT_A_PLAN, f"no such field in a plan: {', '.join(unknown)}")

    @classmethod
    def spanned(cls, families: Sequence[str], plans: Iterable[Plan]) -> Self:
        """Return the space that given plans span: of each field their values and those of ``CHOICES`` in between.

        Rates likewise; the other fields are those that most of the plans have.
        """
        known = [plan for plan in plans if len(plan.experts) == EXPERTS] or [_PLAIN]
        outside = Counter(map(fixed_fields, known)).most_common(1)[0][0]
        choices: dict[str, tuple[Value, ...]] = {}
        for path, usual in CHOICES.items():
            choices[path] = _spanned({field_value(plan, path) for plan in known}, usual)
        rates = _spanned({float(field_value(plan, path)) for plan in known for path in rate_paths(plan)}, RATES)
        base = next(plan for plan in known if fixed_fields(plan) == outside)
        return cls(families=tuple(sorted(families)), choices=choices, rates=rates, base=replace(base, rates=()))

    def fields(self, plan: Plan | None = None) -> Mapping[str, tuple[Value, ...]]:
        """Return the values of the fields that may be changed in a plan, without those that a fixed field needs.

        A loss of routed gates needs ``top-k``; noise that is learned, or evened out, is not 0.
        """
        plan = plan or self.base
        needs = {need for name, loss in LOSSES.items() if plan.losses.weight(name) > 0 for need in loss.needs}
        held = {"gate.routing"} if "top-k" in needs or plan.recipe.frozen else set()
        held |= {"gate.noise"} if "noise" in needs or plan.gate.learned_noise else set()
        return {path: values for path, values in self.choices.items() if path not in held}

    def schema(self, chosen: Sequence[str] = ()) -> dict[str, Any]:
        """Build the JSON schema of a plan; ``chosen`` experts are fixed, and later ones differ from them.

        Once all experts are chosen, their rates may be written too; before, a schema cannot say whose.
        """
        rest = [name for name in self.families if name not in chosen]
        items = [{"const": name} for name in chosen] + [{"enum": rest}] * (EXPERTS - len(chosen))
        experts = {"type": "array", "prefixItems": items, "items": False, "minItems": EXPERTS, "maxItems": EXPERTS}
        groups: dict[str, dict[str, Any]] = {}
        for path, values in self.choices.items():
            group, name = path.split(".", 1)
            groups.setdefault(group, {})[name] = {"enum": [compact_number(value) for value in values]}
        found = _closed({"experts": experts, **{group: _closed(inner) for group, inner in groups.items()}})
        rates = [compact_number(rate) for rate in self.rates if rate != 1]
        if len(chosen) == EXPERTS and rates:
            own = _closed({name: {"enum": rates} for name in sorted(chosen)})
            found["properties"]["rates"] = own | {"required": []}
        return found

    def edits(self, parent: Plan | None) -> dict[str, tuple[Value, ...]]:
        """List the values that an edit of the parent may give to each field; empty where a whole plan is needed."""
        return {} if parent is None else edit_values(parent, self.families, self.fields(parent), self.rates)

    def reply_schema(self, parent: Plan | None) -> dict[str, Any]:
        """Build the JSON schema of a reply: an edit of the parent where there is one that can be edited, or a plan."""
        values = self.edits(parent)
        return edit_schema(values) if values else self.schema()

    def draw(self, rng: Random) -> Plan:
        """Draw four different families, their rates and every value uniformly."""
        experts = sorted(rng.sample(self.families, EXPERTS))
        values = {path: rng.choice(values) for path, values in self.fields().items()}
        return self._plan(values | {f"rates.{name}": rng.choice(self.rates) for name in experts}, experts)

    def mutate(self, plan: Plan, rng: Random) -> Plan:
        """Change one expert, its rate, or the value of one field; each place of an expert is as likely as a field.

        Experts outside of the pool or named twice are replaced.
        """
        kept = list(dict.fromkeys(name for name in plan.experts if name in self.families))[:EXPERTS]
        others = [name for name in self.families if name not in kept]
        experts = kept + rng.sample(others, EXPERTS - len(kept))
        options = {**self.fields(plan), **dict.fromkeys((f"rates.{name}" for name in sorted(experts)), self.rates)}
        new = {path: [one for one in values if one != field_value(plan, path)] for path, values in options.items()}
        spare = [name for name in self.families if name not in experts]
        paths = ([SWAP] * EXPERTS if spare else []) + [path for path, values in new.items() if values]
        values: dict[str, Value] = {}
        if paths and (path := rng.choice(paths)) != SWAP:
            values = {path: rng.choice(new[path])}
        elif paths:
            experts[rng.randrange(EXPERTS)] = rng.choice(spare)
        return self._plan(values, sorted(experts), plan)

    def cross(self, one: Plan, other: Plan, rng: Random) -> Plan:
        """Take each value from one of two plans, and four of their experts; a child equal to one of them is mutated.

        An expert brings its rate; one of both plans that of either.
        """
        pool = [name for name in dict.fromkeys((*one.experts, *other.experts)) if name in self.families]
        others = [name for name in self.families if name not in pool]
        pool += rng.sample(others, max(EXPERTS - len(pool), 0))
        experts = sorted(rng.sample(pool, EXPERTS))
        values = {path: field_value(rng.choice((one, other)), path) for path in self.fields(one)}
        for name in experts:
            owners = [plan for plan in (one, other) if name in plan.experts]
            values[f"rates.{name}"] = field_value(rng.choice(owners), f"rates.{name}") if owners else 1.0
        child = self._plan(values, experts, replace(one, rates=()))
        return self.mutate(child, rng) if child in (one, other) else child

    def read(self, text: str, parent: Plan | None = None) -> Plan:
        """Parse a reply: one JSON object, whatever stands around it.

        With a parent the object may name the changed fields alone; all fields it leaves out are those of the parent.

        Raises:
            ReplyError: If it is neither a plan of this space nor an edit that leads to one; the message serves a second
                attempt.
        """
        data = one_object(text, SWAP, *self.choices, *(path.split(".")[0] for path in self.choices), "rates")
        values = self._values(data)
        swap = data.get(SWAP)
        if parent is None or isinstance(swap, list):
            # A whole plan names every rate other than 1.
            return self._plan(values, self._experts(data), parent and replace(parent, rates=()))
        if not values and swap is None:
            raise ReplyError(Fault.UNCHANGED, 'the reply changes nothing: name a field, such as {"recipe.mixup":0.1}')
        experts = list(parent.experts) if swap is None else swapped(parent.experts, str(swap), self.families)
        plan = self._plan(values, self._experts({SWAP: experts}), parent)
        if plan == parent:
            raise ReplyError(Fault.UNCHANGED, "the plan has these values already: change something")
        return plan

    def _experts(self, data: Mapping[str, Any]) -> list[str]:
        names = data.get(SWAP)
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
        """Read the fields of a plan, in its parts, or of an edit, by dotted path; null leaves a field as it is."""
        flat: dict[str, Value] = {}
        for name, inner in data.items():
            if name == SWAP:
                continue
            if "." in name:
                flat |= {name: inner} if inner is not None else {}
            elif isinstance(inner, dict):
                flat |= {f"{name}.{field}": value for field, value in inner.items()}
            else:
                raise ReplyError(Fault.NOT_A_PLAN, f"{name!r} is not a part of a plan with fields")
        known = {**self.choices, **{f"rates.{name}": self.rates for name in self.families}}
        for path, value in flat.items():
            if path not in known:
                near = did_you_mean(one_line(path, 60), known)
                raise ReplyError(Fault.NOT_A_PLAN, f"a plan has no field {path!r}{near and '; '}{near}")
            if isinstance(value, bool) or value not in known[path]:
                raise ReplyError(Fault.RANGE, f"{path} is {value!r}; it may be {known[path]}")
        return flat

    def _plan(self, values: Mapping[str, Value], experts: Sequence[str], parent: Plan | None = None) -> Plan:
        data = (parent or self.base).to_dict()
        # The grammar writes quartets, whatever kind the parent is.
        data = {name: part for name, part in data.items() if name not in ("kind", "repeats")}
        data["experts"] = list(experts)
        data["rates"] = {name: rate for name, rate in data.get("rates", {}).items() if name in experts}
        for path, value in values.items():
            group, name = path.split(".", 1)
            if group == "rates" and name not in experts:
                raise ReplyError(Fault.FAMILY, f"{path}: {name} is none of the experts {', '.join(experts)}")
            # A float field stays a float: equal plans have equal texts and equal bytes.
            data[group][name] = type(field_value(_PLAIN, path))(value)
        return Plan.from_dict(data)


def _spanned(there: Collection[Any], usual: Iterable[Any]) -> tuple[Any, ...]:
    """Return values and the usual ones in between, in order; of words those that are there."""
    words = any(isinstance(value, str) for value in there)
    between = () if words else [value for value in usual if min(there) <= value <= max(there)]
    return tuple(sorted({*there, *between}))


def _closed(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }
