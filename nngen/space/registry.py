"""Registry of samplers: protocols of fixed and learning samplers, and the table that help texts are made from.

A sampler is added by an entry in ``SAMPLERS``, beside its class or function: a fixed order is a class with
``stream`` (``nngen.space.samplers``), a sampler that learns from results is a function like
``nngen.space.adaptive.ask``. A new module must be imported by ``nngen.space``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from nngen.errors import UsageError
from nngen.space.pool import Pool, Quartet
from nngen.text import did_you_mean

Belief: TypeAlias = tuple[float, float]
"""Mean and standard error of an effect."""


class Sampler(Protocol):
    """A fixed order of a pool's quartets."""

    def stream(self, start: int = 0) -> Iterator[tuple[int, Quartet]]:
        """Yield positions with their quartets from ``start`` on, until the space is used up.

        Positions rise, with gaps where a known quartet was skipped. ``stream(position + 1)`` of an
        equal sampler continues exactly after ``position``.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Effects estimated from the results so far, in accuracy."""

    # effects by family; a missing family is as uncertain as the least certain one
    families: Mapping[str, Belief] = field(default_factory=dict)
    # effects by pair, names sorted; a missing pair has no effect
    pairs: Mapping[tuple[str, str], Belief] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A quartet, and whether it was explored (drawn without results) or chosen by results."""

    quartet: Quartet
    explored: bool


class Chooser(Protocol):
    """A sampler that learns: chooses the next quartets from results."""

    def __call__(
        self,
        pool: Pool,
        size: int,
        seed: int,
        scores: Scores,
        *,
        before: Sequence[Choice] = (),
        known: Collection[Quartet] = (),
        min_explore: float = 0.25,
    ) -> tuple[Choice, ...]:
        """Choose up to ``size`` quartets; equal arguments give equal choices, also after a restart.

        Args:
            pool: Families to draw from.
            size: Number of quartets to choose; fewer are returned where the space ends.
            seed: The run's seed.
            scores: Effects estimated so far.
            before: Choices of earlier calls.
            known: Further quartets that must not be chosen.
            min_explore: Smallest share of all choices that must be made without results, in (0, 1].

        Raises:
            UsageError: If the share is out of range, or the size is not positive.
        """
        ...


Order: TypeAlias = Callable[[Pool, int, Collection[Quartet]], Sampler]
"""Builds a fixed order from a pool, a seed and the known quartets to skip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerEntry:
    """A registered sampler; exactly one of ``order`` and ``choose`` is set."""

    summary: str  # clause for help texts, without a full stop
    order: Order | None = None  # builds the fixed order; None for a sampler that learns
    choose: Chooser | None = None  # chooses the next quartets from results; None for a fixed order


SAMPLERS: dict[str, SamplerEntry] = {}
"""All samplers by name."""


def find_sampler(name: str, *, learns: bool = True) -> SamplerEntry:
    """Return a registered sampler; unless ``learns``, one with a fixed order.

    Raises:
        UsageError: If the name is unknown, or the sampler has no fixed order where one is needed.
    """
    entry = SAMPLERS.get(name)
    if entry is not None and (learns or entry.order is not None):
        return entry
    if entry is not None:
        raise UsageError(f"{name} chooses by results and has no fixed order: choose another sampler")
    accepted = sorted(key for key, entry in SAMPLERS.items() if learns or entry.order is not None)
    hint = did_you_mean(name, accepted)
    raise UsageError(f"unknown sampler {name!r}: {hint}{hint and ' '}choose one of {', '.join(accepted)}")


def sampler_help(*, learns: bool = True) -> str:
    """List the samplers with their summaries, for help texts."""
    entries = sorted((name, entry) for name, entry in SAMPLERS.items() if learns or entry.order is not None)
    return "; ".join(f"{name}: {entry.summary}" for name, entry in entries)
