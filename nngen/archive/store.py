"""The archive: one SQLite file in WAL mode. The contract is the text of ``protocol``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlite_utils import Database

from nngen.archive.connection import open_database, speaking
from nngen.archive.external import ExternalResults
from nngen.archive.lock import driver_lock, driver_of
from nngen.archive.records import (
    Event,
    Promotion,
    StoredCampaign,
    StoredCandidate,
    StoredTrial,
    candidate_from_row,
    dump,
    environment_to_text,
    plan_id,
    spec_to_text,
    trial_from_row,
    verdict_from_row,
)
from nngen.archive.schema import migrations
from nngen.archive.states import TrialState, allowed
from nngen.errors import ArchiveError, UsageError
from nngen.plan import Plan
from nngen.text import did_you_mean
from nngen.types import Candidate, Family, Shape, Trial, TrialSpec, Verdict

__all__ = ["Archive"]

_TRIALS = (
    "SELECT trials.*, plans.plan AS plan, reveals.test_accuracy AS test_accuracy FROM trials "
    "JOIN plans ON plans.id = trials.plan_id LEFT JOIN reveals ON reveals.trial_id = trials.id"
)
_CANDIDATES = "SELECT candidates.*, plans.plan AS plan FROM candidates LEFT JOIN plans ON plans.id = candidates.plan_id"


class Archive:
    """Everything that was found. Open with ``open``, or ``in_memory`` for tests; close after use."""

    def __init__(self, db: Database, path: Path | None) -> None:
        self._db, self.path = db, path
        self.foreign = ExternalResults(db)

    @classmethod
    def open(cls, path: Path, *, create: bool = True, readonly: bool = False) -> Self:
        """Open the archive at ``path``, creating it if there is none.

        Raises:
            ArchiveError: See ``opening.open_database``.
        """
        return cls(open_database(path, create=create, readonly=readonly), path)

    @classmethod
    def in_memory(cls) -> Self:
        """Make an archive that vanishes when it is closed."""
        db = Database(memory=True, execute_plugins=False)
        db.conn.execute("PRAGMA foreign_keys = ON")
        migrations.apply(db)
        return cls(db, None)

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Facts

    def add_family(self, family: Family) -> None:
        best = dump(asdict(family.best)) if family.best else None
        with self._transaction():
            self._insert("families", fingerprint=family.fingerprint, name=family.name, source=family.source, best=best)

    def add_candidate(self, candidate: Candidate, fingerprints: Mapping[str, str] | None = None) -> bool:
        with self._transaction():
            known = self._one("SELECT canonical FROM candidates WHERE id = ?", candidate.id)
            if known and known["canonical"] != candidate.canonical:
                raise ArchiveError(
                    f"{candidate.id} is taken by a program that differs in white space only: change a name in it"
                )
            if known:
                return False
            plan = self._add_plan(candidate.plan) if candidate.plan else None
            self._insert(
                "candidates",
                id=candidate.id,
                canonical=candidate.canonical,
                source=candidate.source,
                plan_id=plan,
                created_at=_now(),
            )
            for place, family in enumerate(candidate.plan.experts if candidate.plan else ()):
                self._insert(
                    "candidate_experts",
                    candidate_id=candidate.id,
                    place=place,
                    family=family,
                    fingerprint=(fingerprints or {}).get(family),
                )
            return True

    def add_verdict(self, candidate_id: str, verdict: Verdict, *, shape: Shape, classes: int) -> None:
        with self._transaction():
            self._insert(
                "verdicts",
                candidate_id=candidate_id,
                shape=str(shape),
                classes=classes,
                outcome=verdict.outcome.value,
                rule=verdict.rule,
                message=verdict.message,
                line=verdict.line,
                created_at=_now(),
            )

    def add_campaign(self, name: str, spec: Mapping[str, Any], plans: Sequence[Plan], **detail: Any) -> None:
        with self._transaction():
            if self._one("SELECT 1 FROM campaigns WHERE name = ?", name):
                raise UsageError(f"there is a campaign {name} already: choose another name")
            self._insert("campaigns", name=name, spec=dump(spec), created_at=_now())
            self._add_ready(name, plans, 0)
            self._event("campaign.created", name, None, {"trials": len(plans), **detail})

    def add_trials(self, campaign: str, plans: Sequence[Plan], **detail: Any) -> None:
        with self._transaction():
            last = self._one("SELECT max(position) AS position FROM trials WHERE campaign = ?", campaign)
            first = 0 if last is None or last["position"] is None else last["position"] + 1
            self._add_ready(campaign, plans, first)
            self._event("campaign.extended", campaign, None, {"trials": len(plans), **detail})

    def promote(self, campaign: str, promotions: Sequence[Promotion]) -> None:
        with self._transaction():
            for promotion in promotions:
                row = self._one("SELECT * FROM trials WHERE id = ?", promotion.trial_id)
                if row is None or row["campaign"] != campaign or row["state"] != TrialState.DONE:
                    raise ArchiveError(f"trial {promotion.trial_id} is no finished trial of campaign {campaign}")
                self._insert(
                    "trials",
                    campaign=campaign,
                    position=row["position"],
                    rung=promotion.rung,
                    replicate=promotion.replicate,
                    plan_id=row["plan_id"],
                    state=TrialState.READY.value,
                )
                detail = {"rung": promotion.rung, "replicate": promotion.replicate, **promotion.reason}
                self._event("trial.promoted", campaign, promotion.trial_id, detail)

    def reveal_test(self, trial_id: int, accuracy: float) -> float:
        with self._transaction():
            trial = self._trial_row(trial_id)
            if trial["state"] != TrialState.DONE:
                raise ArchiveError(f"trial {trial_id} is {trial['state']}: a test accuracy belongs to a finished trial")
            first = self._one("SELECT test_accuracy FROM reveals WHERE trial_id = ?", trial_id)
            if first:
                return float(first["test_accuracy"])
            self._insert("reveals", trial_id=trial_id, test_accuracy=accuracy, revealed_at=_now())
            self._event("test.revealed", trial["campaign"], trial_id, {"test_accuracy": accuracy})
            return accuracy

    def log(self, kind: str, *, campaign: str | None = None, trial_id: int | None = None, **detail: Any) -> None:
        with self._transaction():
            self._event(kind, campaign, trial_id, detail)

    # Trials

    def start_trial(self, trial_id: int) -> None:
        with self._transaction():
            row = self._move(trial_id, TrialState.RUNNING)
            self._db.execute("UPDATE trials SET state = 'running', started_at = ? WHERE id = ?", [_now(), trial_id])
            self._event("trial.started", row["campaign"], trial_id, {})

    def finish_trial(self, trial_id: int, result: Trial | Verdict, *, copied_from: int | None = None) -> None:
        verdict = result if isinstance(result, Verdict) else result.verdict
        values: dict[str, Any] = {
            "state": TrialState.DONE.value,
            "outcome": verdict.outcome.value,
            "rule": verdict.rule,
            "message": verdict.message,
            "line": verdict.line,
            "copied_from": copied_from,
            "finished_at": _now(),
        }
        if isinstance(result, Trial):
            values |= _columns(result)
        with self._transaction():
            row = self._move(trial_id, TrialState.DONE)
            sets = ", ".join(f"{name} = ?" for name in values)
            self._db.execute(f"UPDATE trials SET {sets} WHERE id = ?", [*values.values(), trial_id])  # noqa: S608
            if isinstance(result, Trial):
                self._add_results(trial_id, result)
            detail = {"outcome": verdict.outcome.value, "validation_accuracy": values.get("validation_accuracy")}
            self._event("trial.finished", row["campaign"], trial_id, detail)

    def requeue(self, campaign: str) -> int:
        with self._transaction():
            rows = self._all("SELECT id FROM trials WHERE campaign = ? AND state = 'running' ORDER BY id", campaign)
            for row in rows:
                self._db.execute("UPDATE trials SET state = 'ready', started_at = NULL WHERE id = ?", [row["id"]])
                self._event("trial.requeued", campaign, row["id"], {})
            return len(rows)

    def requeue_trial(self, trial_id: int, *, reason: str) -> None:
        with self._transaction():
            row = self._move(trial_id, TrialState.READY)
            self._db.execute("UPDATE trials SET state = 'ready', started_at = NULL WHERE id = ?", [trial_id])
            self._event("trial.requeued", row["campaign"], trial_id, {"reason": reason})

    def lock(self, campaign: str) -> AbstractContextManager[None]:
        return driver_lock(self.path, campaign) if self.path else nullcontext()

    def driver(self, campaign: str) -> int | None:
        return driver_of(self.path, campaign) if self.path else None

    # Reading

    def campaigns(self) -> tuple[StoredCampaign, ...]:
        with speaking(self.path):
            rows = self._all("SELECT * FROM campaigns ORDER BY rowid")
        return tuple(StoredCampaign(**dict(row) | {"spec": json.loads(row["spec"])}) for row in rows)

    def campaign(self, name: str) -> StoredCampaign:
        found = {campaign.name: campaign for campaign in self.campaigns()}
        if name not in found:
            raise UsageError(
                f"there is no campaign {name!r} in {self._named}: {_nearest(name, list(found), 'campaigns')}"
            )
        return found[name]

    def candidates(self) -> tuple[StoredCandidate, ...]:
        with speaking(self.path):
            experts = _grouped(self._all("SELECT * FROM candidate_experts ORDER BY place"), "candidate_id")
            verdicts = _grouped(self._all("SELECT * FROM verdicts ORDER BY id"), "candidate_id")
            rows = self._all(f"{_CANDIDATES} ORDER BY candidates.rowid")
        return tuple(candidate_from_row(row, experts.get(row["id"], []), verdicts.get(row["id"], [])) for row in rows)

    def candidate(self, prefix: str) -> StoredCandidate:
        with speaking(self.path):
            ids = [row["id"] for row in self._all("SELECT id FROM candidates ORDER BY rowid")]
            found = [name for name in ids if name == prefix] or [
                name
                for name in ids
                if prefix and (name.startswith(prefix) or name.partition("-")[2].startswith(prefix))
            ]
            if len(found) > 1:
                shown = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
                raise UsageError(f"{prefix!r} fits {len(found)} candidates ({shown}): type more of it")
            if not found:
                raise UsageError(
                    f"there is no candidate {prefix!r} in {self._named}: {_nearest(prefix, ids, 'candidates')}"
                )
            experts = self._all("SELECT * FROM candidate_experts WHERE candidate_id = ? ORDER BY place", found[0])
            verdicts = self._all("SELECT * FROM verdicts WHERE candidate_id = ? ORDER BY id", found[0])
            row = self._one(f"{_CANDIDATES} WHERE candidates.id = ?", found[0])
        assert row is not None
        return candidate_from_row(row, experts, verdicts)

    def canonicals(self) -> frozenset[str]:
        with speaking(self.path):
            return frozenset(row["canonical"] for row in self._all("SELECT canonical FROM candidates"))

    def trial(self, trial_id: int) -> StoredTrial:
        with speaking(self.path):
            row = self._one(f"{_TRIALS} WHERE trials.id = ?", trial_id)
            curve = self._all("SELECT * FROM curves WHERE trial_id = ? ORDER BY epoch", trial_id)
        if row is None:
            raise ArchiveError(f"there is no trial {trial_id} in {self._named}")
        return trial_from_row(row, curve)

    def trials(
        self,
        campaign: str | None = None,
        *,
        candidate_id: str | None = None,
        state: TrialState | None = None,
    ) -> tuple[StoredTrial, ...]:
        asked = {"campaign": campaign, "candidate_id": candidate_id, "state": state and state.value}
        given = {name: value for name, value in asked.items() if value is not None}
        where = " AND ".join(["1", *(f"trials.{name} = ?" for name in given)])
        with speaking(self.path):
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
        with speaking(self.path):
            row = self._one(
                "SELECT id FROM trials WHERE candidate_id = ? AND spec = ? AND data_fingerprint = ? "
                "AND state = 'done' AND copied_from IS NULL ORDER BY id LIMIT 1",
                candidate_id,
                spec_to_text(spec),
                data_fingerprint,
            )
        return self.trial(row["id"]) if row else None

    def checked(self, candidate_id: str, shape: Shape, classes: int) -> Verdict | None:
        with speaking(self.path):
            row = self._one(
                "SELECT * FROM verdicts WHERE candidate_id = ? AND shape = ? AND classes = ? ORDER BY id DESC LIMIT 1",
                candidate_id,
                str(shape),
                classes,
            )
        return verdict_from_row(row) if row else None

    def predictions(self, trial_id: int, split: str) -> bytes:
        with speaking(self.path):
            row = self._one("SELECT classes FROM predictions WHERE trial_id = ? AND split = ?", trial_id, split)
        return bytes(row["classes"]) if row else b""

    def quartets(self, campaign: str | None = None) -> Mapping[tuple[str, ...], str]:
        done = self.trials(campaign, state=TrialState.DONE)
        return {tuple(sorted(trial.experts)): trial.verdict.outcome.value for trial in done if trial.verdict}

    def counts(self, campaign: str) -> Mapping[TrialState, int]:
        with speaking(self.path):
            rows = self._all("SELECT state, count(*) AS n FROM trials WHERE campaign = ? GROUP BY state", campaign)
        found = {row["state"]: int(row["n"]) for row in rows}
        return {state: found.get(state.value, 0) for state in TrialState}

    def events(self, campaign: str | None = None, *, after: int = 0) -> tuple[Event, ...]:
        asked = "SELECT * FROM events WHERE (?1 IS NULL OR campaign = ?1) AND id > ?2 ORDER BY id"
        with speaking(self.path):
            rows = self._all(asked, campaign, after)
        return tuple(Event(**dict(row) | {"detail": json.loads(row["detail"])}) for row in rows)

    # Inside

    @property
    def _named(self) -> str:
        return str(self.path or "this archive")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with speaking(self.path):
            # IMMEDIATE: a transaction that reads first and writes then would not wait for its turn.
            self._db.conn.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.rollback()
                raise
            self._db.commit()

    def _all(self, sql: str, *values: Any) -> list[Mapping[str, Any]]:
        return list(self._db.query(sql, values))

    def _one(self, sql: str, *values: Any) -> Mapping[str, Any] | None:
        return next(iter(self._all(sql, *values)), None)

    def _insert(self, table: str, **values: Any) -> None:
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        verb = "INSERT OR IGNORE" if table in ("families", "plans") else "INSERT"
        self._db.execute(f"{verb} INTO {table} ({names}) VALUES ({marks})", list(values.values()))

    def _add_ready(self, campaign: str, plans: Sequence[Plan], first: int) -> None:
        for position, plan in enumerate(plans, start=first):
            self._insert(
                "trials",
                campaign=campaign,
                position=position,
                rung=0,
                replicate=0,
                plan_id=self._add_plan(plan),
                state=TrialState.READY.value,
            )

    def _add_plan(self, plan: Plan) -> str:
        key = plan_id(plan)
        self._insert("plans", id=key, plan=dump(plan.to_dict()))
        return key

    def _event(self, kind: str, campaign: str | None, trial_id: int | None, detail: Mapping[str, Any]) -> None:
        self._insert("events", at=_now(), campaign=campaign, trial_id=trial_id, kind=kind, detail=dump(detail))

    def _trial_row(self, trial_id: int) -> Mapping[str, Any]:
        row = self._one("SELECT campaign, state FROM trials WHERE id = ?", trial_id)
        if row is None:
            raise ArchiveError(f"there is no trial {trial_id} in {self._named}")
        return row

    def _move(self, trial_id: int, new: TrialState) -> Mapping[str, Any]:
        row = self._trial_row(trial_id)
        if not allowed(TrialState(row["state"]), new):
            raise ArchiveError(f"trial {trial_id} is {row['state']} and cannot become {new}")
        return row

    def _add_results(self, trial_id: int, trial: Trial) -> None:
        for point in trial.curve:
            self._insert("curves", **asdict(point) | {"trial_id": trial_id, "usage": dump(list(point.usage))})
        for split, classes in (("validation", trial.validation_predictions), ("test", trial.test_predictions)):
            if classes:
                self._insert("predictions", trial_id=trial_id, split=split, classes=classes)


def _columns(trial: Trial) -> dict[str, Any]:
    return {
        "candidate_id": trial.candidate_id,
        "spec": spec_to_text(trial.spec),
        "validation_accuracy": trial.validation_accuracy,
        "parameters": trial.parameters,
        "seconds": trial.seconds,
        "peak_mib": trial.peak_mib,
        "environment": environment_to_text(trial),
        "data_fingerprint": trial.data_fingerprint or None,
    }


def _grouped(rows: list[Mapping[str, Any]], key: str) -> dict[Any, list[Mapping[str, Any]]]:
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups


def _nearest(asked: str, names: Sequence[str], what: str) -> str:
    some = f"it holds {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
    return did_you_mean(asked, names, otherwise=some if names else f"it holds no {what} yet")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
