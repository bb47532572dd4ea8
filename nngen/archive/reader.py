"""Queries of an archive: campaigns, candidates, trials, verdicts and events as typed values."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nngen.archive.connection import sqlite_errors
from nngen.archive.records import (
    CampaignRecord,
    Event,
    StoredCandidate,
    StoredTrial,
    TrialState,
    campaign_from_row,
    candidate_from_row,
    spec_to_text,
    trial_from_row,
    verdict_from_row,
)
from nngen.errors import ArchiveError, UsageError
from nngen.text import did_you_mean
from nngen.types import Shape, TrialSpec, Verdict

__all__ = ["ArchiveReader"]

_TRIALS = (
    "SELECT trials.*, plans.plan AS plan, reveals.test_accuracy AS test_accuracy FROM trials "
    "JOIN plans ON plans.id = trials.plan_id LEFT JOIN reveals ON reveals.trial_id = trials.id"
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
            names = [row["name"] for row in self._all("SELECT name FROM campaigns ORDER BY rowid")]
            hint = _nearest(name, names, "campaigns")
            raise UsageError(f"no campaign {name!r} in {self._named}: {hint}")
        return campaign_from_row(row)

    def candidates(self) -> tuple[StoredCandidate, ...]:
        experts = _grouped(self._all("SELECT * FROM candidate_experts ORDER BY place"), "candidate_id")
        verdicts = _grouped(self._all("SELECT * FROM verdicts ORDER BY id"), "candidate_id")
        rows = self._all(f"{_CANDIDATES} ORDER BY candidates.rowid")
        return tuple(candidate_from_row(row, experts.get(row["id"], []), verdicts.get(row["id"], [])) for row in rows)

    def candidate(self, prefix: str) -> StoredCandidate:
        ids = [row["id"] for row in self._all("SELECT id FROM candidates ORDER BY rowid")]
        # Either the whole id, or its beginning with or without ``MoE4-``.
        found = [name for name in ids if name == prefix] or [
            name for name in ids if prefix and (name.startswith(prefix) or name.partition("-")[2].startswith(prefix))
        ]
        if len(found) > 1:
            shown = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
            raise UsageError(f"{prefix!r} fits {len(found)} candidates ({shown}): type more of it")
        if not found:
            hint = _nearest(prefix, ids, "candidates")
            raise UsageError(f"no candidate {prefix!r} in {self._named}: {hint}")
        experts = self._all("SELECT * FROM candidate_experts WHERE candidate_id = ? ORDER BY place", found[0])
        verdicts = self._all("SELECT * FROM verdicts WHERE candidate_id = ? ORDER BY id", found[0])
        row = self._one(f"{_CANDIDATES} WHERE candidates.id = ?", found[0])
        assert row is not None
        return candidate_from_row(row, experts, verdicts)

    def canonicals(self) -> frozenset[str]:
        """Return the canonical hashes of all candidates, without reading their sources."""
        return frozenset(row["canonical"] for row in self._all("SELECT canonical FROM candidates"))

    def trial(self, trial_id: int) -> StoredTrial:
        row = self._one(f"{_TRIALS} WHERE trials.id = ?", trial_id)
        curve = self._all("SELECT * FROM curves WHERE trial_id = ? ORDER BY epoch", trial_id)
        if row is None:
            raise ArchiveError(f"no trial {trial_id} in {self._named}")
        return trial_from_row(row, curve)

    def trials(
        self,
        campaign: str | None = None,
        *,
        candidate_id: str | None = None,
        state: TrialState | None = None,
    ) -> tuple[StoredTrial, ...]:
        filters = {"campaign": campaign, "candidate_id": candidate_id, "state": state and state.value}
        given = {name: value for name, value in filters.items() if value is not None}
        where = " AND ".join(["1", *(f"trials.{name} = ?" for name in given)])
        points = _grouped(
            self._all(
                f"SELECT curves.* FROM curves JOIN trials ON trials.id = trial_id WHERE {where} ORDER BY epoch",  # noqa: S608
                *given.values(),
            ),
            "trial_id",
        )
        rows = self._all(f"{_TRIALS} WHERE {where} ORDER BY trials.id", *given.values())
        return tuple(trial_from_row(row, points.get(row["id"], [])) for row in rows)

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
        done = self.trials(campaign, state=TrialState.DONE)
        return {tuple(sorted(trial.experts)): trial.verdict.outcome.value for trial in done if trial.verdict}

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

    def events(self, campaign: str | None = None, *, after: int = 0) -> tuple[Event, ...]:
        """Return the events, of one campaign or of all, whose ids are above ``after``."""
        query = "SELECT * FROM events WHERE (?1 IS NULL OR campaign = ?1) AND id > ?2 ORDER BY id"
        rows = self._all(query, campaign, after)
        return tuple(Event(**dict(row) | {"detail": json.loads(row["detail"])}) for row in rows)

    @property
    def _named(self) -> str:
        return str(self.path or "this archive")

    def _all(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        with sqlite_errors(self.path):
            return self._db.execute(sql, values).fetchall()

    def _one(self, sql: str, *values: Any) -> sqlite3.Row | None:
        return next(iter(self._all(sql, *values)), None)


def _grouped(rows: list[sqlite3.Row], key: str) -> dict[Any, list[sqlite3.Row]]:
    groups: dict[Any, list[sqlite3.Row]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups


def _nearest(name: str, names: Sequence[str], what: str) -> str:
    some = f"it holds {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
    return did_you_mean(name, names, otherwise=some if names else f"it holds no {what} yet")
