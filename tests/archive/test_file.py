"""Archive files: other files, permissions, several drivers, kills."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import traceback
from pathlib import Path

import pytest

from nngen.archive import Archive, TrialState
from nngen.archive.connection import default_path
from nngen.errors import ArchiveError
from nngen.plan import Plan
from nngen.testing.fakes import fake_record

PLANS = [Plan(experts=tuple("ABCD"))]


@pytest.fixture
def path(tmp_path):
    with Archive.open(tmp_path / "a.db") as archive:
        archive.add_campaign(fake_record("one"), PLANS)
    return tmp_path / "a.db"


def test_wal_full_and_whole(path):
    with Archive.open(path) as archive:
        pragma = lambda name: archive._db.execute(f"PRAGMA {name}").fetchone()[0]  # noqa: E731
        assert (pragma("journal_mode"), pragma("synchronous"), pragma("foreign_keys")) == ("wal", 2, 1)
        assert pragma("integrity_check") == "ok"


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE events SET kind = 'x'",
        "DELETE FROM events",
        "DELETE FROM trials",
        "UPDATE plans SET plan = '{}'",
        "UPDATE trials SET state = 'done', outcome = 'valid'",
        "UPDATE trials SET position = 5",
    ],
)
def test_facts_hold_against_any_writer(path, sql):
    connection = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match=r"the archive keeps|a trial goes"):
        connection.execute(sql)
    connection.close()


def other_program(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE nn (name TEXT)")
    connection.close()


def newer(path):
    with Archive.open(path) as archive:
        archive._db.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name) VALUES ('nngen.archive', 'm9999_future')"
        )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p.write_bytes(b"not a database" * 100), "is not an archive"),
        (other_program, "not an archive of nngen"),
        (newer, "newer nngen .it knows m9999_future.*upgrade"),
        (lambda p: p.mkdir(), "is a folder"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, make, words):
    make(tmp_path / "x.db")
    for readonly in (False, True):
        with pytest.raises(ArchiveError, match=words) as caught:
            Archive.open(tmp_path / "x.db", readonly=readonly)
        assert "\n" not in str(caught.value)


def test_missing(tmp_path):
    with pytest.raises(ArchiveError, match="no archive at"):
        Archive.open(tmp_path / "x.db", create=False)
    with pytest.raises(ArchiveError, match="does not exist"):
        Archive.open(tmp_path / "no" / "x.db")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_archive_is_named(path):
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match=r"a\.db"), Archive.open(path) as archive:
        archive.trials("one")


def test_the_default_path(monkeypatch, tmp_path):
    monkeypatch.delenv("NNGEN_ARCHIVE", raising=False)
    assert str(default_path()) == "nngen.db"
    monkeypatch.setenv("NNGEN_ARCHIVE", str(tmp_path / "y.db"))
    assert default_path() == tmp_path / "y.db"


def test_readers_read_while_a_driver_writes(path):
    with Archive.open(path) as writer, Archive.open(path, readonly=True) as reader:
        writer.start_trial(1)
        assert reader.trials("one")[0].state is TrialState.RUNNING
        with pytest.raises(ArchiveError, match="readonly"):
            reader.log("x")


def without_rights(work):
    """Run work in a fork without root's permission to write everywhere."""
    child = os.fork()
    if child == 0:
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_folder_that_cannot_be_written(monkeypatch):
    # The engine of other tests sets a temporary folder that its owner alone may enter.
    monkeypatch.setattr(tempfile, "tempdir", None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Archive.open(folder / "a.db") as archive:
            archive.add_campaign(fake_record("one"), PLANS)
        folder.chmod(0o555)
        (folder / "a.db").chmod(0o444)

        def work():
            for path, words in ((folder / "new.db", "cannot be written"), (folder / "a.db", "permission denied")):
                with pytest.raises(ArchiveError, match=words):
                    Archive.open(path)
            with Archive.open(folder / "a.db", readonly=True) as archive:
                assert len(archive.trials("one")) == 1

        assert without_rights(work)
        assert [path.name for path in folder.iterdir()] == ["a.db"]
        folder.chmod(0o755)


@pytest.mark.long
def test_many_drivers_may_meet_at_a_new_file(tmp_path):
    children = []
    for number in range(8):
        child = os.fork()
        if child == 0:
            try:
                with Archive.open(tmp_path / "new.db") as archive:
                    archive.log("here", number=number)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    with Archive.open(tmp_path / "new.db", readonly=True) as archive:
        assert sorted(event.detail["number"] for event in archive.events()) == list(range(8))
    assert [path.name for path in tmp_path.iterdir()] == ["new.db"]


def run_child(code, *args):
    child = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    return subprocess.Popen(child, stdout=subprocess.PIPE, text=True)


HOLD = """
    import sys, time
    from pathlib import Path
    from nngen.archive import Archive
    with Archive.open(Path(sys.argv[1])) as archive, archive.lock("one"):
        print("held", flush=True)
        time.sleep(60)
"""


def test_a_second_live_driver_is_refused_and_a_dead_one_is_not(path):
    child = run_child(HOLD, path)
    try:
        assert child.stdout.readline() == "held\n"
        with Archive.open(path) as archive:
            with pytest.raises(ArchiveError, match=f"another process .pid {child.pid}"), archive.lock("one"):
                pass
            with archive.lock("another campaign"):
                pass
            child.kill()
            child.wait()
            again = pytest.raises(ArchiveError, match="this process already")
            with archive.lock("one"), again, archive.lock("one"):
                pass
            with archive.lock("one"):
                pass
    finally:
        child.kill()
        child.communicate()
    assert [p.name for p in path.parent.iterdir()] == ["a.db"]


DIE = """
    import os, shutil, signal, sys
    from pathlib import Path
    from nngen.archive import Archive
    from nngen.plan import Plan
    from nngen.testing.fakes import fake_record

    def work(path, left):
        def trace(statement):
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        with Archive.open(path) as archive:
            archive._db.set_trace_callback(trace)
            archive.add_campaign(fake_record("two"), [Plan(experts=tuple("ABCD")), Plan(experts=tuple("ABCE"))])
            archive.start_trial(2)

    for number in range(100):
        copy = Path(f"{sys.argv[1]}.{number}")
        shutil.copy(sys.argv[1], copy)
        child = os.fork()
        if child == 0:
            work(copy, number)
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            break
"""


@pytest.mark.long
def test_killed_at_every_write_boundary_all_or_nothing(path):
    subprocess.run([sys.executable, "-c", textwrap.dedent(DIE), str(path)], check=True)
    copies = sorted(path.parent.glob("a.db.*[0-9]"), key=lambda copy: int(copy.suffix[1:]))
    assert 10 < len(copies) < 100
    seen = []
    for copy in copies:
        with Archive.open(copy) as archive:
            assert archive._db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            states = tuple(t.state.value for t in archive.trials("two"))
            kinds = tuple(e.kind for e in archive.events("two"))
        seen.append((states, kinds))
    whole = [
        ((), ()),
        (("ready", "ready"), ("campaign.created",)),
        (("running", "ready"), ("campaign.created", "trial.started")),
    ]
    assert sorted(set(seen), key=seen.index) == whole


def test_the_disk_is_full(path):
    with Archive.open(path) as archive:
        archive._db.execute("PRAGMA max_page_count = 1")
        with pytest.raises(ArchiveError, match="full"):
            archive.log("x", text="y" * 100_000)
        archive._db.execute("PRAGMA max_page_count = 1000000")
        archive.log("x")
        assert [e.kind for e in archive.events()] == ["campaign.created", "x"]


READ_ONLY = """
    import os, resource, sys
    from nngen.cli import run
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # as on a full disk, no file may grow
    code = run(["campaign", "ls", "--json", "--archive", sys.argv[1]])
    os._exit(code)
"""


@pytest.mark.long
@pytest.mark.parametrize("left", [False, True], ids=["closed", "of a killed driver"])
def test_a_command_that_only_reads_needs_no_room_on_the_disk(path, left):
    if left:
        with Archive.open(path) as archive:
            archive.add_campaign(fake_record("two"), PLANS)
            (path.parent / "copy").mkdir()
            for name in ("a.db", "a.db-wal"):
                shutil.copy(path.with_name(name), path.parent / "copy" / name)
        path = path.parent / "copy" / "a.db"
    child = run_child(READ_ONLY, path)
    out, _ = child.communicate()
    assert child.returncode == 0
    assert [row["campaign"] for row in json.loads(out)] == ["one", "two"][: 1 + left]


@pytest.mark.parametrize("accuracy", [7.5, -0.1, float("inf")])
def test_an_accuracy_outside_of_its_range_is_refused(path, accuracy):
    with Archive.open(path) as archive:
        archive.start_trial(1)
        with pytest.raises(sqlite3.IntegrityError, match="between 0 and 1"):
            archive._db.execute(
                "UPDATE trials SET state = 'done', outcome = 'valid', validation_accuracy = ? WHERE id = 1", [accuracy]
            )
        with pytest.raises(sqlite3.IntegrityError, match="between 0 and 1"):
            archive._db.execute("INSERT INTO reveals VALUES (1, ?, 'now')", [accuracy])
        assert archive.trial(1).state is TrialState.RUNNING
