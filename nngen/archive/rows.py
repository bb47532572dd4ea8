"""Translation of the archive's values from and to the columns of their rows.

Dictionaries stop here: JSON columns are read into typed values and written from them, under the keys of the first
version.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar, cast, get_type_hints

from nngen.archive.columns import UNREADABLE, DamagedRowError, Row, amount, checked, read, share, text
from nngen.archive.records import (
    BriefScore,
    CampaignRecord,
    Event,
    LoopRole,
    StoredCandidate,
    StoredTrial,
    Tally,
    TrialLine,
    TrialScore,
    TrialState,
)
from nngen.campaign_spec import CampaignSpec
from nngen.plan import Plan
from nngen.types import (
    EpochResult,
    Fidelity,
    Outcome,
    Record,
    Score,
    Shape,
    Trial,
    TrialSpec,
    Verdict,
    historic_augment,
)

T = TypeVar("T")

_INPUTS = ("pool", "left_out", "data_fingerprint", "classes", "known", "nngen")
"""Fields of ``CampaignRecord`` that stand beside the specification in its column."""

_POINT = ("epoch", "validation_accuracy", "train_accuracy", "train_loss", "seconds", "entropy", "samples")
"""Columns of a learning curve that are fields of ``EpochResult`` as they are."""


def dump(value: Any) -> str:
    """Write JSON that is the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


# Campaigns, plans and candidates


def campaign_to_text(record: CampaignRecord) -> str:
    """Write the JSON column of a campaign."""
    more = {name: getattr(record, name) for name in _INPUTS} | {"candidates": list(record.candidates)}
    return dump(record.spec.to_dict() | {name: value for name, value in more.items() if value or name == "pool"})


def campaign_from_row(row: Row) -> CampaignRecord:
    """Build a campaign from its row."""

    def parse(text: str) -> CampaignRecord:
        data = json.loads(text)
        return checked(
            CampaignRecord(
                spec=CampaignSpec.from_dict(data),
                **{name: data[name] for name in _INPUTS if data.get(name)},
                candidates=tuple(data.get("candidates", ())),
                **{name: row[name] for name in ("loop", "cycle", "created_at")},
                role=LoopRole(row["role"]) if row["role"] else None,
            )
        )

    return read(row, "spec", parse)


def plan_id(plan: Plan) -> str:
    """Identify a plan by its content."""
    return hashlib.sha256(dump(plan.to_dict()).encode()).hexdigest()


def plan_from_text(text: str) -> Plan:
    """Read the JSON column of a plan."""
    return checked(Plan.from_dict(json.loads(text)))


_EXPERTS = '{"experts":["'
"""The beginning of what the archive writes of a plan; the rest is ten times as long and the same in a campaign."""


def _split_experts(text: str) -> tuple[list[str], int]:
    """Return a plan's experts, which stand first, and the place behind them; 0 where they cannot be told so quickly."""
    end = text.find('"]', len(_EXPERTS))
    inside = text[len(_EXPERTS) : end]
    experts = inside.split('","')
    # Names and what separates them, and no other sign of JSON in between.
    plain = end > 0 and text.startswith(_EXPERTS) and "\\" not in inside
    return (experts, end + 2) if plain and inside.count('"') == 2 * (len(experts) - 1) else ([], 0)


def _experts_from_text(text: str) -> tuple[str, ...]:
    experts, end = _split_experts(text)
    if not end:
        experts = json.loads(text)["experts"]
        if not all(isinstance(name, str) for name in experts):
            raise TypeError("its experts are not all names")
    return tuple(map(sys.intern, experts))  # a hundred thousand trials have few names: each is kept once


