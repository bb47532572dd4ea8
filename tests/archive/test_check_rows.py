"""A check of an archive and its salvage, compared as a whole with what was damaged."""

import contextlib
import re
import shutil
import sqlite3
from pathlib import Path

import pytest

from nngen.archive import Archive, TrialState
from nngen.archive.check import Check, check, salvage
from nngen.archive.external import ExternalModel, ExternalResult, Replay
from nngen.errors import ArchiveError, NngenError, UsageError
from nngen.testing.fakes import fake_campaign
from nngen.types import Outcome, Record, Shape, TrialSpec, Verdict

TABLES = [
    *("families", "plans", "candidates", "candidate_experts", "verdicts", "campaigns", "trials", "curves"),
    *("predictions", "logits", "labels", "class_names", "image_features", "reveals", "events"),
    *("foreign_models", "foreign_series", "foreign_settings", "foreign_trials", "replays"),
]

REPLAY = Replay(
    record=Record(model="M", dataset="mnist", epoch=1, accuracy=0.5, duration_s=0.0, hyperparameters={"lr": 1}),
    nn_id="n",
    spec=TrialSpec(dataset="mnist", shape=Shape(1, 28, 28)),
    data_fingerprint="d",
    verdict=Verdict(outcome=Outcome.VALID),
    accuracy=0.5,
    parameters=1,
    seconds=1.0,
)


@pytest.fixture
def path(tmp_path):
    """An archive of three trained trials, with a row in nearly every table."""
    with Archive.open(tmp_path / "a.db") as archive:
        fake_campaign(archive, size=3).run()
        archive.reveal_test(1, 0.5)
        archive.add_labels("d2", b"\x01\x00", ("cat", "dog"))
        archive.add_image_features("d2", b"\x00")
        number = archive.external.add_models(
            [ExternalModel(origin="w", name="M", kind="base", nn_id="n", canonical=None, source="")]
        )["M"]
        record = Record(model="M", dataset="mnist", epoch=1, accuracy=0.5, duration_s=1.0, hyperparameters={"lr": 1})
        results = [
            ExternalResult(model_id=number, task="t", metric="acc", uid=uid, record=record) for uid in ("u", "v")
        ]
        archive.external.add_results(results)
    return tmp_path / "a.db"


