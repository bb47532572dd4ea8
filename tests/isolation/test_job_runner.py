"""Job runner: any function of any module, its messages, its exit, and no process left."""

import errno
import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import psutil
import pytest
from descriptors import open_descriptors

from nngen.errors import NngenError, UsageError
from nngen.isolation import ExitReason, Job, JobRunner, Limits, monitor
from nngen.isolation.launcher import Pipes

table = monitor._read_table
LIMITS = Limits(time_limit_s=20.0, memory_mib=500)
ENTRIES = """
import os, time
from pathlib import Path

def answer(arguments, channel, files):
    channel.send({"doubled": 2 * arguments["number"], "source": Path("candidate.py").read_text()})
    channel.send({"files": [os.read(file, 100).decode() for file in files], "cwd": os.listdir(".")})
    print("done", flush=True)
    time.sleep(0.5)  # time enough to be measured

def fail(arguments, channel, files):
    raise LookupError("not found")

def flood(arguments, channel, files):
    while True:
        channel.send({})

def repeat(arguments, channel, files):
    for number in range(arguments["times"]):
        channel.send({"number": number})

def copy(arguments, channel, files):
    channel.send({"read": [os.read(file, 100).decode() for file in files], "end": os.read(files[0], 1).decode()})

def cards(arguments, channel, files):
    channel.send({"cards": os.environ.get("CUDA_VISIBLE_DEVICES", "all")})

def sleep(arguments, channel, files):
    channel.send({})
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modules")
    (folder / "entries.py").write_text(ENTRIES)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        with JobRunner(preload=("entries",)) as runner:
            runner.versions()
            yield runner


def job(function, **changes):
    return Job(**{"entry_point": f"entries:{function}", "arguments": {}, "limits": LIMITS, **changes})


def test_a_function_is_called_with_arguments_source_and_files(runner, tmp_path):
    (tmp_path / "data").write_text("content")
    asked = job("answer", arguments={"number": 4}, source="x = 1\n", files=[tmp_path / "data"])
    messages, result = runner.collect(asked)
    assert messages == (
        {"doubled": 8, "source": "x = 1\n"},
        {"files": ["content"], "cwd": ["candidate.py"]},
    )
    assert result.completed
    assert result.output == b"done\n"
    assert 0 < result.peak_mib < 500


@pytest.mark.parametrize(
    ("changes", "seen"), [({}, ""), ({"card": "GPU-b"}, ""), ({"cuda": True, "card": "GPU-b"}, "GPU-b")]
)
def test_a_worker_sees_no_card_or_the_one_of_its_job(changes, seen, runner):
    messages, _ = runner.collect(job("cards", **changes))
    assert messages == ({"cards": seen},)


@pytest.mark.parametrize(
    ("function", "limits", "reason", "text"),
    [
        ("fail", LIMITS, ExitReason.EXIT, "exit code 1 before it had finished (its last line: LookupError: not found)"),
        ("missing", LIMITS, ExitReason.EXIT, "AttributeError"),
        ("sleep", Limits(time_limit_s=0.3, memory_mib=500), ExitReason.TIME, "ran longer than 0.3 s"),
        ("sleep", Limits(time_limit_s=20, memory_mib=1), ExitReason.MEMORY, "more than the limit of 1 MiB"),
        ("flood", LIMITS, ExitReason.PROTOCOL, "more than 1,000 messages"),
    ],
)
def test_a_job_that_does_not_complete_is_described(runner, function, limits, reason, text):
    _, result = runner.collect(job(function, limits=limits))
    assert result.reason is reason
    assert not result.completed
    assert text in result.describe()


@pytest.mark.parametrize(("times", "reason"), [(1000, ExitReason.EXIT), (1001, ExitReason.PROTOCOL)])
def test_a_job_may_send_1000_messages(times, reason, runner):
    messages, result = runner.collect(job("repeat", arguments={"times": times}))
    assert messages == tuple({"number": number} for number in range(1000))
    assert result.reason is reason


@pytest.mark.long
def test_inputs_come_before_files_and_end_when_their_writer_does(runner, tmp_path):
    (tmp_path / "data").write_text("from a file")
    reader, writer = os.pipe()
    os.write(writer, b"from a pipe")
    os.close(writer)
    opened = open_descriptors()
    messages, result = runner.collect(job("copy", inputs=[reader], files=[tmp_path / "data"]))
    assert messages == ({"read": ["from a pipe", "from a file"], "end": ""},)
    assert result.completed
    assert open_descriptors() <= opened
    os.close(reader)


@pytest.mark.long
def test_a_runner_leaves_no_folder_no_descriptor_and_no_process(tmp_path, monkeypatch):
    (tmp_path / "entries.py").write_text(ENTRIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    opened, before = open_descriptors(), psutil.Process().children()
    with JobRunner(preload=("entries",)) as runner:
        for times in (1, 2):
            messages, result = runner.collect(job("repeat", arguments={"times": times}))
            assert (len(messages), result.completed) == (times, True)
            [scratch] = tmp_path.glob("nngen-scratch-*")
            assert list(scratch.iterdir()) == []
        deadline = time.monotonic() + 20
        while runner._running and time.monotonic() < deadline:
            time.sleep(0.01)
        assert runner._running == set()
        [server] = [child for child in psutil.Process().children() if child not in before]
        server.kill()
        server.wait()
        assert runner.collect(job("repeat", arguments={"times": 3}))[1].completed
    assert list(tmp_path.glob("nngen-scratch-*")) == []
    assert open_descriptors() <= opened
    assert set(psutil.Process().children()) <= set(before)
    # What begins when it is closed ends at once.
    _, result = runner.collect(job("sleep"))
    assert (result.completed, result.reason) == (False, ExitReason.EXIT)
    runner.close()
    assert set(psutil.Process().children()) <= set(before)


def test_arguments_that_are_too_long_are_refused(runner):
    with pytest.raises(UsageError, match="at most 65,536 are allowed"):
        runner.collect(job("answer", arguments={"number": "x" * 70_000}))


@pytest.mark.long
def test_a_result_does_not_wait_until_the_kernel_has_freed_the_memory(runner, monkeypatch):
    close, closed, release = Pipes.close, threading.Event(), threading.Event()

    def slow(pipes: Pipes) -> None:
        release.wait(60)
        close(pipes)
        closed.set()

    monkeypatch.setattr(Pipes, "close", slow)
    _, result = runner.collect(job("sleep", limits=Limits(time_limit_s=0.5, memory_mib=500)))
    assert result.reason is ExitReason.TIME
    assert not closed.is_set()
    release.set()
    assert closed.wait(10)


def test_closing_ends_what_runs_in_other_threads(tmp_path, monkeypatch):
    (tmp_path / "entries.py").write_text(ENTRIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    runner = JobRunner(preload=("entries",))
    with ThreadPoolExecutor(1) as pool:
        began = []
        work = pool.submit(runner.run, job("sleep"), lambda *_: bool(began.append(1)))
        deadline = time.monotonic() + 20
        while not began and time.monotonic() < deadline:
            time.sleep(0.01)
        runner.close()
        result = work.result(timeout=5)
    assert began == [1]
    assert result.seconds < 20


@pytest.mark.long
def test_a_worker_that_cannot_be_started_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def refuse():
        raise OSError(errno.EMFILE, "Too many open files")

    with JobRunner(preload=("time",)) as runner:
        runner.collect(job("answer"))
        opened = open_descriptors()
        with (
            monkeypatch.context() as patch,
            pytest.raises(NngenError, match=r"cannot be started: Too many open files$"),
        ):
            patch.setattr(os, "pipe", refuse)
            runner.collect(job("answer"))
        with pytest.raises(NngenError, match=r"cannot be started: No such file or directory \(.*/missing\)$"):
            runner.collect(job("answer", files=[tmp_path / "missing"]))
        assert [list(folder.iterdir()) for folder in tmp_path.iterdir()] == [[]]
        assert open_descriptors() <= opened
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with JobRunner(preload=("time",)) as runner, pytest.raises(NngenError, match="cannot be started: No such file"):
        runner.collect(job("answer"))


def test_preloaded_packages_have_versions():
    with JobRunner(preload=("psutil", "struct")) as runner:
        assert set(runner.versions()) == {"python", "psutil"}


@pytest.mark.parametrize("kills", [1, 9])
def test_a_server_that_is_killed_while_it_starts_is_started_again(kills, tmp_path, monkeypatch):
    mark = tmp_path / "killed"
    mark.write_text("")
    (tmp_path / "mortal.py").write_text(
        f"import os\nif len(open({str(mark)!r}).read()) < {kills}:\n"
        f"    print('x', end='', file=open({str(mark)!r}, 'a'), flush=True)\n    os.kill(os.getpid(), 9)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with JobRunner(preload=("mortal",)) as mortal:
        if kills == 1:
            assert mortal.versions()
        else:
            with pytest.raises(NngenError, match=r"cannot start: it was killed \(SIGKILL\)"):
                mortal.versions()
    assert len(mark.read_text()) == min(kills, 3)


@pytest.mark.long
def test_the_process_table_is_read_once_for_all_jobs(runner, monkeypatch):
    """At hundreds of jobs it is long, and each job is measured ten times a second."""
    read = []
    monkeypatch.setattr(monitor, "_read_table", lambda: read.append(time.monotonic()) or table())
    sleeping = job("sleep", limits=Limits(time_limit_s=1.0, memory_mib=500))
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda _: runner.run(sleeping, lambda *_: False), range(8)))
    assert {result.reason for result in results} == {ExitReason.TIME}
    assert all(result.peak_mib > 0 for result in results)
    assert all(later - earlier >= 0.05 for earlier, later in pairwise(read))


def test_the_process_table_has_the_children_of_every_process(runner):
    assert os.getpid() in table()[os.getppid()]
