"""Queries of an archive beside its trials: campaigns, candidates, verdicts, events, families and data sets."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from nngen.archive.queries import Queries
from nngen.archive.records import CampaignRecord, Event, StoredCandidate
from nngen.archive.rows.builders import (
    campaign_from_row,
    candidate_from_row,
    event_from_row,
    names_from_row,
    record_from_row,
)
from nngen.archive.rows.trials import TrialRows
from nngen.archive.rows.values import dump, plan_id, verdict_from_row
from nngen.errors import UsageError
from nngen.plan import Plan
from nngen.types import Outcome, Record, Shape, Verdict

# Tens of thousands of ids are as many near misses: those that begin alike come first, then any others.
_SIMILAR_IDS = """
    SELECT id FROM candidates ORDER BY substr(?1, 1, 8) != substr(id, 1, 8)
        AND substr(?1, 1, 3) != substr(id, instr(id, '-') + 1, 3), rowid LIMIT 100
"""
_CANDIDATES = "SELECT candidates.*, plans.plan AS plan FROM candidates LEFT JOIN plans ON plans.id = candidates.plan_id"


class CampaignQueries(Queries):
    """Campaigns of an archive, with their candidates and events, and what it knows of families and data sets."""

    def campaigns(self) -> tuple[CampaignRecord, ...]:
        return tuple(self._built("campaigns", "SELECT * FROM campaigns ORDER BY rowid", (), campaign_from_row))

    def campaign(self, name: str) -> CampaignRecord:
        found = self._asked("campaigns", "SELECT * FROM campaigns WHERE name = ?", name, campaign_from_row)
        if found is None:
            raise self._unknown("campaign", name, "SELECT name FROM campaigns ORDER BY rowid LIMIT 1000")
        return found

    def candidates(self) -> tuple[StoredCandidate, ...]:
        return self._candidates("1", ())

    def candidate(self, prefix: str) -> StoredCandidate:
        """Return the candidate with this id, or the only one whose id begins so, with or without ``MoE4-``."""
        # The index of ids is searched, so that no source is read.
        rows = self._all("SELECT id FROM candidates WHERE id = ?", prefix) or self._all(
            "SELECT id FROM candidates WHERE ?1 != '' AND ?1 IN (substr(id, 1, length(?1)), "
            "substr(id, instr(id, '-') + 1, length(?1))) ORDER BY rowid",
            prefix,
        )
        if len(rows) > 1:
            shown = ", ".join(row["id"] for row in rows[:3]) + (", ..." if len(rows) > 3 else "")
            raise UsageError(f"{prefix!r} fits {len(rows)} candidates ({shown}): type more of it")
        if not rows:
            raise self._unknown("candidate", prefix, _SIMILAR_IDS, prefix)
        return self._candidates("candidates.id = ?", (rows[0]["id"],), strict=True)[0]

    def canonicals(self) -> dict[str, str]:
        """Map the id of each candidate to its canonical hash, without reading the sources."""
        return {row["id"]: row["canonical"] for row in self._all("SELECT id, canonical FROM candidates ORDER BY rowid")}

    def knows(self, plan: Plan) -> bool:
        """Whether a candidate or a trial, trained or not, has exactly this plan."""
        return self._one("SELECT 1 FROM plans WHERE id = ?", plan_id(plan)) is not None

    def passed(self, shape: Shape, classes: int) -> frozenset[str]:
        """Return the ids of the candidates whose last check at that shape with so many classes found them valid."""
        rows = self._all(
            # In SQLite, the other columns of a group are those of the row with the maximum.
            "SELECT candidate_id, outcome, max(id) FROM verdicts WHERE shape = ? AND classes = ? GROUP BY candidate_id",
            str(shape),
            classes,
        )
        return frozenset(row["candidate_id"] for row in rows if row["outcome"] == Outcome.VALID)

    def checked(self, candidate_id: str, shape: Shape, classes: int) -> Verdict | None:
        """Return the last verdict of a check at that shape with so many classes; a recorded table checks nothing."""
        row = self._one(
            "SELECT * FROM verdicts WHERE candidate_id = ? AND shape = ? AND classes = ? AND rule NOT LIKE 'table%' "
            "ORDER BY id DESC LIMIT 1",
            candidate_id,
            str(shape),
            classes,
        )
        return verdict_from_row(row) if row else None

    def validation_labels(self, data_fingerprint: str) -> bytes:
        """Return the class of each validation image as little-endian uint16; empty where they are not stored."""
        row = self._one("SELECT validation FROM labels WHERE data_fingerprint = ?", data_fingerprint)
        return bytes(row["validation"]) if row else b""

    def image_features(self, data_fingerprint: str) -> bytes:
        """Return pooled features of the validation images, ``(N, F)`` little-endian float16; empty without any."""
        row = self._one("SELECT validation FROM image_features WHERE data_fingerprint = ?", data_fingerprint)
        return bytes(row["validation"]) if row else b""

    def class_names(self, data_fingerprint: str) -> tuple[str, ...]:
        """Return the names of a data set's classes in the order of their numbers; none where they are not stored."""
        sql = "SELECT data_fingerprint, names FROM class_names WHERE data_fingerprint = ?"
        return self._asked("class_names", sql, data_fingerprint, names_from_row) or ()

    def recorded(self, fingerprints: Iterable[str]) -> tuple[Record, ...]:
        """Return LEMUR's best records with families, by the hashes of the families' sources."""
        sql = (
            "SELECT fingerprint, best FROM families WHERE best IS NOT NULL "
            "AND fingerprint IN (SELECT value FROM json_each(?)) ORDER BY fingerprint"
        )
        return tuple(self._built("families", sql, (dump(sorted(fingerprints)),), record_from_row))

    def template_versions(self, campaign: str) -> Mapping[int, int]:
        """Count a campaign's assembled candidates by the version of their templates; 0 where no version was stored."""
        # Only what was assembled has a plan of its own and a template; given files and edited sources have none.
        rows = self._all(
            "SELECT coalesce(template_version, 0) AS version, count(*) AS n FROM candidates WHERE plan_id IS NOT NULL "
            "AND id IN (SELECT candidate_id FROM trials WHERE campaign = ?) GROUP BY version ORDER BY version",
            campaign,
        )
        return {row["version"]: int(row["n"]) for row in rows}

    def events(self, campaign: str | None = None, *, after: int = 0, kinds: Sequence[str] = ("",)) -> tuple[Event, ...]:
        """Return the events, of one campaign or of all, with ids above ``after`` and kinds that begin with these."""
        # Few events are of one kind: the plus keeps SQLite from reading all of a campaign in the order of their ids.
        number = "id" if campaign is None or "" in kinds else "+id"
        where = f"{number} > ?" if campaign is None else f"{number} > ? AND campaign = ?"
        begins = " OR ".join(["kind BETWEEN ? AND ?"] * len(kinds)) or "0"
        given = [after] if campaign is None else [after, campaign]
        bounds = (bound for kind in kinds for bound in (kind, f"{kind}\U0010ffff"))
        sql = f"SELECT * FROM events WHERE {where} AND ({begins}) ORDER BY {number}"  # noqa: S608
        return tuple(self._built("events", sql, (*given, *bounds), event_from_row))

    def count_events(self, campaign: str, kind: str) -> int:
        """Count a campaign's events of a kind."""
        return int(self._all("SELECT count(*) FROM events WHERE campaign = ? AND kind = ?", campaign, kind)[0][0])

    def last_event(self, campaign: str, *, before: int | None = None) -> Event | None:
        """Return the last event that a campaign's driver wrote, or the last one with an id below ``before``."""
        where = "campaign = ? AND id < ? AND kind NOT LIKE 'control.%'"
        sql = f"SELECT * FROM events WHERE {where} ORDER BY id DESC LIMIT 1"  # noqa: S608
        below = 2**63 - 1 if before is None else before
        return next(self._built("events", sql, (campaign, below), event_from_row), None)

    def last_event_id(self, campaign: str | None = None) -> int:
        """Return the number of the last event, of one campaign or of all; each start and end of a trial raises it."""
        sql = "SELECT coalesce(max(id), 0) FROM events"
        rows = self._all(sql) if campaign is None else self._all(f"{sql} WHERE campaign = ?", campaign)
        return int(rows[0][0])

    def epochs(self, campaign: str) -> Iterator[Event]:
        """Iterate over the epochs that a campaign's driver stored while they were trained, the last one first."""
        sql = "SELECT * FROM events WHERE campaign = ? AND kind = 'trial.epoch' ORDER BY id DESC"
        return self._built("events", sql, (campaign,), event_from_row)

    def plans(self, candidate_ids: Iterable[str]) -> Mapping[str, Plan]:
        """Return the plans of candidates by id; those without a plan of their own are left out."""
        sql = (
            "SELECT candidates.id, plans.plan AS plan FROM candidates JOIN plans ON plans.id = plan_id "
            "WHERE candidates.id IN (SELECT value FROM json_each(?))"
        )
        rows = TrialRows()
        return dict(self._built("candidates", sql, (dump(sorted(candidate_ids)),), rows.named_plan))

    def parents(self) -> Mapping[str, str]:
        """Return the parent of each proposed candidate that has one, by id, in the order of the proposals."""
        # By campaign, so that the index of kinds is used.
        rows = self._all(
            "SELECT json_extract(detail, '$.candidate') AS child, json_extract(detail, '$.parent') AS parent "
            "FROM events WHERE campaign IN (SELECT name FROM campaigns) AND kind = 'proposal' AND json_valid(detail) "
            "ORDER BY id"
        )
        found: dict[str, str] = {}
        for child, parent in rows:
            if isinstance(child, str) and isinstance(parent, str) and child and parent and child != parent:
                found.setdefault(child, parent)
        return found

    def _candidates(self, where: str, values: Sequence[Any], *, strict: bool = False) -> tuple[StoredCandidate, ...]:
        # Rows of all candidates at once, not of one after the other: three queries however many there are.
        experts = self._grouped("candidate_experts", "candidates", "candidate_id", "place", where, values)
        verdicts = self._grouped("verdicts", "candidates", "candidate_id", "verdicts.id", where, values)
        sql = f"{_CANDIDATES} WHERE {where} ORDER BY candidates.rowid"

        def build(row: sqlite3.Row) -> StoredCandidate:
            return candidate_from_row(row, experts[row["id"]], verdicts[row["id"]])

        return tuple(self._built("candidates", sql, values, build, strict=strict))
