"""The archive: one SQLite file in WAL mode, its writing half. The contract is the text of the package."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from nngen.archive.campaign_queries import CampaignQueries
from nngen.archive.connection import Connection, begin, check_place, connect, open_database, sqlite_errors, transaction
from nngen.archive.external import ExternalResults
from nngen.archive.lock import driver_lock, driver_of
from nngen.archive.records import CampaignRecord, NewTrial, Promotion, TrialState
from nngen.archive.rows.builders import campaign_to_text
from nngen.archive.rows.trials import SCORED
from nngen.archive.rows.values import dump, environment_to_text, plan_id, spec_to_text
from nngen.archive.schema import migrate
from nngen.archive.trial_queries import TrialQueries
from nngen.errors import ArchiveError, UsageError
from nngen.plan import Plan
from nngen.types import Candidate, Family, Shape, Trial, Verdict

_BEFORE = {
    TrialState.READY: TrialState.RUNNING,
    TrialState.RUNNING: TrialState.READY,
    TrialState.DONE: TrialState.RUNNING,
}
"""The one state that a trial may come from, by the state that it goes to."""

_ONCE = ("families", "plans", "labels", "class_names", "image_features")
"""Tables in which a row that is there already stays as it is."""

_GIVEN = "sandbox"  # mark of a ready-made candidate; the level it runs at is decided when it runs, from its source

# The candidate of an assembled plan is assembled again, because the templates may have changed since.
_PROMOTE = """
    INSERT INTO trials
        (campaign, position, rung, replicate, plan_id, state, candidate_id, given_isolation, given_seed)
    SELECT campaign, position, ?, ?, plan_id, 'ready', iif(given_isolation IS NULL, NULL, candidate_id),
        given_isolation, given_seed
    FROM trials WHERE id = ? AND campaign = ? AND state = 'done'
