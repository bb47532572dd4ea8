"""Damaged archives: readers show the rest and count the damage, drivers stop, and what can be read is saved."""

import gzip
import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from fuzzing import fuzz
from hypothesis import given
from hypothesis import strategies as st

from nngen.archive import Archive, TrialState
from nngen.archive.check import check, salvage
from nngen.archive.connection import WAY_OUT
from nngen.errors import ArchiveError, NngenError, UsageError
from nngen.testing.fakes import FakeEngine, fake_campaign

DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a.db"
    with Archive.open(path) as archive:
        fake_campaign(archive, size=5).run()
    return path


@pytest.fixture
def damaged(whole, tmp_path):
    """Return a function that makes a copy of an archive and changes it behind the back of its triggers."""

    def make(*statements):
        path = tmp_path / "a.db"
        shutil.copy(whole, path)
        connection = sqlite3.connect(path, isolation_level=None)
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for statement in statements:
            connection.execute(statement)
        connection.close()
        return path

    return make


TRIAL = [
    ("environment = '{{{'", "environment is not valid JSON"),
    ("environment = '[]'", "environment cannot be read"),
    ('environment = \'{"batch": "many"}\'', "environment cannot be read"),
    (f"environment = '{DEEP}'", "environment is n"),
    ("outcome = 'great'", "outcome cannot be read .'great'"),
    ("state = 'lost'", "state cannot be read .'lost'"),
    ("spec = '5'", "spec cannot be read"),
    ('spec = replace(spec, \'"epochs":2\', \'"epochs":"two"\')', "spec cannot be read .epochs is 'two'"),
    ("validation_accuracy = 7.5", "validation_accuracy cannot be read .7.5 is not between 0 and 1"),
    ("validation_accuracy = 9e999", "validation_accuracy cannot be read .inf"),
    ("seconds = 9e999", "seconds cannot be read .inf is not an amount"),
    ("parameters = -5", "parameters cannot be read .-5"),
    ("message = CAST(X'C328' AS TEXT)", "message is not UTF-8"),
]


@pytest.mark.parametrize(("change", "reason"), TRIAL, ids=[change[:30] for change, _ in TRIAL])
def test_readers_leave_out_a_damaged_trial_and_drivers_stop(damaged, change, reason):
    path = damaged(f"UPDATE trials SET {change} WHERE id = 2")
    with Archive.open(path, readonly=True) as archive:
        assert [trial.id for trial in archive.trials("one")] == [1, 3, 4, 5]
        with pytest.raises(ArchiveError, match=f"trials 2: {reason}.*archive check --salvage"):
            archive.trial(2)
        assert archive.trial(3).trained
        assert len(archive.damaged) == 1
    with Archive.open(path) as archive, pytest.raises(ArchiveError, match=f"a.db: trials 2: {reason}") as caught:
        archive.trials("one")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("brief", [False, True])
@pytest.mark.parametrize("change", [TRIAL[0][0], *(change for change, _ in TRIAL[4:7]), TRIAL[8][0]])
def test_a_damaged_trial_is_not_ranked(damaged, change, brief):
    with Archive.open(damaged(f"UPDATE trials SET {change} WHERE id = 2"), readonly=True) as archive:
        scores = archive.brief_scores("one") if brief else archive.scores("one")
        assert [score.id for score in scores] == [1, 3, 4, 5]
        [(row, found)] = archive.damaged.items()
        assert (row, found.partition(" ")[0]) == ("trials 2", change.partition(" ")[0])


def test_every_damaged_row_of_scores_and_lines_is_left_out(damaged):
    path = damaged(
        "UPDATE trials SET environment = '{{' WHERE id = 1",
        "UPDATE trials SET spec = '{}' WHERE id = 2",
        "UPDATE trials SET validation_accuracy = -1 WHERE id = 3",
    )
    with Archive.open(path, readonly=True) as archive:
        assert [score.id for score in archive.scores("one")] == [4, 5]
        assert [line.id for line in archive.lines("one")] == [1, 4, 5]
        assert "(and 2 more)" in archive.damage


OTHERS = [
    ("UPDATE plans SET plan = '[1,2' WHERE rowid = 1", "trials 1: plan is not valid JSON"),
    ("UPDATE plans SET plan = '{\"experts\": 3}' WHERE rowid = 1", "trials 1: plan cannot be read"),
    ("UPDATE events SET at = 'yesterday' WHERE id = 2", "events 2: at cannot be read"),
    ("UPDATE events SET detail = '[]' WHERE id = 2", "events 2: detail cannot be read"),
    ("UPDATE curves SET usage = '[\"a\"]' WHERE trial_id = 1", "trials 1: usage cannot be read"),
    ("UPDATE campaigns SET spec = '{not json'", "campaigns one: spec is not valid JSON"),
    ('UPDATE campaigns SET spec = replace(spec, \'"size":5\', \'"size":"5"\')', "campaigns one: spec cannot be read"),
    ('UPDATE campaigns SET spec = replace(spec, \'"size":5\', \'"size":' + "9" * 5000 + "')", "campaigns one: spec"),
    ("UPDATE verdicts SET outcome = '?' WHERE id = 1", "candidates MoE4-[0-9a-f]{32}: outcome cannot be read"),
]


