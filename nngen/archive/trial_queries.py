"""Queries of the trials of an archive: whole, as lines, and with what they are ranked by."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from nngen.archive.queries import Queries
from nngen.archive.records import BriefScore, StoredTrial, Tally, TrialLine, TrialScore, TrialState
from nngen.archive.rows.builders import TALLIES, tally_from_row
from nngen.archive.rows.trials import BRIEF_LINES, BRIEF_SCORES, FIRST_PLANS, LINES, SCORES, TrialRows
from nngen.archive.rows.values import spec_to_text
from nngen.archive.trials import Trials
from nngen.errors import ArchiveError
from nngen.types import TrialSpec

_TRIALS = (
    "SELECT trials.*, plans.plan AS plan, reveals.test_accuracy AS test_accuracy FROM trials "
    "JOIN plans ON plans.id = trials.plan_id LEFT JOIN reveals ON reveals.trial_id = trials.id"
)

_SAME_TRIAL = """
    SELECT id FROM trials
    WHERE candidate_id = ? AND data_fingerprint = ? AND state = 'done' AND copied_from IS NULL AND (
        spec = ? OR outcome = 'valid' AND seconds <= ?
        AND CASE WHEN json_valid(spec) THEN json_remove(spec, '$.wall_s') = json_remove(?, '$.wall_s') END)
    ORDER BY id LIMIT 1
"""


class TrialQueries(Queries):
    """Trials of an archive, with their results."""

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

    def same_trial(self, candidate_id: str, spec: TrialSpec, data_fingerprint: str) -> StoredTrial | None:
        """Find a finished trial of the same candidate, specification and data (``data_fingerprint``).

        A trial that was trained within the time limit of ``spec`` is the same whatever its own limit was.
        """
        text = spec_to_text(spec)
        row = self._one(_SAME_TRIAL, candidate_id, data_fingerprint, text, spec.time_limit_s, text)
        return self.trial(row["id"]) if row else None

    def predictions(self, trial_id: int, split: str) -> bytes:
        row = self._one("SELECT classes FROM predictions WHERE trial_id = ? AND split = ?", trial_id, split)
        return bytes(row["classes"]) if row else b""

    def logits(self, trial_id: int) -> bytes:
        """Return the logits of the validation images, as ``Trial`` keeps them; empty where they were not kept."""
        row = self._one("SELECT logits FROM logits WHERE trial_id = ?", trial_id)
        return bytes(row["logits"]) if row else b""

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

    def tallies(self, campaign: str | None = None) -> tuple[Tally, ...]:
        """Count the trials of each rung, of one campaign or of all, further seeds apart."""
        return tuple(self._built("trials", *_of_campaign(TALLIES, campaign), tally_from_row))

    def _trials(
        self, where: str, values: Sequence[Any], *, curves: bool = True, strict: bool = False
    ) -> tuple[StoredTrial, ...]:
        points: Mapping[Any, Sequence[sqlite3.Row]] = defaultdict(list)
        if curves:
            points = self._grouped("curves", "trials", "trial_id", "epoch", where, values)
        rows, sql = TrialRows(), f"{_TRIALS} WHERE {where} ORDER BY trials.id"
        build = lambda row: rows.trial(row, points[row["id"]])  # noqa: E731
        return tuple(self._built("trials", sql, values, build, strict=strict))


def _of_campaign(sql: str, campaign: str | None) -> tuple[str, tuple[str, ...]]:
    """Restrict a query to one campaign, so that its index is used; None for all."""
    return sql.format("1" if campaign is None else "campaign = ?"), () if campaign is None else (campaign,)
