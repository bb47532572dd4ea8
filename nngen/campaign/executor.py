"""Threads that wait for the engine, so that the driver's thread alone decides and writes.

What is to be done for one trial is a generator (``nngen.campaign.steps``). It runs in the driver's
thread, may touch the archive, and yields each ``Job`` that takes long; the job is done in a thread of
its own, and its result is sent back into the generator.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

__all__ = ["Crew", "Job", "Steps"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Work that waits for the engine.

    Attributes:
        work: Called in another thread, so it touches neither the archive nor the watcher.
        training: Whether it takes one of the engine's slots.
    """

    work: Callable[[], object]
    training: bool


Steps: TypeAlias = Generator[Job, Any, None]


class Crew:
    """Carries out the jobs of several trials at once, at most ``slots()`` trainings among them.

    Attributes:
        open: Trials that are begun and not at their end.
        busy: Jobs that a thread works on.
        held: While set, no training begins; what trains goes on.
    """

    def __init__(self, slots: Callable[[], int]) -> None:
        self.open = self.busy = 0
        self.held = False
        self._slots = slots
        self._training = 0
        self._waiting: deque[tuple[Steps, Job]] = deque()
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def begin(self, steps: Steps) -> None:
        """Begin a trial: its steps run until the first job."""
        self.open += 1
        self._go_on(steps, partial(next, steps))

    def tell(self, call: Callable[[], None]) -> None:
        """Have the driver's thread call this; for the threads of jobs."""
        self._calls.put(call)

    def turn(self, patience_s: float) -> None:
        """Wait for something to come back, and go on with its trial; errors of its steps are raised here."""
        self._start_waiting()
        try:
            call = self._calls.get(timeout=patience_s)
        except Empty:
            return
        call()

    def _go_on(self, steps: Steps, resume: Callable[[], Job]) -> None:
        try:
            job = resume()
        except StopIteration:
            self.open -= 1
            return
        if job.training:
            self._waiting.append((steps, job))
            self._start_waiting()
        else:
            self._start(steps, job)

    def _start_waiting(self) -> None:
        while self._waiting and not self.held and self._training < self._slots():
            self._start(*self._waiting.popleft())

    def _start(self, steps: Steps, job: Job) -> None:
        self.busy += 1
        self._training += job.training
        # A daemon: a driver that is told to end at once does not wait for what trains.
        threading.Thread(target=self._work, args=(steps, job), daemon=True).start()

    def _work(self, steps: Steps, job: Job) -> None:
        resume: Callable[[], Job]
        try:
            resume = partial(steps.send, job.work())
        except BaseException as error:  # not swallowed: raised again in the driver's thread, inside the steps
            resume = partial(steps.throw, error)
        self._calls.put(partial(self._came_back, steps, job, resume))

    def _came_back(self, steps: Steps, job: Job, resume: Callable[[], Job]) -> None:
        self.busy -= 1
        self._training -= job.training
        # The slot is filled before the result is written: the engine does not wait for the disk.
        self._start_waiting()
        self._go_on(steps, resume)
