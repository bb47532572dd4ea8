"""Queries of an archive: campaigns, candidates, trials, verdicts and events as typed values."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from nngen.archive.columns import UNREADABLE, check_texts
from nngen.archive.connection import WAY_OUT, Connection, sqlite_errors
from nngen.archive.records import (
    BriefScore,
    CampaignRecord,
    Event,
    StoredCandidate,
    StoredTrial,
    Tally,
    TrialLine,
    TrialScore,
    TrialState,
)
from nngen.archive.rows import (
    BRIEF_LINES,
    BRIEF_SCORES,
    FIRST_PLANS,
    LINES,
    SCORES,
    TALLIES,
    TrialRows,
    campaign_from_row,
    candidate_from_row,
    dump,
    event_from_row,
    names_from_row,
    plan_id,
    record_from_row,
    spec_to_text,
    tally_from_row,
    verdict_from_row,
)
from nngen.archive.trials import Trials
from nngen.errors import ArchiveError, UsageError
from nngen.plan import Plan
from nngen.text import did_you_mean, one_line
from nngen.types import Outcome, Record, Shape, TrialSpec, Verdict

T = TypeVar("T")

_CHUNK = 1000  # rows that are fetched at a time


_TRIALS = (
    "SELECT trials.*, plans.plan AS plan, reveals.test_accuracy AS test_accuracy FROM trials "
    "JOIN plans ON plans.id = trials.plan_id LEFT JOIN reveals ON reveals.trial_id = trials.id"
)
# Tens of thousands of ids are as many near misses: those that begin alike come first, then any others.
_SIMILAR_IDS = """
    SELECT id FROM candidates ORDER BY substr(?1, 1, 8) != substr(id, 1, 8)
        AND substr(?1, 1, 3) != substr(id, instr(id, '-') + 1, 3), rowid LIMIT 100