@pytest.mark.parametrize(("statement", "line"), OTHERS)
def test_damage_is_named_in_every_table(damaged, statement, line):
    with Archive.open(damaged(statement), readonly=True) as archive:
        found = [archive.campaigns(), archive.trials(), archive.events(), archive.candidates()]
        assert sum(map(len, found)) > 10
        (where, reason), *_ = archive.damaged.items()
        with pytest.raises(AssertionError, match=line):
            raise AssertionError(f"{where}: {reason}")


@pytest.mark.parametrize("bad", [1, 2, 3, 4, 5, 7])
def test_a_text_that_is_not_utf_8_hides_no_other_row(bad, tmp_path, monkeypatch):
    """Rows are fetched some at a time; after the error those that were given are passed over, and none twice."""
    monkeypatch.setattr("nngen.archive.queries._CHUNK", 2)
    with Archive.open(tmp_path / "a.db") as archive:
        for number in range(1, 8):
            archive.log(f"kind {number}")
    db = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    db.execute("DROP TRIGGER events_no_update")
    db.execute(f"UPDATE events SET kind = CAST(X'C328' AS TEXT) WHERE id = {bad}")
    db.close()
    with Archive.open(tmp_path / "a.db", readonly=True) as archive:
        assert archive.damage == ""
        assert [event.id for event in archive.events()] == [number for number in range(1, 8) if number != bad]
        assert archive.damaged == {f"events {bad}": "kind is not UTF-8"}
        message = f"archive {archive.path}: events {bad}: kind is not UTF-8: {WAY_OUT}"
        assert archive.damage == message
    with Archive.open(tmp_path / "a.db") as archive, pytest.raises(ArchiveError) as caught:
        archive.events()
    assert str(caught.value) == message


def test_damage_is_counted_and_its_key_cut(tmp_path):
    with Archive.open(tmp_path / "a.db") as archive:
        for letter in "abc":
            archive.add_labels(letter * 64, b"\x00", ("cat",))
    db = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    db.execute("DROP TRIGGER class_names_no_update")
    db.execute("UPDATE class_names SET names = '3'")
    db.close()
    reason = "names cannot be read (it is not a list of names)"
    with Archive.open(tmp_path / "a.db", readonly=True) as archive:
        for count, letter in enumerate("abc", start=1):
            with pytest.raises(ArchiveError) as caught:
                archive.class_names(letter * 64)
            more = {1: "", 2: " (and 1 more)", 3: " (and 2 more)"}[count]
            assert str(caught.value) == (f"archive {archive.path}: class_names {'a' * 59}…: {reason}{more}: {WAY_OUT}")
        assert archive.damaged == {f"class_names {letter * 59}…": reason for letter in "abc"}


def test_commands_show_the_rest_and_end_with_one_line(damaged, nngen, tmp_path):
    path = damaged(
        "UPDATE trials SET environment = '{{{', outcome = 'great' WHERE id = 2",
        "UPDATE events SET at = 'yesterday' WHERE id = 3",
    )
    for command in ("leaderboard", "campaign ls", f"report one --out {tmp_path / 'r.html'}"):
        result = nngen(*command.split(), "--archive", path)
        assert result.code == 1, result.err
        assert result.err.count("\n") == 1, result.err
        assert "a.db: " in result.err
        assert "archive check --salvage" in result.err
        assert "one" in result.out or result.out.count("\n") > 3 or (tmp_path / "r.html").exists()
    rows = json.loads(nngen("leaderboard", "--archive", path, "--json").out)
    assert len(rows) == 4
    result = nngen("campaign", "run", "one", "--archive", path)
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "trials 2: outcome" in result.err or "events 3: at" in result.err


def test_a_lost_table_of_migrations_is_named(damaged):
    path = damaged("DROP TABLE _sqlite_migrations")
    for readonly in (True, False):
        with pytest.raises(ArchiveError, match=r"_sqlite_migrations is missing or empty.*archive check --salvage"):
            Archive.open(path, readonly=readonly)
    found = salvage(path, path.with_name("b.db"))
    with Archive.open(found.saved) as archive:
        assert [trial.trained for trial in archive.trials("one")] == [True] * 5


def test_a_whole_archive_is_checked(whole, nngen):
    found = check(whole)
    assert (found.problems, found.damaged) == ({}, 0)
    assert found.rows["trials"] == 5
    result = nngen("archive", "check", "--archive", whole, "--json")
    assert (result.code, json.loads(result.out)["rows"]["trials"]) == (0, 5)


