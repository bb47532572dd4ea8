"""Watches one job from outside: its frames, its memory, the judge's clock; and sees it to its end."""

from __future__ import annotations

import enum
import os
import select
import selectors
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psutil

from nngen.isolation.launcher import Pipes
from nngen.isolation.limits import MAX_PROCESSES, Limits
from nngen.isolation.protocol import Frame, FrameError, FrameReader
from nngen.isolation.supervisor import BORN, ENDED

__all__ = ["End", "Ending", "watch"]

_CHUNK = 1 << 20
_KEPT_OUTPUT = 16_384
_LOOK_S = 0.1
_LOOK_SHARE = 0.1
_GRACE_S = 0.8
_DYING_S = 0.5
_MIB = 2**20


class End(enum.Enum):
    """Why a job ended."""

    EXIT = enum.auto()
    DONE = enum.auto()
    WALL = enum.auto()
    MEMORY = enum.auto()
    PROCESSES = enum.auto()
    PROTOCOL = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a job ended.

    Attributes:
        status: The worker's wait status; None where its nanny could not tell.
        seconds: From launch until nothing of it was left.
        peak_mib: Largest resident memory seen over the process tree.
        output: The last bytes of what it printed.
        error: What was wrong with its frames; empty unless ``end`` is ``PROTOCOL``.
    """

    end: End
    status: int | None
    seconds: float
    peak_mib: float
    output: bytes
    error: str = ""


def watch(pipes: Pipes, limits: Limits, reader: FrameReader, take: Callable[[Frame, float], bool]) -> Ending:
    """Follow a job until nothing of it is left; whatever happens here, it is killed.

    Args:
        pipes: The judge's ends; closed here.
        limits: Beyond them the job is ended.
        reader: Knows how long each frame must be.
        take: Called with each frame and the seconds since the start; true ends the job, for all is said.
            What it raises goes on to the caller, but ``FrameError`` ends the job.
    """
    watcher = _Watcher(pipes, limits, reader, take)
    try:
        return watcher.run()
    finally:
        watcher.end_all()
        pipes.close()


class _Watcher:
    def __init__(self, pipes: Pipes, limits: Limits, reader: FrameReader, take: Callable[[Frame, float], bool]) -> None:
        self._pipes = pipes
        self._limits = limits
        self._reader = reader
        self._take = take
        self._start = time.monotonic()
        self._next_look = self._start
        self._killed_at: float | None = None
        self._end = End.EXIT
        self._error = ""
        self._words = b""
        self._output = bytearray()
        self._peak = 0.0
        self._family: dict[int, psutil.Process] = {}
        self._gone = False

    def run(self) -> Ending:
        """Loop until the status pipe ends."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._pipes.status, selectors.EVENT_READ, self._hear_status)
            selector.register(self._pipes.result, selectors.EVENT_READ, self._hear_result)
            selector.register(self._pipes.output, selectors.EVENT_READ, self._hear_output)
            while not self._gone:
                for key, _ in selector.select(self._patience()):
                    if not key.data():
                        selector.unregister(key.fd)
                self._look()
        self._drain()
        status = self._words[BORN.size :]
        return Ending(
            end=self._end,
            status=ENDED.unpack(status)[0] if len(status) == ENDED.size else None,
            seconds=time.monotonic() - self._start,
            peak_mib=self._peak,
            output=bytes(self._output),
            error=self._error,
        )

    def end_all(self) -> None:
        """Kill what may be left, for a nanny that was itself stopped or killed."""
        self._pipes.kill()
        if self._gone and len(self._words) == BORN.size + ENDED.size:
            return
        with suppress(psutil.Error):
            self._meet()
        for process in self._family.values():
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(self._family.values(), timeout=_DYING_S)
        # The kernel kills a worker whose nanny is gone; nobody may have met it, but it holds its pipe until it ends.
        ends = select.poll()
        ends.register(self._pipes.result, 0)
        ends.poll(1000 * _DYING_S)

    def _patience(self) -> float:
        now = time.monotonic()
        limit = self._start + self._limits.time_limit_s if self._killed_at is None else self._killed_at + _GRACE_S
        return max(0.0, min(limit, self._next_look) - now)

    def _hear_status(self) -> bool:
        data = os.read(self._pipes.status, 64)
        self._words += data
        self._gone = not data
        return bool(data)

    def _hear_result(self) -> bool:
        data = os.read(self._pipes.result, _CHUNK)
        if self._killed_at is not None:
            return bool(data)
        if not self._peak:
            # What is done before the second look is looked at once, while it is still there.
            self._peak = self._resident()
        try:
            for frame in self._reader.feed(data):
                if self._take(frame, time.monotonic() - self._start):
                    self._kill(End.DONE)
                    return False
        except FrameError as error:
            self._error = str(error)
            self._kill(End.PROTOCOL)
        return bool(data)

    def _hear_output(self) -> bool:
        data = os.read(self._pipes.output, _CHUNK)
        self._output += data[-_KEPT_OUTPUT:]
        del self._output[:-_KEPT_OUTPUT]
        return bool(data)

    def _look(self) -> None:
        """Hold the clock and the memory against the limits."""
        now = time.monotonic()
        if self._killed_at is not None:
            if now > self._killed_at + _GRACE_S:
                # The nanny does not answer: a candidate stopped or killed it.
                self.end_all()
                self._gone = True
            return
        if now >= self._start + self._limits.time_limit_s:
            self._kill(End.WALL)
        elif now >= self._next_look:
            resident = self._resident()
            # On a machine with thousands of processes a look takes long; it shall not eat a core.
            taken = time.monotonic() - now
            self._next_look = now + max(_LOOK_S, taken / _LOOK_SHARE)
            self._peak = max(self._peak, resident)
            if resident > self._limits.memory_mib:
                self._kill(End.MEMORY)
            elif len(self._family) > MAX_PROCESSES:
                self._kill(End.PROCESSES)

    def _kill(self, end: End) -> None:
        self._end = end
        self._killed_at = time.monotonic()
        self._pipes.kill()

    def _meet(self) -> None:
        """Remember every process of the job, the nanny first."""
        if len(self._words) < BORN.size:
            return
        nanny = self._pipes.find(BORN.unpack(self._words[: BORN.size])[0])
        for process in (nanny, *nanny.children(recursive=True)):
            self._family.setdefault(process.pid, process)

    def _resident(self) -> float:
        """Resident memory of all of the job's processes but the nanny, in MiB."""
        with suppress(psutil.Error):
            self._meet()
        total = 0
        for process in list(self._family.values())[1:]:
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                del self._family[process.pid]
        return total / _MIB

    def _drain(self) -> None:
        """Take what was written before the end and not read yet."""
        for descriptor, hear in ((self._pipes.result, self._hear_result), (self._pipes.output, self._hear_output)):
            os.set_blocking(descriptor, False)
            with suppress(BlockingIOError):
                while hear():
                    pass
