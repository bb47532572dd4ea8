"""Values that stand in columns: plans, specifications, environments and verdicts, read and written.

Dictionaries stop here. Keys of JSON are those of the first version.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from nngen.archive.rows.columns import Row, checked, read
from nngen.plan import Plan
from nngen.types import Outcome, Shape, Trial, TrialSpec, Verdict, historic_augment


def dump(value: Any) -> str:
    """Write JSON that is the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def plan_id(plan: Plan) -> str:
    """Identify a plan by its content."""
    return hashlib.sha256(dump(plan.to_dict()).encode()).hexdigest()


def plan_from_text(text: str) -> Plan:
    """Read the JSON column of a plan."""
    return checked(Plan.from_dict(json.loads(text)))


_EXPERTS = '{"experts":["'
"""The beginning of what the archive writes of a plan; the rest is ten times as long and the same in a campaign."""


def split_experts(text: str) -> tuple[list[str], int]:
    """Return a plan's experts, which stand first, and the place behind them; 0 where they cannot be told so quickly."""
    end = text.find('"]', len(_EXPERTS))
    inside = text[len(_EXPERTS) : end]
    experts = inside.split('","')
    # Names and what separates them, and no other sign of JSON in between.
    plain = end > 0 and text.startswith(_EXPERTS) and "\\" not in inside
    return (experts, end + 2) if plain and inside.count('"') == 2 * (len(experts) - 1) else ([], 0)


def experts_from_text(text: str) -> tuple[str, ...]:
    """Read the experts alone from the JSON column of a plan."""
    experts, end = split_experts(text)
    if not end:
        experts = json.loads(text)["experts"]
        if not all(isinstance(name, str) for name in experts):
            raise TypeError("its experts are not all names")
    return tuple(map(sys.intern, experts))  # a hundred thousand trials have few names: each is kept once


def spec_to_text(spec: TrialSpec) -> str:
    """Write a trial's specification for a column.

    Equal specifications give equal text, in archives of every version: the time limit keeps its first key, and fields
    that came later are written only where they differ from what held before.
    """
    data = asdict(spec) | {"shape": str(spec.shape)}
    if spec.train_size is None:
        del data["train_size"]
    for name in ("start", "horizon"):
        if not data[name]:
            del data[name]
    if spec.class_weights == "none":
        del data["class_weights"]
    if spec.augment == historic_augment(spec.dataset):
        del data["augment"]
    return dump(data | {"wall_s": data.pop("time_limit_s")})


def spec_from_text(text: str) -> TrialSpec:
    """Read what ``spec_to_text`` wrote."""
    data = json.loads(text)
    if "wall_s" in data:
        data["time_limit_s"] = data.pop("wall_s")
    data.setdefault("augment", historic_augment(data["dataset"]))
    return checked(TrialSpec(**data | {"shape": Shape.parse(data["shape"])}))


_SEED = re.compile(r'"seed":(\d+)')


def split_seed(text: str) -> tuple[int, str]:
    """Return the seed of a specification's text, and the text with seed 0."""
    found = _SEED.search(text)
    if found is None:
        raise ValueError("it has no seed")
    return int(found[1]), f"{text[: found.start(1)]}0{text[found.end(1) :]}"


_CONDITIONS: dict[str, tuple[Callable[[Any], str], Callable[[str], Any]]] = {
    "data_fingerprint": (str, str),
    "isolation": (str, str),
    "prm": (lambda prm: json.dumps(dict(prm), sort_keys=True), json.loads),
    "batch": (str, int),
    "batches_tried": (lambda tried: ", ".join(map(str, tried)), lambda text: tuple(map(int, text.split(", ")))),
    "energy_j": ("{:.3f}".format, float),
    "predicted_mib": ("{:.0f}".format, float),
    "epochs_before": (str, int),
}
"""Conditions of a training, which stand as strings among its environment: how each is written and read."""


def environment_to_text(trial: Trial) -> str:
    """Write a trial's environment for its column: one JSON object of strings, with the conditions of training in it."""
    values = {name: (getattr(trial, name), write) for name, (write, _) in _CONDITIONS.items()}
    kept = {name: write(value) for name, (value, write) in values.items() if value not in (None, "", (), {})}
    if "data_fingerprint" in kept:
        kept["data"] = kept.pop("data_fingerprint")
    return dump({**trial.environment, **kept})


def conditions_from_text(text: str | None) -> dict[str, Any]:
    """Read what ``environment_to_text`` wrote as fields of ``StoredTrial``."""
    rest: dict[str, str] = json.loads(text or "{}")
    if "data" in rest:  # the first archives have the longer key
        rest["data_fingerprint"] = rest.pop("data")
    found = {name: parse(rest.pop(name)) for name, (_, parse) in _CONDITIONS.items() if name in rest}
    if not all(isinstance(value, str) for value in rest.values()):
        raise TypeError("its values are not all texts")
    return found | {"environment": rest}


def verdict_from_row(row: Row) -> Verdict:
    """Build a verdict from the columns ``outcome``, ``rule``, ``message``, ``line``."""
    outcome = read(row, "outcome", Outcome)
    return Verdict(outcome=outcome, rule=row["rule"] or "", message=row["message"] or "", line=row["line"])