def candidate_from_row(row: Row, experts: Sequence[Row], verdicts: Sequence[Row]) -> StoredCandidate:
    """Build a candidate from its row, its experts' rows and its verdicts' rows."""
    return StoredCandidate(
        **{name: row[name] for name in ("id", "canonical", "source", "created_at", "template_version")},
        plan=read(row, "plan", plan_from_text) if row["plan"] else None,
        experts=tuple(expert["family"] for expert in experts),
        fingerprints=tuple(expert["fingerprint"] or "" for expert in experts),
        verdicts=tuple(verdict_from_row(verdict) for verdict in verdicts),
    )


def verdict_from_row(row: Row) -> Verdict:
    """Build a verdict from the columns ``outcome``, ``rule``, ``message``, ``line``."""
    outcome = read(row, "outcome", Outcome)
    return Verdict(outcome=outcome, rule=row["rule"] or "", message=row["message"] or "", line=row["line"])


# Trials


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


def _conditions(text: str | None) -> dict[str, Any]:
    """Read what ``environment_to_text`` wrote as fields of ``StoredTrial``."""
    rest: dict[str, str] = json.loads(text or "{}")
    if "data" in rest:  # the first archives have the longer key
        rest["data_fingerprint"] = rest.pop("data")
    found = {name: parse(rest.pop(name)) for name, (_, parse) in _CONDITIONS.items() if name in rest}
    if not all(isinstance(value, str) for value in rest.values()):
        raise TypeError("its values are not all texts")
    return found | {"environment": rest}


def point_from_row(row: Row) -> EpochResult:
    """Build a point of a learning curve from its row."""
    usage = read(row, "usage", lambda text: tuple(map(float, json.loads(text))))
    read(row, "validation_accuracy", share)
    return EpochResult(**{name: row[name] for name in _POINT}, usage=usage)


_SAME = (
    *("id", "campaign", "position", "rung", "replicate", "candidate_id", "copied_from", "given_seed"),
    *("started_at", "finished_at"),
)
"""Columns of a trial that are fields of ``StoredTrial`` as they are."""

_SCORE: dict[str, Callable[[Any], Any]] = {
    name: text if hint is str else share if name.endswith("_accuracy") else amount
    for name, hint in get_type_hints(Score).items()
}
"""Fields of ``Score`` with the check of their columns; a field that is added there needs a migration and no more."""

SCORED = tuple(_SCORE)
"""Columns of a trial that are fields of ``Score``."""


def _score(values: Iterable[Any]) -> dict[str, Any]:
    return {name: check(value) for (name, check), value in zip(_SCORE.items(), values, strict=True)}