"""


class Archive(CampaignQueries, TrialQueries):
    """Campaigns, candidates, trials and imported results in one file.

    ``Archive(path)`` opens one that exists for reading, ``open`` for writing too, ``in_memory`` makes one for tests.
    Close it after use::

        with Archive.open("nngen.db") as archive:
            for trial in archive.trials("first"):
                ...

    Args:
        place: Path of the archive, or an open connection.
        readonly: Whether the connection is for reading only; a path is always opened so.

    Raises:
        ArchiveError: See ``connection.open_database``.
    """

    def __init__(self, place: str | os.PathLike[str] | Connection, *, readonly: bool = False) -> None:
        if not isinstance(place, Connection):
            place, readonly = open_database(Path(place), create=False, readonly=True), True
        super().__init__(place, readonly=readonly)
        self.external = ExternalResults(place)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, create: bool = True, readonly: bool = False) -> Self:
        """Open the archive at ``path``, creating it if there is none.

        Raises:
            ArchiveError: See ``connection.open_database``.
        """
        return cls(open_database(Path(path), create=create, readonly=readonly), readonly=readonly)

    @classmethod
    def in_memory(cls) -> Self:
        """Return an archive in memory, which is lost when it is closed."""
        db = connect(":memory:")
        migrate(db)
        return cls(db)

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make one transaction of the calls of a block, for speed; their work lasts when the block has ended.

        A call that raises is undone alone. Others may not write meanwhile, so nothing slow belongs into the block.
        """
        with sqlite_errors(self.path):
            begin(self._db)
            try:
                yield
            finally:
                if self._db.in_transaction:
                    self._db.commit()
            check_place(self._db)

    # Append-only facts

    def add_family(self, family: Family) -> None:
        best = dump(asdict(family.best)) if family.best else None
        with self._transaction():
            self._insert("families", fingerprint=family.fingerprint, name=family.name, source=family.source, best=best)

    def add_labels(self, data_fingerprint: str, validation: bytes, class_names: Sequence[str] = ()) -> None:
        """Store the classes of a data set's validation images, as little-endian uint16, and their names if any."""
        with self._transaction():
            self._insert("labels", data_fingerprint=data_fingerprint, validation=validation)
            if class_names:
                self._insert("class_names", data_fingerprint=data_fingerprint, names=dump(list(class_names)))

    def add_image_features(self, data_fingerprint: str, validation: bytes) -> None:
        """Store pooled features of a data set's validation images, ``(N, F)`` little-endian float16."""
        with self._transaction():
            self._insert("image_features", data_fingerprint=data_fingerprint, validation=validation)

    def add_candidate(self, candidate: Candidate, fingerprints: Mapping[str, str] | None = None) -> bool:
        """Store a candidate with the fingerprints of its families by name; False if it was stored already."""
        with self._transaction():
            known = self._one("SELECT canonical FROM candidates WHERE id = ?", candidate.id)
            if known and known["canonical"] != candidate.canonical:
                raise ArchiveError(
                    f"{candidate.id} is taken by a program that differs in white space only: change a name in it"
                )
            if known:
                return False
            plan = self._add_plan(candidate.plan) if candidate.plan else None
            same = {name: getattr(candidate, name) for name in ("id", "canonical", "source", "template_version")}
            self._insert("candidates", plan_id=plan, created_at=_now(), **same)
            for place, family in enumerate(candidate.plan.experts if candidate.plan else ()):
                expert = {"place": place, "family": family, "fingerprint": (fingerprints or {}).get(family)}
                self._insert("candidate_experts", candidate_id=candidate.id, **expert)
            return True

    def add_verdict(self, candidate_id: str, verdict: Verdict, *, shape: Shape, classes: int) -> None:
        """Store the verdict of a check at ``shape`` with so many classes."""
        with self._transaction():
            found = {"shape": str(shape), "classes": classes, **_verdict_columns(verdict)}
            self._insert("verdicts", candidate_id=candidate_id, created_at=_now(), **found)

    def add_campaign(self, record: CampaignRecord, trials: Sequence[NewTrial | Plan], **detail: Any) -> None:
        """Create a campaign with its first ready trials, in one transaction; ``detail`` goes to its event.

        A plan stands for a trial that assembles it.
        """
        with self._transaction():
            if self._one("SELECT 1 FROM campaigns WHERE name = ?", record.name):
                raise UsageError(f"there is a campaign {record.name} already: choose another name")
            place = {"loop": record.loop, "cycle": record.cycle, "role": record.role}
            self._insert("campaigns", name=record.name, spec=campaign_to_text(record), created_at=_now(), **place)
            self._add_ready(record.name, trials, 0)
            self._event("campaign.created", record.name, None, {"trials": len(trials), **detail})

    def change_campaign(self, record: CampaignRecord, **changes: Any) -> None:
        """Replace the specification of a campaign that grows; the changes go to its event."""
        with self._transaction():
            self._db.execute("UPDATE campaigns SET spec = ? WHERE name = ?", (campaign_to_text(record), record.name))
            self._event("campaign.changed", record.name, None, changes)

    def add_trials(self, campaign: str, trials: Sequence[NewTrial | Plan], **detail: Any) -> tuple[int, ...]:
        """Add further ready trials after the last position, with an event, in one transaction; returns their ids."""
        with self._transaction():
            first = self._all("SELECT coalesce(max(position) + 1, 0) FROM trials WHERE campaign = ?", campaign)[0][0]
            added = self._add_ready(campaign, trials, first)
            self._event("campaign.extended", campaign, None, {"trials": len(trials), **detail})
            return added

    def promote(self, campaign: str, promotions: Sequence[Promotion]) -> tuple[int, ...]:
        """Add a ready trial and an event per decision, in one transaction; returns the ids of the trials.

        Position, rung and seed are unique.
        """
        added = []
        with self._transaction():
            for promotion in promotions:
                numbers = (promotion.rung, promotion.replicate, promotion.trial_id, campaign)
                made = self._db.execute(_PROMOTE, numbers)
                if made.rowcount != 1:
                    raise ArchiveError(f"trial {promotion.trial_id} is not a finished trial of campaign {campaign}")
                detail = {"rung": promotion.rung, "replicate": promotion.replicate, **promotion.reason}
                self._event("trial.promoted", campaign, promotion.trial_id, detail)
                added.append(made.lastrowid or 0)
        return tuple(added)

    def reveal_test(self, trial_id: int, accuracy: float) -> float:
        """Store a test accuracy; returns the one that was revealed first."""
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
        """Append an event."""
        with self._transaction():
            self._event(kind, campaign, trial_id, detail)

    # Trials

    def start_trial(self, trial_id: int) -> None:
        """``ready -> running``."""
        with self._transaction():
            self._move(trial_id, TrialState.RUNNING, "trial.started", {}, started_at=_now())

    def finish_trial(self, trial_id: int, result: Trial | Verdict, *, copied_from: int | None = None) -> None:
        """``running -> done``; a bare verdict is for a plan that never became a candidate."""
        trial = result if isinstance(result, Trial) else None
        verdict = trial.verdict if trial else result
        assert isinstance(verdict, Verdict)
        values = _verdict_columns(verdict) | (_result_columns(trial) if trial else {})
        detail = {"outcome": verdict.outcome.value, "validation_accuracy": values.get("validation_accuracy")}
        with self._transaction():
            values |= {"copied_from": copied_from, "finished_at": _now()}
            self._move(trial_id, TrialState.DONE, "trial.finished", detail, **values)
            if trial:
                self._add_results(trial_id, trial)

    def requeue(self, campaign: str) -> int:
        """``running -> ready`` for all trials of a campaign; returns their number."""
        with self._transaction():
            rows = self._all("SELECT id FROM trials WHERE campaign = ? AND state = 'running' ORDER BY id", campaign)
            for row in rows:
                self._move(row["id"], TrialState.READY, "trial.requeued", {}, started_at=None)
            return len(rows)

    def requeue_trial(self, trial_id: int, *, reason: str) -> None:
        """``running -> ready`` for one trial that its engine lost."""
        with self._transaction():
            self._move(trial_id, TrialState.READY, "trial.requeued", {"reason": reason}, started_at=None)

    def lock(self, campaign: str) -> AbstractContextManager[None]:
        """Hold the lock of the campaign's only driver for the duration of a block."""
        return driver_lock(self.path, campaign) if self.path else nullcontext()

    def driver(self, campaign: str) -> int | None:
        """Return the process id of the campaign's driver; None without one."""
        return driver_of(self.path, campaign) if self.path else None

    # Inside

    def _transaction(self) -> AbstractContextManager[None]:
        return transaction(self._db)

    def _insert(self, table: str, **values: Any) -> int:
        """Add a row; returns its number."""
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        verb = "INSERT OR IGNORE" if table in _ONCE else "INSERT"
        return self._db.execute(f"{verb} INTO {table} ({names}) VALUES ({marks})", list(values.values())).lastrowid or 0

    def _add_ready(self, campaign: str, trials: Sequence[NewTrial | Plan], first: int) -> tuple[int, ...]:
        added = []
        for position, trial in enumerate(trials, start=first):
            new = NewTrial(plan=trial) if isinstance(trial, Plan) else trial
            row = self._insert(
                "trials",
                campaign=campaign,
                position=position,
                rung=0,
                replicate=0,
                plan_id=self._add_plan(new.plan),
                state=TrialState.READY.value,
                candidate_id=new.candidate_id,
                given_isolation=_GIVEN if new.candidate_id else None,
                given_seed=new.seed if new.candidate_id else None,
            )
            added.append(row)
        return tuple(added)

    def _add_plan(self, plan: Plan) -> str:
        key = plan_id(plan)
        self._insert("plans", id=key, plan=dump(plan.to_dict()))
        return key

    def _event(self, kind: str, campaign: str | None, trial_id: int | None, detail: Mapping[str, Any]) -> None:
        self._insert("events", at=_now(), campaign=campaign, trial_id=trial_id, kind=kind, detail=dump(detail))

    def _trial_row(self, trial_id: int) -> sqlite3.Row:
        row = self._one("SELECT campaign, state FROM trials WHERE id = ?", trial_id)
        if row is None:
            raise ArchiveError(f"no trial {trial_id} in {self._named}")
        return row

    def _move(self, trial_id: int, new: TrialState, kind: str, detail: Mapping[str, Any], **values: Any) -> None:
        """Change a trial's state, together with other columns and an event."""
        row = self._trial_row(trial_id)
        if row["state"] != _BEFORE[new]:
            raise ArchiveError(f"trial {trial_id} is {row['state']} and cannot become {new}")
        sets = ", ".join(f"{name} = ?" for name in ("state", *values))
        self._db.execute(f"UPDATE trials SET {sets} WHERE id = ?", [new.value, *values.values(), trial_id])  # noqa: S608
        self._event(kind, row["campaign"], trial_id, detail)

    def _add_results(self, trial_id: int, trial: Trial) -> None:
        for point in trial.curve:
            self._insert("curves", **asdict(point) | {"trial_id": trial_id, "usage": dump(list(point.usage))})
        for split, classes in (("validation", trial.validation_predictions), ("test", trial.test_predictions)):
            if classes:
                self._insert("predictions", trial_id=trial_id, split=split, classes=classes)
        if trial.validation_logits:
            self._insert("logits", trial_id=trial_id, logits=trial.validation_logits)


def _verdict_columns(verdict: Verdict) -> dict[str, Any]:
    return {name: getattr(verdict, name) for name in ("rule", "message", "line")} | {"outcome": verdict.outcome.value}


def _result_columns(trial: Trial) -> dict[str, Any]:
    return {name: getattr(trial, name) for name in ("candidate_id", *SCORED)} | {
        "spec": spec_to_text(trial.spec),
        "environment": environment_to_text(trial),
        "data_fingerprint": trial.data_fingerprint or None,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
