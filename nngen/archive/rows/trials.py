"""Trials built from the rows of their queries, and the queries whose columns are unpacked in order."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar, cast, get_type_hints

from nngen.archive.records import BriefScore, StoredTrial, TrialLine, TrialScore, TrialState
from nngen.archive.rows.columns import UNREADABLE, DamagedRowError, Row, amount, read, share, text
from nngen.archive.rows.values import (
    conditions_from_text,
    experts_from_text,
    plan_from_text,
    spec_from_text,
    split_experts,
    split_seed,
    verdict_from_row,
)
from nngen.plan import Plan
from nngen.types import EpochResult, Fidelity, Outcome, Score, TrialSpec

T = TypeVar("T")

_POINT = ("epoch", "validation_accuracy", "train_accuracy", "train_loss", "seconds", "entropy", "samples")
"""Columns of a learning curve that are fields of ``EpochResult`` as they are."""


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


_STATES = {state.value: state for state in TrialState}

_OUTCOMES: dict[str | None, Outcome | None] = {None: None, **{outcome.value: outcome for outcome in Outcome}}


class TrialRows:
    """Builds trials from the rows of one query; a text that many rows share is parsed once, and its value shared."""

    def __init__(self) -> None:
        self._plan, self._rest_of_plan = cache(self._plan_from_text), cache(plan_from_text)
        self._conditions = cache(conditions_from_text)
        self._spec = cache(spec_from_text)
        self._experts = cache(experts_from_text)
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
        _, end = split_experts(text)
        if not end:
            return plan_from_text(text)
        return _changed(self._rest_of_plan(f'{{"experts":[]{text[end:]}'), experts=self._experts(text))

    def _with_seed(self, text: str) -> TrialSpec:
        # Specifications of a campaign differ in the seed alone.
        seed, rest = split_seed(text)
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
        seed, rest = split_seed(settings)
        return seed, *self._trained(rest, data, batch)

    def line(self, row: sqlite3.Row) -> TrialLine:
        """Build a line from a row of ``LINES``."""
        # Unpacked, not looked up by name: a hundred thousand rows are read within a second.
        number, campaign, position, rung, replicate, state, candidate, outcome, accuracy, suspect, spec, plan = row
        try:
            return TrialLine(
                number,
                sys.intern(campaign),
                position,
                rung,
                replicate,
                _STATES[state],
                self._experts(plan) if plan else (),
                candidate,
                _OUTCOMES[outcome],
                share(accuracy),
                replicate if spec is None else split_seed(spec)[0],
                suspect,
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