def change(path, *statements):
    db = sqlite3.connect(path, isolation_level=None)
    for (trigger,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        db.execute(f"DROP TRIGGER {trigger}")
    db.execute("PRAGMA ignore_check_constraints = ON")
    for statement in statements:
        db.execute(statement)
    db.close()


def counted(path):
    """Count the rows of the tables that have some."""
    db = sqlite3.connect(path)
    found = {table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}
    db.close()
    return {table: count for table, count in found.items() if count}


def content(path, table, columns="*"):
    db = sqlite3.connect(path)
    found = db.execute(f"SELECT {columns} FROM {table} ORDER BY rowid").fetchall()
    db.close()
    return found


def test_a_whole_archive_has_no_problem_and_is_copied_as_it_is(path):
    assert check(path) == Check(path=path, rows=counted(path))
    out = path.with_name("b.db")
    assert salvage(path, out) == Check(path=path, rows=counted(path), saved=out)
    for table in counted(path):
        if table != "foreign_trials":
            assert content(out, table) == content(path, table), table
    assert sorted(file.name for file in path.parent.iterdir()) == ["a.db", "b.db"]


DAMAGE = {
    "UPDATE families SET best = '{' WHERE rowid = 1": ("families [0-9a-f]{40}.*", "best is not valid JSON"),
    "UPDATE verdicts SET outcome = '?' WHERE id = 1": ("verdicts 1", r"outcome cannot be read \('\?' is not a valid"),
    "UPDATE curves SET usage = '3' WHERE trial_id = 1 AND epoch = 1": ("curves 1", "usage cannot be read"),
    "UPDATE curves SET validation_accuracy = 2 WHERE trial_id = 2 AND epoch = 2": (
        "curves 2",
        "validation_accuracy cannot be read .2.0 is not between 0 and 1",
    ),
    "UPDATE class_names SET names = '{}'": ("class_names d2", r"names cannot be read \(it is not a list of names\)"),
    "UPDATE reveals SET test_accuracy = 2 WHERE trial_id = 1": (
        "reveals 1",
        "test_accuracy cannot be read .2.0 is not between 0 and 1",
    ),
    "UPDATE events SET detail = '[]' WHERE id = 2": ("events 2", r"detail cannot be read \(it is not an object\)"),
    "UPDATE foreign_settings SET hyperparameters = '' WHERE id = 1": (
        "foreign_settings 1",
        "hyperparameters is not valid JSON",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("statement", DAMAGE)
def test_a_damaged_row_is_one_problem_and_left_out_of_the_copy(path, statement):
    key, reason = DAMAGE[statement]
    before = counted(path)
    change(path, statement)
    table = key.split(" ")[0]
    found = check(path)
    [(where, why)] = found.problems.items()
    assert re.fullmatch(key, where), where
    assert re.match(reason, why), why
    rows = before | {table: before[table] - 1}
    assert (found.damaged, found.again, found.rows) == (1, 0, {name: rows.get(name, 0) for name in before})
    saved = salvage(path, path.with_name("b.db"))
    assert saved.problems.keys() >= found.problems.keys()
    if table == "foreign_settings":
        rows["foreign_trials"] -= 1
    assert counted(saved.saved) == {name: count for name, count in rows.items() if count}


def test_a_damaged_trial_is_ready_again_without_its_results(path):
    before = content(path, "trials", "id, campaign, position, rung, replicate, plan_id")
    change(path, "UPDATE trials SET environment = '{' WHERE id = 1")
    out = path.with_name("b.db")
    found = salvage(path, out)
    lost = sum(row[0] == 1 for row in content(path, "curves"))
    assert lost == 2
    assert (found.damaged, found.again) == (1, 1)
    assert found.problems == {"trials 1": "environment is not valid JSON"}
    assert found.rows["trials"] == 3
    assert found.rows["curves"] == counted(path)["curves"] - lost
    assert counted(out)["reveals"] == counted(path)["reveals"] - 1
    assert content(out, "trials", "id, campaign, position, rung, replicate, plan_id") == before
    with Archive.open(out) as archive:
        first, *others = archive.trials("one")
        assert (first.state, first.candidate_id, first.spec, first.curve) == (TrialState.READY, None, None, ())
        assert all(trial.trained and len(trial.curve) == 2 for trial in others)
        last = archive.events("one")[-1]
        assert (last.kind, last.trial_id, last.campaign) == ("trial.requeued", 1, "one")
        assert last.detail == {"reason": "its row was damaged: environment is not valid JSON"}
        assert last.at.endswith("+00:00")


def test_a_given_candidate_stays_with_its_damaged_trial(path):
    [(candidate,)] = content(path, "trials", "candidate_id")[:1]
    change(path, "UPDATE trials SET environment = '{', given_isolation = 'sandbox', given_seed = 5 WHERE id = 1")
    out = path.with_name("b.db")
    salvage(path, out)
    given = content(out, "trials", "candidate_id, given_isolation, given_seed, state")
    assert given[0] == (candidate, "sandbox", 5, "ready")


def test_rows_whose_plan_is_lost_are_counted(path):
    """A candidate can do without its plan, a trial cannot."""
    [(plan,)] = content(path, "trials", "plan_id")[:1]
    change(path, "PRAGMA foreign_keys = OFF", f"DELETE FROM plans WHERE id = '{plan}'")
    found = salvage(path, path.with_name("b.db"))
    assert found.problems["trials 1"] == "FOREIGN KEY constraint failed"
    assert found.rows["candidates"] == 3
    plans = [row[0] for row in content(found.saved, "candidates", "plan_id")]
    assert plans.count(None) == 1
    assert found.rows["trials"] == 2
    lost = {table: sum(row[0] == 1 for row in content(path, table)) for table in ("curves", "predictions", "reveals")}
    assert lost == {"curves": 2, "predictions": 2, "reveals": 1}
    assert found.damaged == 1 + 2 + 2 + 1
    assert found.again == 0


def plans(path):
    return [plan for (plan,) in content(path, "trials", "plan_id")]


WHOLE_PROBLEMS = {
    "what SQLite finds is numbered and counts no row": (
        ["PRAGMA writable_schema = ON", "DELETE FROM sqlite_master WHERE name = 'trials_by_campaign'"],
        {"file 1": "*** in database main *** Page "},
        0,
    ),
    "a campaign": (["UPDATE campaigns SET spec = '['"], {"campaigns one": "spec is not valid JSON"}, 1),
    "a replay": (
        ["UPDATE replays SET outcome = 7"],
        {"replays 1": "outcome cannot be read ('7' is not a valid Out"},
        1,
    ),
}


@pytest.mark.parametrize("name", WHOLE_PROBLEMS)
def test_a_check_lists_every_problem(path, name):
    statements, problems, damaged = WHOLE_PROBLEMS[name]
    with Archive.open(path) as archive:
        archive.external.add_replay(REPLAY)
    before = counted(path)
    change(path, *statements)
    found = check(path)
    assert {key: reason[: len(problems.get(key, reason))] for key, reason in found.problems.items()} == problems
    assert found.damaged == sum(before.values()) - sum(found.rows.values()) == damaged


@pytest.mark.long
@pytest.mark.parametrize("table", TABLES)
def test_a_column_of_another_name_is_a_problem_and_no_crash(path, table):
    """A byte of the schema may be damaged like any other."""
    filled = table in counted(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
    for column in columns:
        copy, out = path.with_name(f"{column}.db"), path.with_name(f"{column}.saved.db")
        shutil.copyfile(path, copy)
        db = sqlite3.connect(copy, isolation_level=None)
        db.execute("PRAGMA writable_schema = ON")
        db.execute(
            "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE tbl_name = ?", (column, f"{column}_", table)
        )
        db.close()
        for work in (check, lambda damaged, out=out: salvage(damaged, out)):
            with contextlib.suppress(NngenError):
                assert bool(work(copy).problems) == filled


def test_a_check_leaves_no_file_beside_the_archive(path):
    before = path.read_bytes()
    check(path)
    assert ([file.name for file in path.parent.iterdir()], path.read_bytes()) == ([path.name], before)


def test_a_value_that_the_schema_forbids_is_found_by_sqlite_too(path):
    change(path, "UPDATE trials SET state = 'lost' WHERE id = 2")
    assert check(path).problems["file 1"] == "CHECK constraint failed in trials"


def test_a_damaged_plan_is_named_by_the_beginning_of_its_key(path):
    plan = plans(path)[0]
    assert len(plan) == 64
    change(path, f"UPDATE plans SET plan = '[' WHERE id = '{plan}'")
    reason = "plan is not valid JSON"
    assert check(path).problems == {f"plans {plan[:59]}…": reason, "trials 1": reason}


def test_a_damaged_trial_whose_plan_is_lost_is_counted_once(path):
    change(
        path,
        "PRAGMA foreign_keys = OFF",
        f"DELETE FROM plans WHERE id = '{plans(path)[0]}'",
        *(f"DELETE FROM {table} WHERE trial_id = 1" for table in ("curves", "predictions", "reveals")),
        "UPDATE trials SET environment = '{' WHERE id = 1",
    )
    found = salvage(path, path.with_name("b.db"))
    assert found.problems == {"trials 1": "FOREIGN KEY constraint failed"}
    assert (found.damaged, found.again, found.rows["trials"]) == (1, 0, 2)


def test_a_row_can_do_without_what_it_refers_to_where_that_is_optional(path):
    """Lost are the plan of trial 1, which trial 3 copied, and the source of a family."""
    [(family, fingerprint)] = content(path, "families", "name, fingerprint")[:1]
    experts = content(path, "candidate_experts", "family, fingerprint")
    assert (family, fingerprint) in experts
    change(
        path,
        "PRAGMA foreign_keys = OFF",
        f"DELETE FROM plans WHERE id = '{plans(path)[0]}'",
        f"DELETE FROM families WHERE fingerprint = '{fingerprint}'",
        "UPDATE trials SET copied_from = 1 WHERE id = 3",
        "UPDATE trials SET copied_from = 2 WHERE id = 2",
    )
    out = salvage(path, path.with_name("b.db")).saved
    assert content(out, "trials", "id, copied_from") == [(2, 2), (3, None)]
    expected = [(name, None if key == fingerprint else key) for name, key in experts]
    assert content(out, "candidate_experts", "family, fingerprint") == expected


def test_a_salvage_that_ends_early_leaves_no_file(path, monkeypatch):
    """A draft of an earlier one is removed too, and not continued."""
    draft = path.with_name(".b.db.part")
    draft.write_text("left by a kill")
    assert salvage(path, path.with_name("b.db")).problems == {}
    assert [file.name for file in path.parent.iterdir() if "b.db" in file.name] == ["b.db"]

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("nngen.archive.check._insert", die)
    with pytest.raises(KeyboardInterrupt):
        salvage(path, path.with_name("c.db"))
    assert not [file for file in path.parent.iterdir() if "c.db" in file.name]


def test_bytes_that_are_no_utf_8_are_named_by_their_column(path):
    change(path, "UPDATE verdicts SET message = CAST(X'C328' AS TEXT) WHERE id = 2")
    assert check(path).problems == {"verdicts 2": "message is not UTF-8"}


def test_at_most_1000_problems_are_kept_and_all_are_counted():
    found = Check(path=Path("a.db"))
    for number in range(1002):
        found.note(f"row {number}", "x" * 300 if number == 0 else "wrong\nline")
    found.note("row 5", "late", 0)
    assert (len(found.problems), found.damaged) == (1000, 1002)
    assert list(found.problems)[-1] == "row 999"
    assert len(found.problems["row 0"]) <= 200
    assert found.problems["row 5"] == "wrong line"


def test_a_lost_table_and_a_lost_ledger_are_problems_without_rows(path):
    change(path, "DROP TABLE reveals", "DELETE FROM _sqlite_migrations")
    found = check(path)
    assert found.problems == {
        "table _sqlite_migrations": "it is missing or empty",
        "table reveals": "no such table: reveals",
    }
    assert found.damaged == 0
    assert "reveals" not in found.rows
    assert found.rows["trials"] == 3


def test_what_is_no_archive_is_one_line(path, tmp_path):
    other = tmp_path / "other.db"
    db = sqlite3.connect(other)
    db.execute("CREATE TABLE x (y)")
    db.close()
    (tmp_path / "text.db").write_text("text" * 1000)
    messages = {
        tmp_path / "none.db": f"no archive at {tmp_path / 'none.db'}: name one with --archive",
        other: f"{other} is not an archive of nngen: name one with --archive",
        tmp_path / "text.db": (
            f"archive {tmp_path / 'text.db'} cannot be read at all (file is not a database): restore a copy"
        ),
    }
    for place, message in messages.items():
        for work in (check, lambda place: salvage(place, tmp_path / "saved.db")):
            with pytest.raises(ArchiveError) as caught:
                work(place)
            assert str(caught.value) == message
    with pytest.raises(UsageError) as caught:
        salvage(path, other)
    assert str(caught.value) == f"{other} exists already: name another file with --out, or move it away"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.db", "other.db", "text.db"]
