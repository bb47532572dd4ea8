"""The monitor: follows one job from outside, enforces its limits, and sees it to its end."""

from __future__ import annotations

import math
import os
import select
import selectors
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from nngen.isolation.bubblewrap import memory_files_mib
from nngen.isolation.job import Job
from nngen.isolation.launcher import Pipes, receive
from nngen.isolation.limits import MAX_PROCESSES
from nngen.isolation.protocol import Frame, FrameError, FrameReader
from nngen.isolation.result import ExitReason, JobResult
from nngen.isolation.supervisor import ENDED, STARTED

_HELD = ("VmRSS:", "VmSwap:", "VmPTE:", "HugetlbPages:")
_CHUNK = 1 << 20
_KEPT_OUTPUT = 16_384
_MEASURE_S = 0.1
_MEASURE_SHARE = 0.1
_TABLE_S = 0.05
_GRACE_S = 0.4
_DYING_S = 30.0


class _ProcessTable:
    """Table of the machine's processes, read at most every ``_TABLE_S`` for all jobs of this process together.

    One measurement of each job would read all of it: the time of hundreds of jobs would grow with their square.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_at = -math.inf
        self._children: dict[int, list[int]] = {}

    def below(self, process: int, *, now: bool) -> Iterator[tuple[int, int]]:
        """Yield the processes below one, each with its parent, as they are ``now`` or were a moment ago."""
        with self._lock:
            if now or time.monotonic() >= self._read_at + _TABLE_S:
                self._children = _read_table()
                self._read_at = time.monotonic()
            children = self._children
        waiting = [process]
        while waiting:
            parent = waiting.pop()
            for child in children.get(parent, ()):
                yield child, parent
                waiting.append(child)


_TABLE = _ProcessTable()


def _read_table() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            with suppress(OSError, ValueError, IndexError):
                # Behind the name, which may hold anything: state, parent.
                _, parent, _ = Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split(None, 2)
                children.setdefault(int(parent), []).append(int(entry.name))
    return children


class Monitor:
    """Follows one job until nothing of it is left.

    Args:
        pipes: This process's ends of the job's connections.
        job: The job; its limits are those beyond which it is ended.
        take: Called with each frame and the seconds since the start; returns true to end the job because all is
            received. ``FrameError`` ends the job; any other error does too, and is raised here.
    """

    def __init__(self, pipes: Pipes, job: Job, take: Callable[[Frame, float], bool]) -> None:
        self._pipes = pipes
        self._limits = job.limits
        self._reader = FrameReader(job.frames)
        self._take = take
        self._start = 0.0
        self._next_measurement = 0.0
        self._killed_at: float | None = None
        self._reason = ExitReason.EXIT
        self._error = ""
        self._status: int | None = None
        self._output = bytearray()
        self._peak = 0.0
        self._supervisor: psutil.Process | None = None
        self._processes: dict[int, psutil.Process] = {}
        self._gone = False

    def run(self) -> JobResult:
        """Follow the job until its control socket ends, or until ``_GRACE_S`` after it was killed."""
        pipes = self._pipes
        self._start = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(pipes.control, selectors.EVENT_READ, self._read_report)
            selector.register(pipes.result, selectors.EVENT_READ, self._read_result)
            selector.register(pipes.output, selectors.EVENT_READ, self._read_output)
            while not self._gone:
                for key, _ in selector.select(self._patience()):
                    if not key.data():
                        selector.unregister(key.fileobj)
                self._enforce()
        # What was written before the end and not read yet: at most what fits into a pipe, as somebody may still write.
        for descriptor, read in ((pipes.result, self._read_result), (pipes.output, self._read_output)):
            os.set_blocking(descriptor, False)
            with suppress(BlockingIOError):
                read()
        return JobResult(
            reason=self._reason,
            limits=self._limits,
            status=self._status,
            seconds=time.monotonic() - self._start,
            peak_mib=self._peak,
            output=bytes(self._output),
            error=self._error,
        )

    def end_all(self) -> None:
        """Kill the job and, where its supervisor did not report, each process that was found; wait for their end."""
        self._pipes.kill()
        if self._status is not None:
            return
        for process in (*self._find_processes(now=True), *filter(None, [self._supervisor])):
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(self._processes.values(), timeout=_DYING_S)
        # The kernel kills a worker whose supervisor ended. It may never have been found, but it holds its end of the
        # result pipe until it has ended: POLLHUP, which poll reports without being asked.
        ends = select.poll()
        ends.register(self._pipes.result, 0)
        ends.poll(1000 * _DYING_S)

    def _patience(self) -> float:
        """Return the seconds until something must be done even if no pipe has anything."""
        if self._killed_at is not None:
            return max(0.0, self._killed_at + _GRACE_S - time.monotonic())
        limit = self._start + self._limits.time_limit_s
        return max(0.0, min(limit, self._next_measurement) - time.monotonic())

    # Each of the readers returns whether its pipe may still have something.

    def _read_report(self) -> bool:
        """Read a report of the supervisor: ``STARTED``, then the worker's wait status."""
        data, sender = receive(self._pipes.control, 64)
        if data == STARTED:
            with suppress(psutil.NoSuchProcess):
                self._supervisor = psutil.Process(sender)
        elif data:
            self._status = ENDED.unpack(data)[0]
        self._gone = not data
        return bool(data)

    def _read_result(self) -> bool:
        data = os.read(self._pipes.result, _CHUNK)
        if self._killed_at is not None:
            # Its end is decided: the pipe is emptied only so that no writer is left blocked.
            return bool(data)
        if not self._peak:
            # A job shorter than the time between two measurements is measured once, while it is still there.
            self._peak = self._memory_mib()
        try:
            for frame in self._reader.feed(data):
                if self._take(frame, time.monotonic() - self._start):
                    self._kill(ExitReason.DONE)
                    return False
        except FrameError as error:
            self._error = str(error)
            self._kill(ExitReason.PROTOCOL)
        return bool(data)

    def _read_output(self) -> bool:
        data = os.read(self._pipes.output, _CHUNK)
        self._output += data[-_KEPT_OUTPUT:]
        del self._output[:-_KEPT_OUTPUT]
        return bool(data)

    def _enforce(self) -> None:
        """Compare time and memory with the limits."""
        now = time.monotonic()
        if self._killed_at is not None:
            # After this time the supervisor does not answer: a candidate stopped or killed it.
            self._gone = self._gone or now >= self._killed_at + _GRACE_S
        elif now >= self._start + self._limits.time_limit_s:
            self._kill(ExitReason.TIME)
        elif now >= self._next_measurement:
            memory = self._memory_mib()
            # On a machine with thousands of processes a measurement takes long; it must not keep a core busy.
            taken = time.monotonic() - now
            self._next_measurement = now + max(_MEASURE_S, taken / _MEASURE_SHARE)
            self._peak = max(self._peak, memory)
            if memory > self._limits.memory_mib:
                self._kill(ExitReason.MEMORY)
            elif len(self._processes) > MAX_PROCESSES:
                self._kill(ExitReason.PROCESSES)

    def _kill(self, reason: ExitReason) -> None:
        self._reason = reason
        self._killed_at = time.monotonic()
        self._pipes.kill()

    def _find_processes(self, *, now: bool = False) -> list[psutil.Process]:
        """Return every process of the job that was ever seen, but the supervisor and those that have ended."""
        if self._supervisor is not None:
            for number, parent in _TABLE.below(self._supervisor.pid, now=now):
                if number not in self._processes:
                    with suppress(psutil.Error):
                        process = psutil.Process(number)
                        # Its number may have been given to a process of somebody else since the table was read.
                        if process.ppid() == parent:
                            self._processes[number] = process
        return list(self._processes.values())

    def _memory_mib(self) -> float:
        """Measure the memory of the job's processes together, and in a sandbox of its files, in MiB."""
        total = 0.0
        for process in self._find_processes():
            try:
                total += _held_mib(process.pid)
            except OSError:
                del self._processes[process.pid]
        sandbox = self._pipes.sandbox
        if sandbox is not None and sandbox.init is not None:
            with suppress(OSError):
                total += memory_files_mib(sandbox.init.pid)
        return total


def _held_mib(process: int) -> float:
    """Read the memory that a process holds, in MiB; it is not only what is resident, and huge pages are not.

    Raises:
        OSError: If it has ended.
    """
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(_HELD)) / 1024
