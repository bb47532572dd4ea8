"""Rows of LEMUR's database after an export, its lock, and databases that are refused."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from nngen.errors import ExportError
from nngen.export import database as module
from nngen.export.database import export_to_database
from nngen.export.folder import Written
from nngen.lemur.layout import LemurVersion, entry, nn_id, stat_id

OLD, NEW = LemurVersion.V2_1_2, LemurVersion.V2_2_11
TRAIN_STAT = "CREATE TABLE train_stat (stat_id TEXT PRIMARY KEY, cpu_type TEXT, best_epoch INTEGER, train_loss REAL, x)"


def sql(path: Path, text: str, values: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db, db:
        return db.execute(text, values).fetchall()


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return list(db.iterdump())


@pytest.mark.parametrize("version", [OLD, NEW])
def test_an_export_adds_exactly_these_rows(database, exports, version):
    if version is NEW:
        sql(database, TRAIN_STAT)
    before = dump(database)
    # Two trials of one candidate with equal hyperparameters, and one with a transform of nngen.
    first, own = exports[0], exports[1].standing_in()
    again = replace(first, score=replace(first.score, accuracy=0.25, train_stat={"cpu_type": None, "unknown": 7}))
    given = [first, again, own]
    written = tuple(Written(export=export, new=True, place="stat") for export in given)
    assert export_to_database(database, given, version) == written
    keys = [stat_id(export.results, export.score) for export in given]
    uids = [entry(export.results, export.score, version)["uid"] for export in given]
    assert uids[0] == uids[1] != uids[2]

    for export in (first, own):
        name, code = export.candidate.id, export.candidate.source
        assert sql(database, "SELECT * FROM nn WHERE name = ?", (name,)) == [(name, code, nn_id(code))]
    name, code = own.transform.name, own.transform.source
    assert sql(database, "SELECT * FROM transform WHERE name NOT LIKE 'norm%'") == [(name, code, nn_id(code))]
    for uid, of_uid in ((uids[0], [first, again]), (uids[2], [own])):
        prm = {(name, value) for export in of_uid for name, value in _hyperparameters(export, version).items()}
        assert sorted(sql(database, "SELECT name, value FROM prm WHERE uid = ?", (uid,))) == sorted(prm)
    assert sorted(sql(database, "SELECT * FROM stat WHERE dataset = 'digits'")) == sorted(
        (
            key, export.score.accuracy, 2, 3_500_000_000, "img-classification", "digits", export.candidate.id,
            export.transform.name, "acc", uid,
        )
        for key, uid, export in zip(keys, uids, given, strict=True)
    )  # fmt: skip
    if version is NEW:
        values = [("a processor", 2, 1.0, None), (None, None, None, None), ("a processor", 2, 1.0, None)]
        rows = [(key, *row) for key, row in zip(keys, values, strict=True)]
        assert sorted(sql(database, "SELECT * FROM train_stat")) == sorted(rows)

    after = dump(database)
    assert set(before) <= set(after)
    assert export_to_database(database, given, version) == tuple(replace(row, new=False) for row in written)
    assert dump(database) == after


def _hyperparameters(export, version):
    """Return what a reader of the version takes for hyperparameters: in 2.2.11 also what its files add to a trial."""
    names = ("task", "dataset", "metric", "model", "metric_acc", "duration_seconds") if version is NEW else ()
    return {**export.score.prm, **{name: entry(export.results, export.score, version)[name] for name in names}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("DROP TABLE prm", "is not a database of nn-dataset 2.1.2: table prm lacks name"),
        ("ALTER TABLE stat DROP COLUMN duration", "is not a database of nn-dataset 2.1.2: table stat lacks duration"),
        (TRAIN_STAT, "is a database of nn-dataset 2.2.11, not 2.1.2: use --lemur 2.2.11"),
        ("DELETE FROM metric", "has no metric acc: let LEMUR import its own results first"),
    ],
)
def test_a_database_that_does_not_fit_is_left_alone(database, exports, change, message):
    sql(database, change)
    before = dump(database)
    with pytest.raises(ExportError) as failure:
        export_to_database(database, exports, OLD)
    assert str(failure.value) == f"{database} {message}"
    assert dump(database) == before


def test_another_source_under_a_name_is_named(database, exports):
    sql(database, "INSERT INTO nn VALUES (?, 'x', 'y')", (exports[0].candidate.id,))
    with pytest.raises(ExportError) as failure:
        export_to_database(database, exports, OLD)
    where = f"a different source under the name {exports[0].candidate.id}"
    assert str(failure.value) == f"{database} has {where}: remove it there first"


@pytest.mark.parametrize("refused", ["the file", "its folder"])
def test_a_database_that_may_not_be_written_is_refused(database, exports, monkeypatch, refused):
    place = database if refused == "the file" else database.parent
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != place and allowed(path, mode))
    with pytest.raises(ExportError) as failure:
        export_to_database(database, exports, OLD)
    assert str(failure.value) == f"the database {database} cannot be written: permission denied"


def test_the_lock_stays_as_lemur_leaves_it_and_is_free_again(database, exports):
    before = os.umask(0)
    try:
        export_to_database(database, exports, OLD)
    finally:
        os.umask(before)
    lock = database.with_name(f"{database.name}.lock")
    assert stat.S_IMODE(lock.stat().st_mode) == 0o644
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_lock_that_another_program_holds_is_waited_for(database, exports, monkeypatch):
    with database.with_name(f"{database.name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ExportError) as failure:
            export_to_database(database, exports, OLD, wait_s=-1)
        reason = "is locked by another program: try again when it is done"
        assert str(failure.value) == f"{database} {reason}"
        naps: list[float] = []

        def nap(seconds: float) -> None:
            naps.append(seconds)
            if len(naps) == 3:
                fcntl.flock(held, fcntl.LOCK_UN)

        monkeypatch.setattr(module.time, "sleep", nap)
        assert len(export_to_database(database, exports, OLD, wait_s=60)) == 3
    assert len(naps) == 3 and max(naps) <= 0.5  # it is soon noticed that the lock is free


def test_a_trigger_that_ends_is_waited_for(database, exports):
    count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) SELECT max(i) FROM n"
    sql(database, f"CREATE TRIGGER slow BEFORE INSERT ON stat BEGIN SELECT ({count}); END")
    assert len(export_to_database(database, exports, OLD)) == 3
