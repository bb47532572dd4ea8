"""The pool of this driver's actors in the cluster: started as they are needed, replaced when they are lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from nngen.errors import EngineLostError, NngenError
from nngen.training.ray.actor import NodeFacts, TrialActor
from nngen.training.ray.cluster import Request, difference, local_error, reason_of

_TURN_S = 0.1
_ANSWER_S = 10.0
_PATIENCE_S = 600.0
_MOST_FAILED_STARTS = 5


@dataclass(eq=False, slots=True)
class ActorHandle:
    """An actor as the driver knows it."""

    actor: Any  # Ray's handle of it
    facts: Any  # reference to its description of the node
    host: str = ""  # name of the node; empty until the description has arrived


class ActorPool:
    """Lends actors, each to one thread at a time.

    An actor that Ray cannot place yet belongs to no thread: a thread that waits takes whichever actor is free first.
    So a cluster that has become smaller goes on with what it has.

    Args:
        request: Resources of each actor.
        most: Returns the largest number of actors now.
        patience_s: Seconds without any living actor after which waiting ends with an error.
        compiled: Whether actors compile nets before they train them.
    """

    def __init__(
        self, request: Request, most: Callable[[], int], patience_s: float = _PATIENCE_S, *, compiled: bool = False
    ) -> None:
        self._request = request
        self._most = most
        self._patience_s = patience_s
        self._compiled = compiled
        self._change = threading.Condition()
        self._idle: list[ActorHandle] = []
        self._lent: list[ActorHandle] = []
        self._starting: list[ActorHandle] = []
        self._tickets: list[object] = []
        self._failed_starts = 0
        self._alone_since = 0.0
        self._closed = False

    def take(self) -> ActorHandle:
        """Wait for a free actor that answers.

        Raises:
            EngineLostError: If the pool is closed.
            NngenError: If actors cannot be started, or there was no room for one for too long.
        """
        # Tickets keep the order of the threads that wait: who waits longest gets the next free actor.
        ticket = object()
        with self._change:
            self._tickets.append(ticket)
        try:
            while True:
                handle = self._next(ticket)
                if handle is None:
                    self._wait()
                elif _answers(handle):
                    return handle
                else:
                    self.drop(handle)
        finally:
            with self._change:
                self._tickets.remove(ticket)
                self._change.notify_all()

    def give(self, handle: ActorHandle) -> None:
        """Return an actor that can be used again."""
        with self._change:
            if handle in self._lent:
                self._lent.remove(handle)
                self._idle.append(handle)
            self._alone_since = time.monotonic()
            self._change.notify_all()

    def drop(self, handle: ActorHandle) -> None:
        """End an actor: it is lost, or its result is not wanted any more."""
        _end(handle)
        with self._change:
            if handle in self._lent:
                self._lent.remove(handle)
            self._alone_since = time.monotonic()
            self._change.notify_all()

    def close(self) -> None:
        """End all actors, and wait a little until no thread uses one."""
        with self._change:
            self._closed = True
            for handle in (*self._idle, *self._lent, *self._starting):
                _end(handle)
            self._idle.clear()
            self._starting.clear()
            self._change.notify_all()
            self._change.wait_for(lambda: not self._lent and not self._tickets, timeout=_ANSWER_S)

    def _next(self, ticket: object) -> ActorHandle | None:
        """Take a free actor unless other threads have waited longer; else see that enough of them are starting."""
        # Before the lock is taken: this may ask Ray, and a call to another process takes time.
        most = self._most()
        with self._change:
            if self._closed:
                raise EngineLostError("the engine was closed")
            if self._idle and self._tickets.index(ticket) < len(self._idle):
                handle = self._idle.pop()
                self._lent.append(handle)
                return handle
            there = len(self._lent) + len(self._idle) + len(self._starting)
            if there < most and len(self._starting) + len(self._idle) < len(self._tickets):
                if not there:
                    self._alone_since = time.monotonic()
                self._starting.append(self._start())
            return None

    def _start(self) -> ActorHandle:
        # Never restarted by Ray: the pool replaces actors, and the caller decides whether a job is tried again.
        options = {**self._request.options(), "max_restarts": 0, "max_task_retries": 0}
        actor = ray.remote(TrialActor).options(**options, scheduling_strategy="SPREAD").remote(compiled=self._compiled)
        return ActorHandle(actor=actor, facts=actor.describe.remote())

    def _wait(self) -> None:
        with self._change:
            starting = list(self._starting)
            if not starting:
                self._change.wait(_TURN_S)
            elif not self._lent and not self._idle and time.monotonic() - self._alone_since > self._patience_s:
                raise NngenError(
                    f"no node of the Ray cluster had room for a trial with {self._request}"
                    f" for {self._patience_s:.0f} s: the same command goes on when one has"
                )
        # In short turns and without the lock, so that other threads can return actors meanwhile.
        if starting:
            ready, _ = ray.wait([handle.facts for handle in starting], timeout=_TURN_S)
            for handle in starting:
                if handle.facts in ready:
                    self._arrived(handle)

    def _arrived(self, handle: ActorHandle) -> None:
        """Add an actor that described its node; raise an error that no other start would avoid."""
        # The description has arrived, so no thread waits for the lock long.
        with self._change:
            if handle not in self._starting:
                return
            self._starting.remove(handle)
            try:
                facts: NodeFacts = ray.get(handle.facts)
            except RayError as error:
                # A node may go away while an actor starts there; one that can never start must not be tried for ever.
                self._failed_starts += 1
                fault = local_error(error)
                if fault is None and self._failed_starts >= _MOST_FAILED_STARTS:
                    fault = NngenError(f"no actor can be started in the Ray cluster: {reason_of(error)}")
            else:
                differs = difference(facts.host, facts.nngen, facts.python)
                if differs is None:
                    self._failed_starts = 0
                    handle.host = facts.host
                    self._idle.append(handle)
                    self._change.notify_all()
                    return
                fault = NngenError(differs)
        _end(handle)
        if fault is not None:
            raise fault


def _answers(handle: ActorHandle) -> bool:
    try:
        # An idle actor may have gone with its node, which Ray reports to whoever calls it.
        ray.get(handle.actor.ping.remote(), timeout=_ANSWER_S)
    except RayError:
        return False
    return True


def _end(handle: ActorHandle) -> None:
    with suppress(RayError):
        ray.kill(handle.actor)
