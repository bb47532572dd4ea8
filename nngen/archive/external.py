"""Models and results imported from LEMUR, and their replays, stored apart from the trials of this package.

They have no plan, no campaign and no validation split, and their accuracies are on LEMUR's test split, so they are
never mixed with own trials by default. Like every record of the archive they are append-only.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from nngen.archive.connection import WAY_OUT, Connection, sqlite_errors, transaction
from nngen.archive.rows.columns import DamagedRowError, Row, amount, read, share
from nngen.archive.rows.values import dump, spec_from_text, spec_to_text
from nngen.errors import ArchiveError
from nngen.types import Outcome, Record, TrialSpec, Verdict

_ADD_MODEL = """
    INSERT OR IGNORE INTO foreign_models (origin, name, kind, nn_id, canonical, source, created_at)
    VALUES (:origin, :name, :kind, :nn_id, :canonical, :source, :now)
"""

# A result names its series and its setting, which are stored before it and looked up by their unique columns.
_ADD_SERIES = """
    INSERT OR IGNORE INTO foreign_series (model_id, task, dataset, metric)
    VALUES (:model_id, :task, :dataset, :metric)
"""
_ADD_SETTING = "INSERT OR IGNORE INTO foreign_settings (uid, hyperparameters) VALUES (:uid, :hyperparameters)"
_ADD_RESULT = """
    INSERT OR IGNORE INTO foreign_trials (series_id, epoch, setting_id, accuracy, duration_s)
    SELECT foreign_series.id, :epoch, foreign_settings.id, :accuracy, :duration_s
    FROM foreign_series, foreign_settings
    WHERE model_id = :model_id AND task = :task AND dataset = :dataset AND metric = :metric
      AND uid = :uid AND hyperparameters = :hyperparameters
"""

_RECORDS = """
    SELECT foreign_models.name, foreign_series.dataset, epoch, accuracy, duration_s, hyperparameters
    FROM foreign_trials
    JOIN foreign_series ON foreign_series.id = series_id
    JOIN foreign_models ON foreign_models.id = model_id
    JOIN foreign_settings ON foreign_settings.id = setting_id
    WHERE task = ?1 AND metric = ?2 AND (?3 IS NULL OR dataset = ?3) AND (?4 IS NULL OR name = ?4)
      AND (?5 IS NULL OR epoch = ?5)
    ORDER BY name, dataset, epoch, accuracy DESC, setting_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalModel:
    """A model from another source."""

    origin: str  # name of the wheel, checkout or database it was read from
    name: str  # name of the model there
    kind: str  # ``base``, ``hetero`` (a mixture of different families), ``mixture`` or ``generated``
    nn_id: str  # LEMUR's id of the source
    canonical: str | None  # SHA-256 over the parsed tree; None where it does not parse
    source: str  # text of the model's file


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalResult:
    """One trial at one epoch, to be added to the archive."""

    model_id: int  # number of the model, as ``ExternalResults.add_models`` returns it
    task: str  # task, as LEMUR names it
    metric: str  # metric of the accuracy
    uid: str  # LEMUR's id of the hyperparameters
    record: Record  # the trial as LEMUR recorded it


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A record of LEMUR's whose training was repeated here, with its own hyperparameters."""

    record: Record  # the record
    nn_id: str  # LEMUR's id of the source that was trained
    spec: TrialSpec  # settings of the training
    data_fingerprint: str  # fingerprint of the data set in its official splits
    verdict: Verdict  # outcome of the training
    # accuracy on the official test split after ``record.epoch`` epochs; None where training failed
    accuracy: float | None
    parameters: int | None  # number of the network's parameters
    seconds: float  # wall time of the training


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """Number of results offered, and of those that were new."""

    offered: int
    new: int


