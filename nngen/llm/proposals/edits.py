"""Edits of a plan: the changed fields alone, as one line of JSON, with the schema and the grammar that allow no others.

An edit names one to three fields by their dotted paths; the field ``experts`` replaces one expert, ``ICNet->AirNext``.
It has 10 to 15 tokens, where a whole plan has about a hundred, and it cannot repeat the parent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from nngen.llm.proposals.parsing import Fault, ReplyError
from nngen.plan import Plan
from nngen.space.pool import EXPERTS
from nngen.surrogate.plan_text import CHOICES, Value, compact_number, field_value, fixed_fields, rate_paths
from nngen.text import did_you_mean, one_line

Edit: TypeAlias = Mapping[str, Value]
"""New values by dotted path; ``experts`` names the expert that leaves and the one that comes."""

MOST_CHANGES = 3
"""Most fields that one edit changes: of more, none could be credited with the difference in accuracy."""

SWAP = "experts"
_ARROW = "->"


def edit_between(parent: Plan, child: Plan) -> Edit | None:
    """Return the edit that makes the child of the parent; None where none does, or the plans are equal.

    An expert that comes has the rate 1: an edit gives rates to those of the parent.
    """
    gone = [name for name in parent.experts if name not in child.experts]
    came = [name for name in child.experts if name not in parent.experts]
    kept = [path for path in rate_paths(child) if path in rate_paths(parent)]
    new = {path: field_value(child, path) for path in (*CHOICES, *kept)}
    found: dict[str, Value] = {SWAP: f"{gone[0]}{_ARROW}{came[0]}"} if gone and came else {}
    found |= {path: compact_number(value) for path, value in new.items() if value != field_value(parent, path)}
    whole = len(gone) == len(came) <= 1 and len(set(parent.experts)) == EXPERTS == len(child.experts)
    whole = whole and all(field_value(child, f"rates.{name}") == 1 for name in came)
    if not whole or not 0 < len(found) <= MOST_CHANGES or fixed_fields(parent) != fixed_fields(child):
        return None
    return found


def edit_text(edit: Edit) -> str:
    """Write an edit as one line of JSON, without blanks."""
    return json.dumps(dict(edit), separators=(",", ":"))


def swapped(experts: Sequence[str], text: str, families: Sequence[str]) -> list[str]:
    """Replace one expert as an edit says.

    Raises:
        ReplyError: If the text is not ``OLD->NEW`` with an expert of the parent and another usable family.
    """
    old, arrow, new = (part.strip() for part in text.replace("\N{RIGHTWARDS ARROW}", _ARROW).partition(_ARROW))
    if not arrow:
        raise ReplyError(Fault.FAMILY, f"experts must be {EXPERTS} names, or OLD{_ARROW}NEW to replace one")
    if old not in experts:
        raise ReplyError(Fault.FAMILY, f"the plan has no expert {old!r}: it has {', '.join(experts)}")
    if new not in families:
        near = did_you_mean(one_line(new, 60), families)
        raise ReplyError(Fault.FAMILY, f"no usable family is called {new!r}{near and '; '}{near}")
    if new in experts:
        raise ReplyError(Fault.FAMILY, f"the plan has the expert {new} already")
    return [new if name == old else name for name in experts]


def edit_values(
    parent: Plan, families: Sequence[str], choices: Mapping[str, tuple[Value, ...]], rates: tuple[float, ...] = ()
) -> dict[str, tuple[Value, ...]]:
    """List the values that an edit may give to each field, those of the parent left out.

    Empty for a parent that no edit can turn into a plan over these families: it takes a whole plan.
    """
    if len(set(parent.experts)) != EXPERTS or not set(parent.experts) <= set(families):
        return {}
    spare = [name for name in families if name not in parent.experts]
    found: dict[str, tuple[Value, ...]] = {
        SWAP: tuple(f"{old}{_ARROW}{new}" for old in sorted(parent.experts) for new in spare)
    }
    for path, values in {**choices, **dict.fromkeys(rate_paths(parent), rates)}.items():
        found[path] = tuple(compact_number(value) for value in values if value != field_value(parent, path))
    return {path: values for path, values in found.items() if values}


def edit_schema(values: Mapping[str, Iterable[Value]]) -> dict[str, Any]:
    """Build the JSON schema of an edit, for servers; that at least one field is named is left to the parser."""
    fields = {path: {"enum": list(allowed)} for path, allowed in values.items()}
    return {"type": "object", "properties": fields, "additionalProperties": False}


def edit_grammar(values: Mapping[str, Iterable[Value]]) -> str:
    """Write the grammar of edits in Lark's syntax: one to three fields, in the order of ``values``, each once."""
    rules, paths = [f'start: "{{" r0_{MOST_CHANGES} "}}"'], list(values)
    for place, path in enumerate(paths):  # one terminal for all values: a pool may have hundreds of experts
        texts = (f"{json.dumps(path)}:{json.dumps(value)}" for value in values[path])
        rules.append(f"F{place}: {' | '.join(map(json.dumps, texts))}")
    # r{place}_{left} writes up to ``left`` of the fields from ``place`` on; the list grows while it is read.
    states = [(0, MOST_CHANGES)]
    for place, left in states:
        forms = []
        for field in range(place, len(paths)):
            forms.append(f"F{field}")
            after = (field + 1, left - 1)
            if after[0] < len(paths) and after[1]:
                forms.append(f'F{field} "," r{after[0]}_{after[1]}')
                states += [after] if after not in states else []
        rules.append(f"r{place}_{left}: {' | '.join(forms)}")
    return "\n".join(rules)
