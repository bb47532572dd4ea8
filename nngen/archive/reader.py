"""Queries of an archive: campaigns, candidates, trials, verdicts and events as typed values."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nngen.archive.connection import sqlite_errors
from nngen.archive.records import (
    CampaignRecord,
    Event,
    StoredCandidate,
    StoredTrial,
    TrialLine,
    TrialState,
    campaign_from_row,
    candidate_from_row,
    line_from_row,
    spec_to_text,
    trial_from_row,
    verdict_from_row,
)
from nngen.errors import ArchiveError, UsageError
from nngen.text import did_you_mean
from nngen.types import Outcome, Shape, TrialSpec, Verdict

__all__ = ["ArchiveReader"]

_TRIALS = (
    "SELECT trials.*, plans.plan AS plan, reveals.test_accuracy AS test_accuracy FROM trials "
    "JOIN plans ON plans.id = trials.plan_id LEFT JOIN reveals ON reveals.trial_id = trials.id"
)
_LINES = (
    "SELECT trials.id, campaign, position, rung, replicate, state, candidate_id, outcome, validation_accuracy, "
    "suspect, CASE WHEN json_valid(spec) THEN json_extract(spec, '$.seed') END AS seed, plans.plan AS plan "
    "FROM trials JOIN plans ON plans.id = plan_id"
)
_CANDIDATES = "SELECT candidates.*, plans.plan AS plan FROM candidates LEFT JOIN plans ON plans.id = candidates.plan_id"


class ArchiveReader:
    """The reading half of ``Archive``; the contract is the text of the package."""

    def __init__(self, db: sqlite3.Connection, path: Path | None) -> None:
        self._db, self.path = db, path

    def campaigns(self) -> tuple[CampaignRecord, ...]:
        rows = self._all("SELECT * FROM campaigns ORDER BY rowid")
        return tuple(campaign_from_row(row) for row in rows)

    def campaign(self, name: str) -> CampaignRecord:
        row = self._one("SELECT * FROM campaigns WHERE name = ?", name)
        if row is None:
            raise self._unknown("campaign", name, "SELECT name FROM campaigns ORDER BY rowid")
        return campaign_from_row(row)

    def candidates(self) -> tuple[StoredCandidate, ...]:
        return self._candidates("1")

    def candidate(self, prefix: str) -> StoredCandidate:
        """Return the candidate with this id, or the only one whose id begins so, with or without ``MoE4-``."""
        exact = self._candidates("candidates.id = ?", prefix)
        if exact:
            return exact[0]
        # The index of ids is searched, so that no source is read.
        rows = self._all(
            "SELECT id FROM candidates WHERE ?1 != '' AND ?1 IN (substr(id, 1, length(?1)), "
            "substr(id, instr(id, '-') + 1, length(?1))) ORDER BY rowid",
            prefix,
        )
        if len(rows) == 1:
            return self._candidates("candidates.id = ?", rows[0]["id"])[0]
        if rows:
            shown = ", ".join(row["id"] for row in rows[:3]) + (", ..." if len(rows) > 3 else "")
            raise UsageError(f"{prefix!r} fits {len(rows)} candidates ({shown}): type more of it")
        raise self._unknown("candidate", prefix, "SELECT id FROM candidates ORDER BY rowid")

    def canonicals(self) -> dict[str, str]:
        """Map the id of each candidate to its canonical hash, without reading the sources."""
        return {row["id"]: row["canonical"] for row in self._all("SELECT id, canonical FROM candidates ORDER BY rowid")}

    def trial(self, trial_id: int) -> StoredTrial:
        found = self._trials("trials.id = ?", trial_id)
        if not found:
            raise ArchiveError(f"no trial {trial_id} in {self._named}")
        return found[0]

    def trials(
        self,
        campaign: str | None = None,
        *,
        candidate_id: str | None = None,
        state: TrialState | None = None,
    ) -> tuple[StoredTrial, ...]:
        filters = {"campaign": campaign, "candidate_id": candidate_id, "state": state and state.value}
        given = {name: value for name, value in filters.items() if value is not None}
        return self._trials(" AND ".join(["1", *(f"trials.{name} = ?" for name in given)]), *given.values())

    def lines(self, campaign: str | None = None) -> tuple[TrialLine, ...]:
        """Return all trials, of one campaign or of all, without what only a few of them are asked for."""
        where, values = ("WHERE campaign = ?", (campaign,)) if campaign is not None else ("", ())
        with sqlite_errors(self.path):
            rows = self._db.execute(f"{_LINES} {where} ORDER BY trials.id", values)
            return tuple(line_from_row(row) for row in rows)  # row by row: all of them at once would be large

    def passed(self, shape: Shape, classes: int) -> frozenset[str]:
        """Return the ids of the candidates whose last check at that shape with so many classes found them valid."""
        rows = self._all(
            # In SQLite, the other columns of a group are those of the row with the maximum.
            "SELECT candidate_id, outcome, max(id) FROM verdicts WHERE shape = ? AND classes = ? GROUP BY candidate_id",
            str(shape),
            classes,
        )
        return frozenset(row["candidate_id"] for row in rows if row["outcome"] == Outcome.VALID)

    def same_trial(self, candidate_id: str, spec: TrialSpec, data_fingerprint: str) -> StoredTrial | None:
        """Find a finished trial of the same candidate, specification and data (``data_fingerprint``)."""
        row = self._one(
            "SELECT id FROM trials WHERE candidate_id = ? AND spec = ? AND data_fingerprint = ? "
            "AND state = 'done' AND copied_from IS NULL ORDER BY id LIMIT 1",
            candidate_id,
            spec_to_text(spec),
            data_fingerprint,
        )
        return self.trial(row["id"]) if row else None

    def checked(self, candidate_id: str, shape: Shape, classes: int) -> Verdict | None:
        """Return the last verdict of a check at that shape with so many classes."""
        row = self._one(
            "SELECT * FROM verdicts WHERE candidate_id = ? AND shape = ? AND classes = ? ORDER BY id DESC LIMIT 1",
            candidate_id,
            str(shape),
            classes,
        )
        return verdict_from_row(row) if row else None

    def predictions(self, trial_id: int, split: str) -> bytes:
        row = self._one("SELECT classes FROM predictions WHERE trial_id = ? AND split = ?", trial_id, split)
        return bytes(row["classes"]) if row else b""

    def quartets(self, campaign: str | None = None) -> Mapping[tuple[str, ...], str]:
        """Return the quartets (sorted) of finished trials with their last outcome, failures included."""
        return {tuple(sorted(line.experts)): line.outcome.value for line in self.lines(campaign) if line.outcome}

    def counts(self, campaign: str) -> Mapping[TrialState, int]:
        """Count a campaign's trials by state."""
        rows = self._all("SELECT state, count(*) AS n FROM trials WHERE campaign = ? GROUP BY state", campaign)
        found = {row["state"]: int(row["n"]) for row in rows}
        return {state: found.get(state.value, 0) for state in TrialState}

    def template_versions(self, campaign: str) -> Mapping[int, int]:
        """Count a campaign's assembled candidates by the version of their templates; 0 where no version was stored."""
        # Only what was assembled has a plan of its own and a template; given files and edited sources have none.
        rows = self._all(
            "SELECT coalesce(template_version, 0) AS version, count(DISTINCT candidates.id) AS n FROM trials "
            "JOIN candidates ON candidates.id = trials.candidate_id "
            "WHERE campaign = ? AND candidates.plan_id IS NOT NULL GROUP BY version ORDER BY version",
            campaign,
        )
        return {row["version"]: int(row["n"]) for row in rows}

    def events(self, campaign: str | None = None, *, after: int = 0, kinds: Sequence[str] = ("",)) -> tuple[Event, ...]:
        """Return the events, of one campaign or of all, with ids above ``after`` and kinds that begin with these."""
        where = "id > ?" if campaign is None else "id > ? AND campaign = ?"
        begins = " OR ".join(["kind BETWEEN ? AND ?"] * len(kinds)) or "0"
        given = [after] if campaign is None else [after, campaign]
        bounds = (bound for kind in kinds for bound in (kind, f"{kind}\U0010ffff"))
        rows = self._all(f"SELECT * FROM events WHERE {where} AND ({begins}) ORDER BY id", *given, *bounds)  # noqa: S608
        return tuple(_event_from_row(row) for row in rows)

    def last_event(self, campaign: str, *, before: int | None = None) -> Event | None:
        """Return the last event that a campaign's driver wrote, or the last one with an id below ``before``."""
        row = self._one(
            "SELECT * FROM events WHERE campaign = ? AND id < ? AND kind NOT LIKE 'control.%' ORDER BY id DESC LIMIT 1",
            campaign,
            2**63 - 1 if before is None else before,
        )
        return None if row is None else _event_from_row(row)

    # Inside

    @property
    def _named(self) -> str:
        return str(self.path or "this archive")

    def _all(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        with sqlite_errors(self.path):
            return self._db.execute(sql, values).fetchall()

    def _one(self, sql: str, *values: Any) -> sqlite3.Row | None:
        return next(iter(self._all(sql, *values)), None)

    def _candidates(self, where: str, *values: Any) -> tuple[StoredCandidate, ...]:
        # Rows of all candidates at once, not of one after the other: three queries however many there are.
        experts = self._grouped("candidate_experts", "candidates", "candidate_id", "place", where, values)
        verdicts = self._grouped("verdicts", "candidates", "candidate_id", "verdicts.id", where, values)
        rows = self._all(f"{_CANDIDATES} WHERE {where} ORDER BY candidates.rowid", *values)
        return tuple(candidate_from_row(row, experts[row["id"]], verdicts[row["id"]]) for row in rows)

    def _trials(self, where: str, *values: Any) -> tuple[StoredTrial, ...]:
        points = self._grouped("curves", "trials", "trial_id", "epoch", where, values)
        rows = self._all(f"{_TRIALS} WHERE {where} ORDER BY trials.id", *values)
        return tuple(trial_from_row(row, points[row["id"]]) for row in rows)

    def _grouped(
        self, parts: str, whole: str, key: str, order: str, where: str, values: Sequence[Any]
    ) -> Mapping[Any, list[sqlite3.Row]]:
        """Return the rows of the table ``parts`` by the row of ``whole`` that they belong to."""
        sql = f"SELECT {parts}.* FROM {parts} JOIN {whole} ON {whole}.id = {key} WHERE {where} ORDER BY {order}"  # noqa: S608
        groups: defaultdict[Any, list[sqlite3.Row]] = defaultdict(list)
        for row in self._all(sql, *values):
            groups[row[key]].append(row)
        return groups

    def _unknown(self, what: str, name: str, names: str) -> UsageError:
        """Make the error for a name that is not there, with the nearest of the names that a query returns."""
        known = [row[0] for row in self._all(names)]
        some = f"it holds {', '.join(known[:5])}{', ...' if len(known) > 5 else ''}"
        hint = did_you_mean(name, known, otherwise=some if known else f"it holds no {what}s yet")
        return UsageError(f"no {what} {name!r} in {self._named}: {hint}")


def _event_from_row(row: sqlite3.Row) -> Event:
    return Event(**dict(row) | {"detail": json.loads(row["detail"])})
