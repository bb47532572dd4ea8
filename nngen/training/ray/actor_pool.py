"""The slots that this driver holds in the cluster: started as they are needed, replaced when they are lost."""

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
from nngen.training.ray.actor import Facts, Refusal, Slot
from nngen.training.ray.cluster import Request, difference, reason_of

__all__ = ["Held", "Pool"]

_TURN_S = 0.1
_ANSWER_S = 10.0
_PATIENCE_S = 600.0
_MOST_FAILED_STARTS = 5


@dataclass(eq=False, slots=True)
class Held:
    """A slot as the driver knows it.

    Attributes:
        actor: Ray's handle.
        hello: Reference to its first words.
        host: Where it is; empty until it has said so.
    """

    actor: Any
    hello: Any
    host: str = ""


class Pool:
    """Lends slots, each to one thread at a time.

    A slot that Ray cannot place yet is no one's: a thread that waits takes whichever slot is free first. So
    a cluster that has become smaller goes on with what it has.
    """

    def __init__(
        self, request: Request, most: Callable[[], int], patience_s: float = _PATIENCE_S, *, compiled: bool = False
    ) -> None:
        """Hold nothing yet.

        Args:
            request: What each slot takes.
            most: How many slots there may be now.
            patience_s: How long no slot may be alive before waiting for one is given up.
            compiled: Whether slots compile nets before they train them.
        """
        self._request = request
        self._most = most
        self._patience_s = patience_s
        self._compiled = compiled
        self._change = threading.Condition()
        self._idle: list[Held] = []
        self._lent: list[Held] = []
        self._starting: list[Held] = []
        self._tickets: list[object] = []
        self._failed_starts = 0
        self._alone_since = 0.0
        self._closed = False

    def take(self) -> Held:
        """Wait for a free slot that answers.

        Raises:
            EngineLostError: If the pool is closed.
            NngenError: If slots cannot be started, or there was no room for one for too long.
        """
        ticket = object()
        with self._change:
            self._tickets.append(ticket)
        try:
            while True:
                held = self._next(ticket)
                if held is None:
                    self._wait()
                elif _answers(held):
                    return held
                else:
                    self.drop(held)
        finally:
            with self._change:
                self._tickets.remove(ticket)
                self._change.notify_all()

    def give(self, held: Held) -> None:
        """Give a slot back that is as good as before."""
        with self._change:
            if held in self._lent:
                self._lent.remove(held)
                self._idle.append(held)
            self._alone_since = time.monotonic()
            self._change.notify_all()

    def drop(self, held: Held) -> None:
        """Give a slot up: it is lost, or what it does is not wanted any more."""
        _end(held)
        with self._change:
            if held in self._lent:
                self._lent.remove(held)
            self._alone_since = time.monotonic()
            self._change.notify_all()

    def close(self) -> None:
        """End all slots, and wait a little until nobody uses one."""
        with self._change:
            self._closed = True
            for held in (*self._idle, *self._lent, *self._starting):
                _end(held)
            self._idle.clear()
            self._starting.clear()
            self._change.notify_all()
            self._change.wait_for(lambda: not self._lent and not self._tickets, timeout=_ANSWER_S)

    def _next(self, ticket: object) -> Held | None:
        """Take a free slot if there is one and nobody waited longer; else see that enough of them are starting."""
        most = self._most()
        with self._change:
            if self._closed:
                raise EngineLostError("the engine was closed")
            if self._idle and self._tickets.index(ticket) < len(self._idle):
                held = self._idle.pop()
                self._lent.append(held)
                return held
            there = len(self._lent) + len(self._idle) + len(self._starting)
            if there < most and len(self._starting) + len(self._idle) < len(self._tickets):
                if not there:
                    self._alone_since = time.monotonic()
                self._starting.append(self._start())
            return None

    def _start(self) -> Held:
        options = {**self._request.options(), "max_restarts": 0, "max_task_retries": 0}
        actor = ray.remote(Slot).options(**options, scheduling_strategy="SPREAD").remote(compiled=self._compiled)
        return Held(actor=actor, hello=actor.hello.remote())

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
        if starting:
            ready, _ = ray.wait([held.hello for held in starting], timeout=_TURN_S)
            for held in starting:
                if held.hello in ready:
                    self._arrived(held)

    def _arrived(self, held: Held) -> None:
        """Take in a slot that has said where it is; what it said is here, so nobody waits for the lock."""
        with self._change:
            if held not in self._starting:
                return
            self._starting.remove(held)
            fault = self._fault(held)
            if held.host:
                self._idle.append(held)
                self._change.notify_all()
                return
        _end(held)
        if fault is not None:
            raise fault

    def _fault(self, held: Held) -> NngenError | None:
        """Read a slot's first words; return what ends the work, None where another start may do."""
        try:
            facts: Facts | Refusal = ray.get(held.hello)
        except RayError as error:
            # A node may go away while a slot starts there; one that can never start must not be tried for ever.
            self._failed_starts += 1
            if self._failed_starts < _MOST_FAILED_STARTS:
                return None
            return NngenError(f"no slot can be started in the Ray cluster: {reason_of(error)}")
        if isinstance(facts, Refusal):
            return facts.kind(facts.message)
        if differs := difference(facts.host, facts.nngen, facts.python):
            return NngenError(differs)
        held.host = facts.host
        self._failed_starts = 0
        return None


def _answers(held: Held) -> bool:
    try:
        ray.get(held.actor.ping.remote(), timeout=_ANSWER_S)
    except RayError:
        return False
    return True


def _end(held: Held) -> None:
    with suppress(RayError):
        ray.kill(held.actor)
