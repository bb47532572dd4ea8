"""Campaigns, candidates, events and other records built from their rows, and the JSON column of a campaign."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from nngen.archive.records import CampaignRecord, Event, LoopRole, StoredCandidate, Tally
from nngen.archive.rows.columns import Row, checked, read, share
from nngen.archive.rows.values import dump, plan_from_text, verdict_from_row
from nngen.campaign_spec import CampaignSpec
from nngen.types import Record

TALLIES = """
    SELECT campaign, rung, replicate > 0 AS again, count(*) AS trials, sum(state = 'done') AS done,
        sum(state = 'running') AS running, count(validation_accuracy) AS trained,
        sum(coalesce(outcome, 'valid') != 'valid') AS failed, max(validation_accuracy) AS best
    FROM trials WHERE {} GROUP BY campaign, rung, again ORDER BY campaign, rung, again
"""

_INPUTS = ("pool", "left_out", "data_fingerprint", "classes", "known", "nngen")
"""Fields of ``CampaignRecord`` that stand beside the specification in its column."""


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


def candidate_from_row(row: Row, experts: Sequence[Row], verdicts: Sequence[Row]) -> StoredCandidate:
    """Build a candidate from its row, its experts' rows and its verdicts' rows."""
    return StoredCandidate(
        **{name: row[name] for name in ("id", "canonical", "source", "created_at", "template_version")},
        plan=read(row, "plan", plan_from_text) if row["plan"] else None,
        experts=tuple(expert["family"] for expert in experts),
        fingerprints=tuple(expert["fingerprint"] or "" for expert in experts),
        verdicts=tuple(verdict_from_row(verdict) for verdict in verdicts),
    )


def tally_from_row(row: Row) -> Tally:
    """Build a tally from a row of ``TALLIES``."""
    return Tally(**dict(row) | {"again": bool(row["again"]), "best": read(row, "best", share)})


def names_from_row(row: Row) -> tuple[str, ...]:
    """Build the names of a data set's classes from their row."""
    return read(row, "names", _names)


def record_from_row(row: Row) -> Record:
    """Build LEMUR's best record with a family from the family's row."""
    return read(row, "best", lambda text: checked(Record(**json.loads(text))))


def event_from_row(row: Row) -> Event:
    """Build an event from its row."""
    read(row, "at", datetime.fromisoformat)
    return Event(**dict(row) | {"detail": read(row, "detail", _json_object)})


def _names(text: str) -> tuple[str, ...]:
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError("it is not a list of names")
    return tuple(names)


def _json_object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise TypeError("it is not an object")
    return value
