"""The monitor with a clock that the test sets and a supervisor's reports that the test writes."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from living import lives

from nngen.isolation import ExitReason, Job, JobResult, Limits, monitor
from nngen.isolation.launcher import Pipes
from nngen.isolation.monitor import Monitor

LIMITS = Limits(time_limit_s=10.0, memory_mib=100)


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(monitor, "time", clock)
    return clock


@pytest.fixture
def far():
    """Other ends of the pipes, which the test writes to: control socket, results, output."""
    return []


@pytest.fixture
def taken():
    return []


@pytest.fixture
def watch(clock, far, taken):
    """A monitor of a job that started at 100, and which holds no memory."""
    pipes, ends = Pipes.open()
    far += [socket.socket(fileno=ends[0]), *ends[1:]]

    def take(frame, seconds):
        taken.append((frame.message(), seconds))
        return frame.message().get("last", False)

    watch = Monitor(pipes, Job(entry_point="m:f", arguments={}, limits=LIMITS), take)
    watch._start = 100.0
    watch._memory_mib = lambda: 0.0
    yield watch
    pipes.close()
    far[0].close()
    for end in far[1:]:
        os.close(end)


def frame(**message):
    body = json.dumps(message).encode()
    return struct.pack("<B3xI", 1, len(body)) + body


def end(far, *reports):
    """Send reports, then end the control socket as the kernel does with the supervisor."""
    for report in reports:
        far[0].send(report)
    far[0].shutdown(socket.SHUT_WR)


def test_the_monitor_sleeps_until_the_next_measurement_or_the_limit(watch, clock):
    for now, measurement, seconds in [(100.0, 0.0, 0.0), (100.0, 100.5, 0.5), (104, 500.0, 6.0), (111.0, 500.0, 0.0)]:
        clock.now, watch._next_measurement = now, measurement
        assert watch._patience() == seconds
    clock.now = 104.0
    watch._kill(ExitReason.TIME)
    assert watch._patience() == pytest.approx(0.4)
    clock.now = 104.25
    assert watch._patience() == pytest.approx(0.15)
    clock.now = 105.0
    assert watch._patience() == 0.0


def test_memory_beyond_the_limit_ends_a_job_and_the_peak_is_kept(watch, clock):
    amounts = iter([60.0, 100.0, 40.0, 100.5])
    watch._memory_mib = lambda: next(amounts)
    for now, peak in [(100.0, 60.0), (100.05, 60.0), (100.1, 100.0), (100.25, 100.0)]:
        clock.now = now
        watch._enforce()
        assert (watch._peak, watch._killed_at) == (peak, None)
    clock.now = 101.0
    watch._enforce()
    assert (watch._peak, watch._killed_at, watch._reason) == (100.5, 101.0, ExitReason.MEMORY)


@pytest.mark.parametrize(("takes", "following"), [(0.0, 100.1), (0.005, 100.1), (0.5, 105.0)])
def test_measuring_takes_a_tenth_of_the_time_at_most(takes, following, watch, clock):
    watch._memory_mib = lambda: setattr(clock, "now", clock.now + takes) or 1.0
    watch._enforce()
    assert watch._next_measurement == pytest.approx(following)


def test_more_than_512_processes_end_a_job(watch):
    watch._processes = dict.fromkeys(range(512))
    watch._enforce()
    assert watch._killed_at is None
    watch._next_measurement = 0.0
    watch._processes[512] = None
    watch._enforce()
    assert watch._reason is ExitReason.PROCESSES


def test_a_job_ends_at_its_time_limit_and_is_left_after_the_grace(watch, clock, far):
    clock.now = 109.99
    watch._enforce()
    assert watch._killed_at is None
    clock.now = 110.0
    watch._enforce()
    assert (watch._reason, watch._killed_at, watch._gone) == (ExitReason.TIME, 110.0, False)
    assert far[0].recv(10) == b""
    clock.now = 110.39
    watch._enforce()
    assert not watch._gone
    clock.now = 110.4
    watch._enforce()
    assert watch._gone
    clock.now = 110.1
    watch._enforce()
    assert watch._gone


def test_a_job_that_ends_by_itself(watch, clock, far, taken):
    end(far, b"started", struct.pack("<i", 3 << 8))
    os.write(far[1], frame(a=1) + frame(b=2))
    os.write(far[2], b"x" * 20_000 + b"end")
    watch._memory_mib = lambda: 7.5
    result = watch.run()
    assert taken == [({"a": 1}, 0.0), ({"b": 2}, 0.0)]
    assert result == JobResult(
        reason=ExitReason.EXIT,
        limits=LIMITS,
        status=768,
        seconds=0.0,
        peak_mib=7.5,
        output=b"x" * (16_384 - 3) + b"end",
    )
    assert watch._supervisor == psutil.Process()  # the kernel names the process that sent the report


def test_what_is_written_until_the_end_is_read(watch, clock, far, taken):
    def take(frame, seconds):
        taken.append(frame.message())
        if len(taken) == 1:
            os.write(far[1], message)
            os.write(far[2], b"late")
        clock.now += 2.0
        return False

    message = frame(n=1)
    watch._take = take
    end(far)
    os.write(far[1], message)
    result = watch.run()
    assert taken == [{"n": 1}, {"n": 1}]
    assert (result.output, result.status, result.seconds) == (b"late", None, 4.0)


def test_a_job_of_which_all_is_received_is_ended(watch, far, taken):
    os.write(far[1], frame(a=1) + frame(last=True) + frame(c=3))
    end(far)
    result = watch.run()
    assert [message for message, _ in taken] == [{"a": 1}, {"last": True}]
    assert (result.reason, result.error) == (ExitReason.DONE, "")
    assert far[0].recv(10) == b""
    os.write(far[1], frame(d=4))
    assert watch._read_result()
    assert len(taken) == 2


def test_bytes_that_are_no_frame_end_a_job(watch, far, taken):
    os.write(far[1], frame(a=1) + b"\x05" + b"x" * 20)
    end(far)
    result = watch.run()
    assert taken == [({"a": 1}, 0.0)]
    assert (result.reason, result.error) == (ExitReason.PROTOCOL, "a frame of unknown kind 5")
    assert far[0].recv(10) == b""


def test_other_errors_of_the_taker_are_raised(watch, far):
    def take(*_):
        raise ZeroDivisionError

    watch._take = take
    os.write(far[1], frame(a=1))
    end(far)
    with pytest.raises(ZeroDivisionError):
        watch.run()


def test_a_short_job_is_measured_once_when_it_answers(watch, far):
    amounts = iter([3.0, 4.0])
    watch._memory_mib = lambda: next(amounts)
    for _ in range(2):
        os.write(far[1], frame(a=1))
        assert watch._read_result()
    assert watch._peak == 3.0


def test_memory_is_that_of_all_processes_and_of_the_files_of_a_sandbox(watch, monkeypatch):
    held = {11: 10.0, 12: 20.5}
    monkeypatch.setattr(monitor, "_held_mib", lambda number: held[number] if number in held else os.close(-1))
    watch._processes = {number: SimpleNamespace(pid=number) for number in (11, 12, 13)}
    assert Monitor._memory_mib(watch) == 30.5
    assert sorted(watch._processes) == [11, 12]
    monkeypatch.setattr(monitor, "memory_files_mib", lambda number: {7: 5.0}[number])
    watch._pipes.sandbox = SimpleNamespace(init=None, kill=lambda: None, close=lambda: None)
    assert Monitor._memory_mib(watch) == 30.5
    watch._pipes.sandbox.init = SimpleNamespace(pid=7)
    assert Monitor._memory_mib(watch) == 35.5
    monkeypatch.setattr(monitor, "memory_files_mib", lambda _: os.close(-1))
    assert Monitor._memory_mib(watch) == 30.5


def test_memory_of_a_process_is_resident_swapped_huge_and_of_page_tables(monkeypatch):
    lines = ["Name:\tx", "VmSize:\t 9999 kB", "VmRSS:\t 1024 kB", "VmSwap:\t 512 kB", "VmPTE:\t 256 kB"]
    files = {"/proc/5/status": "\n".join([*lines, "HugetlbPages:\t 2048 kB", "Threads:\t3"])}
    monkeypatch.setattr(Path, "read_text", lambda self: files[str(self)])
    assert monitor._held_mib(5) == (1024 + 512 + 256 + 2048) / 1024


def test_processes_are_found_with_their_parents(watch, monkeypatch):
    me, parent = os.getpid(), os.getppid()
    rows = [(me, parent), (parent, me), (2**22 + 1, 1)]  # mine, one that now has another parent, one that has ended
    asked = []
    table = SimpleNamespace(below=lambda process, *, now: asked.append((process, now)) or iter(rows))
    monkeypatch.setattr(monitor, "_TABLE", table)
    assert watch._find_processes() == []
    watch._supervisor = SimpleNamespace(pid=5)
    first = watch._find_processes()
    assert first == [psutil.Process(me)]
    assert watch._find_processes(now=True)[0] is first[0]
    assert asked == [(5, False), (5, True)]


def test_the_table_of_processes_is_kept_for_a_twentieth_of_a_second(clock, monkeypatch):
    read = []
    children = {1: [2, 3], 2: [4], 4: [5], 9: [1]}
    monkeypatch.setattr(monitor, "_read_table", lambda: read.append(clock.now) or children)
    table = monitor._ProcessTable()
    assert sorted(table.below(1, now=False)) == [(2, 1), (3, 1), (4, 2), (5, 4)]
    assert list(table.below(5, now=False)) == []
    clock.now = 100.0625
    assert list(table.below(4, now=False)) == [(5, 4)]
    clock.now = 100.0625 + 0.04
    list(table.below(4, now=False))
    list(table.below(4, now=True))
    assert read == [100.0, 100.0625, 100.0625 + 0.04]


@pytest.mark.long
@pytest.mark.parametrize("status", [None, 0])
def test_processes_are_killed_where_the_supervisor_did_not_report(status, watch, far, monkeypatch):
    table = monitor._ProcessTable()
    table._read_at = float("inf")  # out of date, but not by its clock
    monkeypatch.setattr(monitor, "_TABLE", table)
    command = ["sh", "-c", "sleep 60 & echo; wait; exec sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0) as supervisor:
        supervisor.stdout.read(1)
        watch._supervisor, watch._status = psutil.Process(supervisor.pid), status
        [child] = watch._supervisor.children()
        os.close(far.pop(1))  # the worker's end of the results
        watch.end_all()
        assert far[0].recv(10) == b""
        assert lives(child) == (status == 0)
        os.killpg(supervisor.pid, 9) if status == 0 else None
        assert supervisor.wait() == -9
