"""Quartets chosen by what was learned, with a share of exploration that never falls below a floor.

Ask for quartets, train them, read the effects, ask again. An explored quartet is the next of an
order that knows no results, so the explored ones alone stay an even sample that can be audited. The
others are chosen by Thompson sampling (Thompson 1933): each effect is drawn from what is known of
it, and the best quartet under that draw is taken; what is uncertain is tried now and then.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from random import Random
from typing import TypeAlias

from nngen.errors import UsageError
from nngen.seeds import derive
from nngen.space.pool import Pool, Quartet
from nngen.space.samplers import sampler

__all__ = ["Belief", "Choice", "Scores", "ask"]

Belief: TypeAlias = tuple[float, float]
"""Mean and standard error of an effect."""

_FRONT = 12
"""Families whose quartets are compared for one choice: the best under the draw; more where all are taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What is known so far.

    Attributes:
        families: By name; one that is missing is as uncertain as the least known.
        pairs: By names in sorted order; one that is missing has no effect.
    """

    families: Mapping[str, Belief] = field(default_factory=dict)
    pairs: Mapping[tuple[str, str], Belief] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A quartet and whether it was explored (or else chosen by what is known)."""

    quartet: Quartet
    explored: bool


def ask(
    pool: Pool,
    size: int,
    seed: int,
    scores: Scores,
    *,
    before: Sequence[Choice] = (),
    held: Collection[Quartet] = (),
    floor: float = 0.25,
    order: str = "stratified",
) -> tuple[Choice, ...]:
    """Choose the next quartets.

    At every prefix of all choices ever made, ``before`` included, at least ``floor`` of them are
    explored. Without any known family effect all are. The same arguments give the same choices.

    Args:
        pool: What is drawn from.
        size: How many to choose; fewer come where the space ends.
        seed: The run's seed.
        scores: What is known.
        before: Choices of earlier calls.
        held: Quartets that must not be chosen besides those.
        floor: Least share of exploration, in (0, 1].
        order: The sampler that explores.

    Raises:
        UsageError: If the floor is out of range, the size is not positive, or there is no such order.
    """
    if not 0 < floor <= 1:
        raise UsageError(f"a share of exploration lies above 0 and up to 1, not at {floor}")
    if size < 1:
        raise UsageError(f"--size must be at least 1, not {size}")
    taken = {choice.quartet for choice in before} | set(held)
    explored, count = sum(choice.explored for choice in before), len(before)
    unknown = (quartet for _, quartet in sampler(order, pool, derive(seed, "adaptive"), ()).stream())
    choices: list[Choice] = []
    while len(choices) < size:
        explore = not scores.families or explored < math.ceil(floor * (count + 1))
        rng = Random(derive(seed, "adaptive", "draw", count))
        known = None if explore else _best(pool, scores, taken, rng)
        quartet = known or _next(unknown, taken)
        if quartet is None:
            break
        choices.append(Choice(quartet=quartet, explored=known is None))
        taken.add(quartet)
        explored, count = explored + (known is None), count + 1
    return tuple(choices)


def _next(order: Iterator[Quartet], taken: Collection[Quartet]) -> Quartet | None:
    return next((quartet for quartet in order if quartet not in taken), None)


def _best(pool: Pool, scores: Scores, taken: Collection[Quartet], rng: Random) -> Quartet | None:
    """Draw every effect once and take the best quartet that is free; None if none is."""
    doubt = max(error for _, error in scores.families.values())
    families = {name: rng.gauss(*scores.families.get(name, (0.0, doubt))) for name in pool.families}
    pairs = {pair: rng.gauss(*belief) for pair, belief in sorted(scores.pairs.items())}
    # A pair's effect is shared by its two families, so that both of a strong pair come to the front.
    helped = {name: max((v for pair, v in pairs.items() if name in pair), default=0.0) / 2 for name in families}
    ranked = sorted(pool.families, key=lambda name: (-families[name] - helped[name], name))
    front = max(_FRONT, pool.k)
    while True:
        free = (quartet for quartet in combinations(sorted(ranked[:front]), pool.k) if quartet not in taken)
        best = max(free, key=lambda quartet: _value(quartet, families, pairs), default=None)
        if best is not None or front >= len(ranked):
            return best
        front *= 2


def _value(quartet: Quartet, families: Mapping[str, float], pairs: Mapping[tuple[str, str], float]) -> float:
    own = sum(families[name] for name in quartet)
    return own + sum(pairs.get((a, b), 0.0) for a, b in combinations(quartet, 2))