class TrialRows:
    """Builds trials from the rows of one query; a text that many rows share is parsed once, and its value shared."""

    def __init__(self) -> None:
        self._plan, self._rest_of_plan = cache(self._plan_from_text), cache(plan_from_text)
        self._conditions = cache(_conditions)
        self._spec = cache(spec_from_text)
        self._experts = cache(_experts_from_text)
        self._trained = cache(self._trained_as)

    def trial(self, row: Row, curve: Sequence[Row]) -> StoredTrial:
        """Build a trial from its row (with ``plan`` and ``test_accuracy`` joined) and its curve's rows."""
        points = tuple(point_from_row(point) for point in curve)
        try:
            return StoredTrial(
                **{name: row[name] for name in _SAME},
                **_score(row[name] for name in SCORED),
                test_accuracy=share(row["test_accuracy"]),
                plan=self._plan(row["plan"]),
                state=_STATES[row["state"]],
                spec=self._with_seed(row["spec"]) if row["spec"] else None,
                verdict=verdict_from_row(row) if row["outcome"] else None,
                **self._conditions(row["environment"]),
                given=row["given_isolation"] is not None,
                curve=points,
            )
        except UNREADABLE as error:
            raise self._blamed(row, environment=self._conditions) from error

    def named_plan(self, row: Row) -> tuple[str, Plan]:
        """Build the id of a candidate and its plan."""
        return row["id"], read(row, "plan", self._plan)

    def _plan_from_text(self, text: str) -> Plan:
        # Plans of a campaign differ in the experts alone; the rest is parsed once.
        _, end = _split_experts(text)
        if not end:
            return plan_from_text(text)
        return _changed(self._rest_of_plan(f'{{"experts":[]{text[end:]}'), experts=self._experts(text))

    def _with_seed(self, text: str) -> TrialSpec:
        # Specifications of a campaign differ in the seed alone.
        seed, rest = _seed(text)
        return _changed(self._spec(rest), seed=seed)

    def _trained_as(self, spec: str, data: str | None, batch: str | None) -> tuple[TrialSpec, Fidelity]:
        found = self._spec(spec)
        return found, found.fidelity(data or "", _batch(batch))

    def _training(
        self, state: str, outcome: str, settings: str, data: str | None, batch: str | None
    ) -> tuple[int, TrialSpec, Fidelity]:
        """Return the seed of a trained trial, its specification with seed 0, and its fidelity."""
        if state not in _STATES or outcome not in _OUTCOMES:
            raise ValueError("its state or outcome is unknown")
        seed, rest = _seed(settings)
        return seed, *self._trained(rest, data, batch)

    def line(self, row: sqlite3.Row) -> TrialLine:
        """Build a line from a row of ``LINES``."""
        # Unpacked, not looked up by name: a hundred thousand rows are read within a second.
        number, campaign, position, rung, replicate, state, candidate, outcome, accuracy, suspect, spec, plan = row
        try:
            return TrialLine(
                id=number,
                campaign=sys.intern(campaign),
                position=position,
                rung=rung,
                replicate=replicate,
                candidate_id=candidate,
                validation_accuracy=share(accuracy),
                state=_STATES[state],
                experts=self._experts(plan) if plan else (),
                outcome=_OUTCOMES[outcome],
                seed=replicate if spec is None else _seed(spec)[0],
                suspect=suspect,
            )
        except UNREADABLE as error:
            raise self._blamed(row, environment=_batch) from error

    def score(self, row: sqlite3.Row) -> TrialScore:
        """Build a score from a row of ``SCORES``."""
        number, candidate, state, outcome, plan, settings, tested, data, batch, *measured = row
        try:
            seed, spec, fidelity = self._training(state, outcome, settings, data, batch)
            return TrialScore(
                id=number,
                candidate_id=candidate,
                experts=self._experts(plan),
                spec=spec,
                seed=seed,
                fidelity=fidelity,
                test_accuracy=share(tested),
                **_score(measured),
            )
        except UNREADABLE as error:
            raise self._blamed(row, environment=_batch) from error

    def brief_score(self, row: sqlite3.Row) -> BriefScore:
        """Build a brief score from a row of ``BRIEF_SCORES``."""
        number, candidate, state, outcome, settings, tested, data, batch, accuracy, suspect = row
        try:
            seed, spec, fidelity = self._training(state, outcome, settings, data, batch)
            return BriefScore(number, candidate, spec, seed, fidelity, share(accuracy), share(tested), text(suspect))
        except UNREADABLE as error:
            raise self._blamed(row, environment=_batch) from error

    def positioned_experts(self, row: sqlite3.Row) -> tuple[int, tuple[str, ...]]:
        """Return the position of a candidate and its experts from a row of ``FIRST_PLANS``."""
        try:
            return row[1], self._experts(row[2])
        except UNREADABLE as error:
            raise self._blamed(row, environment=_batch) from error

    def _blamed(self, row: Row, environment: Callable[[Any], object]) -> DamagedRowError:
        """Find the column that cannot be read; only damaged rows pay for naming it."""
        parsers: dict[str, Callable[[Any], object]] = {
            **_SCORE,
            "test_accuracy": share,
            "state": TrialState,
            "plan": plan_from_text,
            "outcome": lambda outcome: outcome and Outcome(outcome),
            "environment": environment,
            "spec": lambda text: text and self._spec(text),
        }
        for column in sorted(set(row.keys()) & parsers.keys()):
            try:
                read(row, column, parsers[column])
            except DamagedRowError as error:
                return error
        return DamagedRowError("a column has another type")