"""
_CANDIDATES = "SELECT candidates.*, plans.plan AS plan FROM candidates LEFT JOIN plans ON plans.id = candidates.plan_id"


class ArchiveReader:
    """The reading half of ``Archive``; the contract is the text of the package.

    Attributes:
        damaged: Rows that could not be read so far, by table and key, with the reason.
    """

    def __init__(self, db: Connection, *, readonly: bool = False) -> None:
        self._db, self.path, self.readonly = db, db.path, readonly
        self.damaged: dict[str, str] = {}

    @property
    def weights(self) -> Path | None:
        """Folder of checkpoints and weights, beside the file; None for an archive in memory."""
        return self.path and self.path.with_name(f"{self.path.name}.weights")

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

    def trial(self, trial_id: int) -> StoredTrial:
        found = self._trials("trials.id = ?", (trial_id,), strict=True)
        if not found:
            raise ArchiveError(f"no trial {trial_id} in {self._named}")
        return found[0]

    def trials(
        self,
        campaign: str | None = None,
        *,
        candidate_id: str | None = None,
        state: TrialState | None = None,
        failed: bool = False,
        ids: Iterable[int] | None = None,
        last: int | None = None,
        curves: bool = True,
    ) -> Trials:
        """Return the trials that fit all filters; ``to_frame`` of the result makes a data frame of them.

        Args:
            campaign: Name of their campaign.
            candidate_id: Id of their candidate.
            state: Their state.
            failed: Whether only those with an outcome other than valid are wanted.
            ids: Their numbers; None for any.
            last: Number of the newest that are wanted; None for all.
            curves: Whether their learning curves are read.
        """
        filters = {"campaign": campaign, "candidate_id": candidate_id, "state": state and state.value}
        given = {name: value for name, value in filters.items() if value is not None}
        # A candidate has few trials and a campaign many: the plus keeps SQLite from the index of campaigns.
        columns = [f"{'+' if candidate_id and name == 'campaign' else ''}trials.{name} = ?" for name in given]
        where = " AND ".join(["outcome != 'valid'" if failed else "1", *columns])
        values: tuple[Any, ...] = tuple(given.values())
        if ids is not None:
            where += " AND trials.id IN (SELECT value FROM json_each(?))"
            values = (*values, json.dumps([*ids]))
        if last is not None:
            where = f"trials.id IN (SELECT id FROM trials WHERE {where} ORDER BY id DESC LIMIT ?)"  # noqa: S608
            values = (*values, last)
        return Trials(self._trials(where, values, curves=curves))

    def lines(self, campaign: str | None = None, *, brief: bool = False) -> tuple[TrialLine, ...]:
        """Return all trials, of one campaign or of all, without what only one of them is asked for.

        Brief ones have no experts, and the number among their candidate's seeds in place of the seed: a third of the
        time.
        """
        return tuple(self._built("trials", *_of_campaign(BRIEF_LINES if brief else LINES, campaign), TrialRows().line))

    def experts(self, campaign: str) -> Mapping[int, tuple[str, ...]]:
        """Return the experts of a campaign's candidates by the position of the candidate."""
        return dict(self._built("trials", FIRST_PLANS, (campaign,), TrialRows().positioned_experts))

    def score(self, trial_id: int) -> TrialScore:
        """Return one trained trial with what it is ranked by and shown with.

        Raises:
            ArchiveError: If no trained trial has this number.
        """
        found = self._asked("trials", SCORES.format("trials.id = ?"), trial_id, TrialRows().score)
        if found is None:
            raise ArchiveError(f"no trained trial {trial_id} in {self._named}")
        return found

    def brief_scores(self, campaign: str | None = None) -> Iterator[BriefScore]:
        """Iterate over the trained trials with what they are ranked by alone, in half the time."""
        return self._built("trials", *_of_campaign(BRIEF_SCORES, campaign), TrialRows().brief_score)

    def scores(self, campaign: str | None = None) -> Iterator[TrialScore]:
        """Iterate over the trained trials, of one campaign or of all, with what they are ranked by and shown with."""
        return self._built("trials", *_of_campaign(SCORES, campaign), TrialRows().score)

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
        """Return the last verdict of a check at that shape with so many classes; a recorded table checks nothing."""
        row = self._one(
            "SELECT * FROM verdicts WHERE candidate_id = ? AND shape = ? AND classes = ? AND rule NOT LIKE 'table%' "
            "ORDER BY id DESC LIMIT 1",
            candidate_id,
            str(shape),
            classes,
        )
        return verdict_from_row(row) if row else None

    def predictions(self, trial_id: int, split: str) -> bytes:
        row = self._one("SELECT classes FROM predictions WHERE trial_id = ? AND split = ?", trial_id, split)
        return bytes(row["classes"]) if row else b""

    def logits(self, trial_id: int) -> bytes:
        """Return the logits of the validation images, as ``Trial`` keeps them; empty where they were not kept."""
        row = self._one("SELECT logits FROM logits WHERE trial_id = ?", trial_id)
        return bytes(row["logits"]) if row else b""

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

    def quartets(self, campaign: str | None = None) -> Mapping[tuple[str, ...], str]:
        """Return the quartets (sorted) of finished trials with their last outcome, failures included."""
        return {tuple(sorted(line.experts)): line.outcome.value for line in self.lines(campaign) if line.outcome}

    def counts(self, campaign: str) -> Mapping[TrialState, int]:
        """Count a campaign's trials by state."""
        rows = self._all("SELECT state, count(*) AS n FROM trials WHERE campaign = ? GROUP BY state", campaign)
        found = {row["state"]: int(row["n"]) for row in rows}
        return {state: found.get(state.value, 0) for state in TrialState}

    def replayed(self, campaign: str) -> Mapping[str, int]:
        """Return the number of a campaign's trials that a recorded table answered, by the rule of their verdict."""
        rows = self._all(
            "SELECT rule, count(*) AS trials FROM trials WHERE campaign = ? AND rule LIKE 'table.%' GROUP BY rule",
            campaign,
        )
        return {row["rule"]: row["trials"] for row in rows}

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

    def tallies(self, campaign: str | None = None) -> tuple[Tally, ...]:
        """Count the trials of each rung, of one campaign or of all, further seeds apart."""
        return tuple(self._built("trials", *_of_campaign(TALLIES, campaign), tally_from_row))

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

    # Inside

    @property
    def _named(self) -> str:
        return str(self.path or "this archive")

    def _chunks(self, sql: str, values: Sequence[Any]) -> Iterator[list[sqlite3.Row]]:
        """Iterate over the rows of a query, many at a time; what is not UTF-8 in a text becomes lone surrogates."""
        count = 0
        with sqlite_errors(self.path):
            cursor = self._db.execute(sql, values)
            try:
                while rows := cursor.fetchmany(_CHUNK):
                    yield rows
                    count += len(rows)
                return
            except sqlite3.OperationalError as error:
                if "decode to UTF-8" not in str(error):
                    raise
            self._db.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
            cursor = self._db.execute(sql, values)
            if count:  # zero would stand for all
                cursor.fetchmany(count)
            while rows := cursor.fetchmany(_CHUNK):
                yield rows

    def _all(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        return list(chain.from_iterable(self._chunks(sql, values)))

    def _one(self, sql: str, *values: Any) -> sqlite3.Row | None:
        return next(iter(self._all(sql, *values)), None)

    def _built(
        self, table: str, sql: str, values: Sequence[Any], build: Callable[[sqlite3.Row], T], *, strict: bool = False
    ) -> Iterator[T]:
        """Build values from the rows of a query, whose first column names the row of ``table``.

        A row that cannot be read is left out and noted in ``damaged`` where the archive was opened for reading. A
        driver must not go on without a row, and whoever asks for one row alone gets the reason.

        Raises:
            ArchiveError: If a row cannot be read and the archive is written, or the row was asked for alone.
        """
        for rows in self._chunks(sql, values):
            yield from self._readable(table, rows, build, strict=strict)

    def _readable(
        self, table: str, rows: Sequence[sqlite3.Row], build: Callable[[sqlite3.Row], T], *, strict: bool
    ) -> list[T]:
        plain = self._db.text_factory is str
        with suppress(*UNREADABLE):
            if plain:  # nearly always no row is damaged; otherwise the same rows are built one by one
                return list(map(build, rows))
        found = []
        for row in rows:
            try:
                if not plain:
                    check_texts(row)
                found.append(build(row))
            except UNREADABLE as error:
                self.damaged[f"{table} {one_line(str(row[0]), 60)}"] = one_line(str(error))
                if strict or not self.readonly:
                    raise ArchiveError(self.damage) from error
        return found

    def _asked(self, table: str, sql: str, key: Any, build: Callable[[sqlite3.Row], T]) -> T | None:
        return next(self._built(table, sql, (key,), build, strict=True), None)

    @property
    def damage(self) -> str:
        """One line on the rows that could not be read so far; empty where all could."""
        if not self.damaged:
            return ""
        (row, reason), count = next(iter(self.damaged.items())), len(self.damaged)
        rest = f" (and {count - 1:,} more)" if count > 1 else ""
        return f"archive {self._named}: {row}: {reason}{rest}: {WAY_OUT}"

    def _candidates(self, where: str, values: Sequence[Any], *, strict: bool = False) -> tuple[StoredCandidate, ...]:
        # Rows of all candidates at once, not of one after the other: three queries however many there are.
        experts = self._grouped("candidate_experts", "candidates", "candidate_id", "place", where, values)
        verdicts = self._grouped("verdicts", "candidates", "candidate_id", "verdicts.id", where, values)
        sql = f"{_CANDIDATES} WHERE {where} ORDER BY candidates.rowid"

        def build(row: sqlite3.Row) -> StoredCandidate:
            return candidate_from_row(row, experts[row["id"]], verdicts[row["id"]])

        return tuple(self._built("candidates", sql, values, build, strict=strict))

    def _trials(
        self, where: str, values: Sequence[Any], *, curves: bool = True, strict: bool = False
    ) -> tuple[StoredTrial, ...]:
        points: Mapping[Any, Sequence[sqlite3.Row]] = defaultdict(list)
        if curves:
            points = self._grouped("curves", "trials", "trial_id", "epoch", where, values)
        rows, sql = TrialRows(), f"{_TRIALS} WHERE {where} ORDER BY trials.id"
        build = lambda row: rows.trial(row, points[row["id"]])  # noqa: E731
        return tuple(self._built("trials", sql, values, build, strict=strict))

    def _grouped(
        self, parts: str, whole: str, key: str, order: str, where: str, values: Sequence[Any]
    ) -> Mapping[Any, list[sqlite3.Row]]:
        """Return the rows of the table ``parts`` by the row of ``whole`` that they belong to."""
        sql = f"SELECT {parts}.* FROM {parts} JOIN {whole} ON {whole}.id = {key} WHERE {where} ORDER BY {order}"  # noqa: S608
        groups: defaultdict[Any, list[sqlite3.Row]] = defaultdict(list)
        for row in chain.from_iterable(self._chunks(sql, values)):
            groups[row[key]].append(row)
        return groups

    def _unknown(self, what: str, name: str, names: str, *values: str) -> UsageError:
        """Make the error for a name that is not there, with the nearest of the names that a query returns."""
        known = [row[0] for row in self._all(names, *values)]
        some = f"it holds {', '.join(known[:5])}{', ...' if len(known) > 5 else ''}"
        hint = did_you_mean(name, known, otherwise=some if known else f"it holds no {what}s yet")
        return UsageError(f"no {what} {name!r} in {self._named}: {hint}")


def _of_campaign(sql: str, campaign: str | None) -> tuple[str, tuple[str, ...]]:
    """Restrict a query to one campaign, so that its index is used; None for all."""
    return sql.format("1" if campaign is None else "campaign = ?"), () if campaign is None else (campaign,)