class ExternalResults:
    """The imported part of an archive, available as ``Archive.external``."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    def add_models(self, models: Iterable[ExternalModel]) -> dict[str, int]:
        """Add models, all or none; models that are stored already are not added again.

        Returns:
            Number of every model offered, by name.

        Raises:
            ArchiveError: If the archive cannot be written.
        """
        offered = list(models)
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        with transaction(self._db):
            self._db.executemany(_ADD_MODEL, (asdict(model) | {"now": now} for model in offered))
            rows = self._db.execute("SELECT id, origin, name, nn_id FROM foreign_models")
            known = {(origin, name, nn_id): number for number, origin, name, nn_id in rows}
        return {model.name: known[model.origin, model.name, model.nn_id] for model in offered}

    def add_results(self, results: Iterable[ExternalResult]) -> Added:
        """Add results, all or none; equal results are stored once.

        Raises:
            ArchiveError: If the archive cannot be written.
        """
        rows = [
            {name: getattr(result, name) for name in ("model_id", "task", "metric", "uid")}
            | {name: getattr(result.record, name) for name in ("dataset", "epoch", "accuracy", "duration_s")}
            | {"hyperparameters": json.dumps(result.record.hyperparameters, sort_keys=True, separators=(",", ":"))}
            for result in results
        ]
        with transaction(self._db):
            self._db.executemany(_ADD_SERIES, rows)
            self._db.executemany(_ADD_SETTING, rows)
            before = self._db.total_changes
            self._db.executemany(_ADD_RESULT, rows)
            return Added(offered=len(rows), new=self._db.total_changes - before)

    def models(self, kind: str | None = None) -> Iterator[ExternalModel]:
        """Iterate over the models in the order of their names; of one kind, or all."""
        columns = "origin, name, kind, nn_id, canonical, source"
        sql = f"SELECT {columns} FROM foreign_models WHERE ?1 IS NULL OR kind = ?1 ORDER BY name, id"  # noqa: S608
        return (ExternalModel(**dict(row)) for row in self._each(sql, kind))

    def records(
        self,
        *,
        dataset: str | None = None,
        model: str | None = None,
        epoch: int | None = None,
        task: str = "img-classification",
        metric: str = "acc",
    ) -> Iterator[Record]:
        """Iterate over the results by model, data set and epoch, best first; each argument is a filter."""
        for name, found, at, accuracy, duration_s, text in self._each(_RECORDS, task, metric, dataset, model, epoch):
            yield Record(
                model=name,
                dataset=found,
                epoch=at,
                accuracy=accuracy,
                duration_s=duration_s,
                hyperparameters=json.loads(text),
            )

    def add_replay(self, replay: Replay) -> None:
        """Add the repeated training of a record.

        Raises:
            ArchiveError: If the archive cannot be written.
        """
        record, verdict = replay.record, replay.verdict
        row = {name: getattr(record, name) for name in ("model", "dataset", "epoch")}
        row |= {"hyperparameters": dump(dict(record.hyperparameters)), "recorded": record.accuracy}
        row |= {name: getattr(replay, name) for name in ("nn_id", "data_fingerprint", "accuracy", "parameters")}
        row |= {"spec": spec_to_text(replay.spec), "outcome": verdict.outcome.value, "message": verdict.message}
        row |= {"seconds": replay.seconds, "created_at": datetime.now(UTC).isoformat(timespec="milliseconds")}
        with transaction(self._db):
            sql = f"INSERT INTO replays ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"  # noqa: S608
            self._db.execute(sql, list(row.values()))

    def replays(self, dataset: str, epoch: int) -> list[Replay]:
        """Return the repeated trainings of the records of a data set at an epoch, oldest first.

        Raises:
            ArchiveError: If one cannot be read.
        """
        sql = "SELECT * FROM replays WHERE dataset = ? AND epoch = ? ORDER BY id"
        try:
            with closing(self._each(sql, dataset, epoch)) as rows:  # also where one cannot be read
                return [replay_from_row(row) for row in rows]
        except DamagedRowError as error:
            raise ArchiveError(f"archive {self._db.path}: a row of replays: {error}: {WAY_OUT}") from error

    def counts(self) -> dict[str, int]:
        """Count models, series, settings and trials."""
        kinds = ("models", "series", "settings", "trials")
        return {kind: next(self._each(f"SELECT count(*) FROM foreign_{kind}"))[0] for kind in kinds}  # noqa: S608

    def _each(self, sql: str, *values: Any) -> Generator[sqlite3.Row, None, None]:
        with sqlite_errors(self._db.path):
            yield from self._db.execute(sql, values)


def replay_from_row(row: Row) -> Replay:
    """Build a repeated training from its row.

    Raises:
        DamagedRowError: If the row cannot be read.
    """
    record = Record(
        **{name: row[name] for name in ("model", "dataset", "epoch")},
        accuracy=read(row, "recorded", float),
        duration_s=0.0,
        hyperparameters=read(row, "hyperparameters", json.loads),
    )
    return Replay(
        record=record,
        nn_id=row["nn_id"],
        spec=read(row, "spec", spec_from_text),
        data_fingerprint=row["data_fingerprint"],
        verdict=Verdict(outcome=read(row, "outcome", Outcome), message=row["message"]),
        accuracy=read(row, "accuracy", share),
        parameters=row["parameters"],
        seconds=read(row, "seconds", amount),
    )
