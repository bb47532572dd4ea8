"""The graphics cards of this machine, and their memory, which trainings side by side share by what they will need."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from nngen.isolation import Job, JobRunner, Limits

_LIMITS = Limits(time_limit_s=60.0, memory_mib=12_288)
_SHARE = 0.9  # share of a card's memory that trials side by side may take


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A graphics card."""

    name: str  # name of its kind
    memory_mib: float  # its memory in MiB
    visible: str  # value of ``CUDA_VISIBLE_DEVICES`` with which a process sees this card alone


def visible_cards(count: int) -> list[str]:
    """Return the values of ``CUDA_VISIBLE_DEVICES`` that each show one of the cards that this process would see."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in named.split(",")] if named else []
    return names[:count] if len(names) >= count else [str(number) for number in range(count)]


NO_CARD = Card(name="cpu", memory_mib=math.inf, visible="")
"""What a training on a CPU takes: each worker has its own limit of memory and its own threads."""


class Cards:
    """The cards of this machine, of which each training takes one. Safe to use from several threads at once.

    Args:
        runner: Runs the worker that is asked for the cards, so that this process never touches CUDA.
    """

    def __init__(self, runner: JobRunner) -> None:
        self._runner = runner
        self._lock = threading.Lock()
        self._pool: GpuMemoryPool | None = None

    @cached_property
    def found(self) -> tuple[Card, ...]:
        """All cards; one without a name where the worker sees none."""
        job = Job(entry_point="nngen.training.worker:describe_cards", arguments={}, limits=_LIMITS, cuda=True)
        messages, _ = self._runner.collect(job)
        found = zip(messages, visible_cards(len(messages)), strict=True)
        cards = [
            Card(name=str(card["name"]), memory_mib=float(card["mib"]), visible=visible) for card, visible in found
        ]
        return tuple(cards) or (Card(name="cuda", memory_mib=math.inf, visible=""),)

    @property
    def memory_mib(self) -> float:
        """Memory of the largest card in MiB; infinite where there is none."""
        return max(card.memory_mib for card in self.found)

    @contextmanager
    def hold(self, device: str, need_mib: float | None = 0.0) -> Iterator[Card]:
        """Wait for room on a card and take it in the block; see ``GpuMemoryPool.hold``."""
        if device == "cpu":
            yield NO_CARD
            return
        with self._lock:
            self._pool = self._pool or GpuMemoryPool(_SHARE * card.memory_mib for card in self.found)
        with self._pool.hold(need_mib) as place:
            yield self.found[place]


class GpuMemoryPool:
    """Memory of this machine's cards, shared by trainings: each waits until a card has what it will likely take."""

    def __init__(self, limits_mib: Iterable[float]) -> None:
        self._limits = tuple(limits_mib)
        self._taken: list[list[float]] = [[] for _ in self._limits]
        self._change = threading.Condition()

    @contextmanager
    def hold(self, need_mib: float | None) -> Iterator[int]:
        """Wait for memory and reserve it in the block; an unknown need reserves a whole card.

        Yields:
            Place of the card: of those with room, the one with the fewest trainings.
        """
        # A training expected to exceed every card is admitted alone: the expectation is not a lower bound.
        needs = [limit if need_mib is None else min(need_mib, max(self._limits)) for limit in self._limits]

        def free() -> list[int]:
            cards = range(len(needs))
            return [card for card in cards if sum(self._taken[card]) + needs[card] <= self._limits[card]]

        with self._change:
            # The first of several waiting trainings that fits goes on: a large one may wait behind small ones.
            self._change.wait_for(free)
            card = min(free(), key=lambda place: len(self._taken[place]))
            self._taken[card].append(needs[card])
        try:
            yield card
        finally:
            with self._change:
                self._taken[card].remove(needs[card])
                self._change.notify_all()