_LINES = """
    SELECT trials.id, campaign, position, rung, replicate, state, candidate_id, outcome, validation_accuracy, suspect,
        {} FROM trials {} WHERE {{}} ORDER BY trials.id
"""
LINES = _LINES.format("spec, plans.plan AS plan", "JOIN plans ON plans.id = plan_id")
BRIEF_LINES = _LINES.format("NULL AS spec, NULL AS plan", "")
_SCORES = """
    SELECT trials.id, candidate_id, state, outcome, {} spec, test_accuracy, trials.data_fingerprint,
        CASE WHEN environment IS NULL THEN NULL WHEN json_valid(environment)
        THEN json_extract(environment, '$.batch') ELSE 'broken' END AS environment, {}
    FROM trials {} LEFT JOIN reveals ON trial_id = trials.id
    WHERE validation_accuracy IS NOT NULL AND {{}} ORDER BY trials.id
"""
SCORES = _SCORES.format("plans.plan AS plan,", ", ".join(SCORED), "JOIN plans ON plans.id = plan_id")
BRIEF_SCORES = _SCORES.format("", "validation_accuracy, suspect", "")
FIRST_PLANS = """
    SELECT trials.id, position, plan FROM trials JOIN plans ON plans.id = plan_id
    WHERE campaign = ? AND rung = 0 AND replicate = 0 ORDER BY trials.id
"""

TALLIES = """
    SELECT campaign, rung, replicate > 0 AS again, count(*) AS trials, sum(state = 'done') AS done,
        sum(state = 'running') AS running, count(validation_accuracy) AS trained,
        sum(coalesce(outcome, 'valid') != 'valid') AS failed, max(validation_accuracy) AS best
    FROM trials WHERE {} GROUP BY campaign, rung, again ORDER BY campaign, rung, again
"""

_STATES = {state.value: state for state in TrialState}
_OUTCOMES: dict[str | None, Outcome | None] = {None: None, **{outcome.value: outcome for outcome in Outcome}}
_SEED = re.compile(r'"seed":(\d+)')


def _seed(text: str) -> tuple[int, str]:
    """Return the seed of a specification's text, and the text with seed 0."""
    found = _SEED.search(text)
    if found is None:
        raise ValueError("it has no seed")
    return int(found[1]), f"{text[: found.start(1)]}0{text[found.end(1) :]}"


def _changed(value: T, **changes: Any) -> T:
    """Do as ``dataclasses.replace`` for flat values, in a quarter of the time."""
    kind: Any = type(value)
    names, values = _names_of(kind)
    return cast(T, kind(**dict(zip(names, values(value), strict=True)) | changes))


@cache
def _names_of(kind: Any) -> tuple[tuple[str, ...], attrgetter[Any]]:
    names = tuple(kind.__dataclass_fields__)
    return names, attrgetter(*names)


def _batch(text: str | None) -> int | None:
    if text == "broken":  # as the query says of what is not JSON
        raise ValueError("it is not valid JSON")
    return None if text is None else int(text)


def tally_from_row(row: Row) -> Tally:
    """Build a tally from a row of ``TALLIES``."""
    return Tally(**dict(row) | {"again": bool(row["again"]), "best": read(row, "best", share)})


def names_from_row(row: Row) -> tuple[str, ...]:
    """Build the names of a data set's classes from their row."""
    return read(row, "names", _names)


def _names(text: str) -> tuple[str, ...]:
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError("it is not a list of names")
    return tuple(names)


def record_from_row(row: Row) -> Record:
    """Build LEMUR's best record with a family from the family's row."""
    return read(row, "best", lambda text: checked(Record(**json.loads(text))))


def event_from_row(row: Row) -> Event:
    """Build an event from its row."""
    read(row, "at", datetime.fromisoformat)
    return Event(**dict(row) | {"detail": read(row, "detail", _json_object)})


def _json_object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise TypeError("it is not an object")
    return value