def test_an_archive_of_an_earlier_version_is_checked_and_not_changed(tmp_path):
    path = tmp_path / "old.db"
    path.write_bytes(gzip.decompress((Path(__file__).parent / "old" / "archive.db.gz").read_bytes()))
    before = path.read_bytes()
    assert check(path).problems == {}
    assert path.read_bytes() == before
    with Archive.open(salvage(path, tmp_path / "new.db").saved) as new, Archive.open(path) as old:
        assert new.trials() == old.trials()
        assert new.campaigns() == old.campaigns()
        assert new.events() == old.events()


def test_what_can_be_read_is_saved_and_the_rest_is_trained_again(damaged, nngen):
    path = damaged(
        "UPDATE trials SET environment = '{{{' WHERE id = 2",
        "UPDATE trials SET outcome = 'great' WHERE id = 3",
        "UPDATE events SET at = 'yesterday' WHERE id = 2",
    )
    before = path.read_bytes()
    result = nngen("archive", "check", "--archive", path)
    assert result.code == 1
    for words in ("trials 2: environment", "trials 3: outcome", "events 2: at", "3 rows cannot be read"):
        assert words in result.err
    result = nngen("archive", "check", "--salvage", "--archive", path)
    assert (result.code, path.read_bytes()) == (0, before)
    saved = path.with_name("a.db.salvaged")
    assert "3 left out; 2 trials are to be trained again" in result.err
    assert check(saved).problems == {}
    with Archive.open(saved) as archive:
        states = {trial.id: trial.state for trial in archive.trials("one")}
        assert states == dict.fromkeys([1, 4, 5], TrialState.DONE) | dict.fromkeys([2, 3], TrialState.READY)
        reasons = [event.detail["reason"] for event in archive.events("one", kinds=("trial.requeued",))]
        assert reasons[0] == "its row was damaged: environment is not valid JSON"
        engine = FakeEngine()
        assert fake_campaign(archive, size=5, engine=engine).run().over
        assert len(engine.trained) == 2
    again = nngen("archive", "check", "--salvage", "--archive", path)
    assert (again.code, "exists already" in again.err) == (2, True)


@pytest.mark.long
def test_rows_before_and_behind_a_damaged_page_are_saved(tmp_path):
    path = tmp_path / "a.db"
    with Archive.open(path) as archive:
        fake_campaign(archive, size=35).run()
        kinds = len(archive.events())
        for number in range(2000):
            archive.log("note", campaign="one", number=number, text="x" * 50)
        page = archive._db.execute(
            "SELECT pageno FROM dbstat WHERE name = 'events' AND pagetype = 'leaf' LIMIT 1 OFFSET 20"
        ).fetchone()
    content = bytearray(path.read_bytes())
    number = page[0] if page else 100
    content[4096 * (number - 1) : 4096 * number] = bytes(4096)
    path.write_bytes(content)
    with Archive.open(path, readonly=True) as archive, pytest.raises(ArchiveError, match="archive check --salvage"):
        archive.events()
    found = salvage(path, tmp_path / "b.db")
    assert any("malformed" in reason for reason in found.problems.values())
    with Archive.open(found.saved) as archive:
        assert kinds + 1800 < len(archive.events()) < kinds + 2000
        assert all(trial.trained for trial in archive.trials("one"))
    with pytest.raises(UsageError, match="exists already"):
        salvage(path, tmp_path / "b.db")


def read_everything(path):
    with Archive.open(path, readonly=True) as archive:
        for name in ("campaigns", "trials", "lines", "candidates", "events", "quartets", "canonicals"):
            getattr(archive, name)()
        list(archive.scores())
        list(archive.external.records())
        for campaign in archive.campaigns():
            archive.template_versions(campaign.name)


@pytest.mark.long
@fuzz(60, deadline=20_000)
@given(changes=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=40))
def test_flipped_bytes_raise_only_errors_of_nngen(whole, tmp_path, changes):
    content = bytearray(whole.read_bytes())
    for place, mask in changes:
        content[100 + int(place * (len(content) - 101))] ^= mask
    path = tmp_path / "flipped.db"
    path.write_bytes(content)
    (tmp_path / "saved.db").unlink(missing_ok=True)
    for work in (read_everything, check, lambda damaged: salvage(damaged, tmp_path / "saved.db")):
        try:
            work(path)
        except NngenError as error:
            assert "\n" not in str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
KEYS = ("experts", "epochs", "shape", "size", "gate", "prm")
COLUMNS = ("trials SET environment", "trials SET spec", "plans SET plan", "campaigns SET spec", "events SET detail")


@fuzz(100, deadline=20_000)
@given(
    column=st.sampled_from(COLUMNS),
    key=st.sampled_from(["experts", "epochs", "shape", "size", "gate", "prm"]),
    value=JSON,
)
@pytest.mark.long
def test_any_json_in_a_column_raises_only_errors_of_nngen(damaged, column, key, value):
    for text in (json.dumps(value), json.dumps({key: value})):
        quoted = text.encode("utf-8", "replace").decode().replace("'", "''")
        path = damaged(f"UPDATE {column} = '{quoted}'") if "\0" not in quoted else None
        if path is not None:
            read_everything(path)
            check(path)
