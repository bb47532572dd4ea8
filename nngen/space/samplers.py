"""Which quartets, in which order.

A sampler is an order of a pool's quartets, without repeats, the same for the same seed. It goes on
from any position, and passes over what it was told is held already (failures included). It never
builds the space. A new one is a class with ``stream`` and one line in ``SAMPLERS``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from random import Random
from typing import Protocol

from nngen.errors import FamilyError, UsageError
from nngen.seeds import derive
from nngen.space.balanced import balanced_order
from nngen.space.permutation import Permutation
from nngen.space.pool import Pool, Quartet
from nngen.text import did_you_mean

__all__ = ["SAMPLERS", "Balanced", "Lexicographic", "Sampler", "Stratified", "Uniform", "check_size", "draw", "sampler"]


class Sampler(Protocol):
    """An order of a pool's quartets."""

    def stream(self, start: int = 0) -> Iterator[tuple[int, Quartet]]:
        """Yield positions with their quartets from ``start`` on, until the space is used up.

        Positions rise, with gaps where a held quartet was passed over. ``stream(position + 1)``
        of an equal sampler goes on exactly after ``position``.
        """
        ...


class Lexicographic:
    """The published order: alphabetical. Cut off early, it never leaves the first family."""

    def __init__(self, pool: Pool, seed: int = 0, held: Collection[Quartet] = ()) -> None:
        self.pool, self.held = pool, frozenset(held)
        self.rank_at: Callable[[int], int] = range(pool.space).__getitem__

    def stream(self, start: int = 0) -> Iterator[tuple[int, Quartet]]:
        for position in range(start, self.pool.space):
            quartet = self.pool.quartet(self.rank_at(position))
            if quartet not in self.held:
                yield position, quartet


class Uniform(Lexicographic):
    """Each quartet equally likely, without repeats: a seeded permutation of the ranks."""

    def __init__(self, pool: Pool, seed: int = 0, held: Collection[Quartet] = ()) -> None:
        super().__init__(pool, seed, held)
        self.rank_at = Permutation(pool.space, derive(seed, "sampler", "random"))


class Balanced:
    """Families, pairs and triples used evenly at every prefix: a fixed order, under shuffled names.

    The order is a function of the position alone (``nngen.space.balanced``); the seed only decides
    which family plays which part in it, so every seed is as even as the next.
    """

    def __init__(self, pool: Pool, seed: int = 0, held: Collection[Quartet] = ()) -> None:
        self.pool, self.held = pool, frozenset(held)
        self.order = balanced_order(len(pool.families), pool.k)
        self.names = list(pool.families)
        Random(derive(seed, "sampler", "balanced")).shuffle(self.names)

    def stream(self, start: int = 0) -> Iterator[tuple[int, Quartet]]:
        for position in range(start, self.pool.space):
            quartet = tuple(sorted(self.names[part] for part in self.order[position]))
            if quartet not in self.held:
                yield position, quartet


class Stratified:
    """The published cure: families are used equally often, at every prefix to within one or two.

    Each quartet takes the families used least so far, ties broken at random. Where all such
    quartets were drawn already (the last of a round; small spaces, near their end), the tie is
    widened step by step.
    What is held counts as drawn but not as used, so the new quartets are even among themselves.
    Going on from a position repeats the draws before it, which is linear in the position.
    """

    tries = 256

    def __init__(self, pool: Pool, seed: int = 0, held: Collection[Quartet] = ()) -> None:
        self.pool, self.seed, self.held = pool, derive(seed, "sampler", "stratified"), frozenset(held)

    def stream(self, start: int = 0) -> Iterator[tuple[int, Quartet]]:
        rng = Random(self.seed)
        used = dict.fromkeys(self.pool.families, 0)
        seen = {quartet for quartet in self.held if set(quartet) <= used.keys() and len(quartet) == self.pool.k}
        rest = Uniform(self.pool, self.seed).stream()
        for position in range(self.pool.space - len(seen)):
            quartet = self._least_used(used, seen, rng) or next(q for _, q in rest if q not in seen)
            seen.add(quartet)
            for name in quartet:
                used[name] += 1
            if position >= start:
                yield position, quartet

    def _least_used(self, used: Mapping[str, int], seen: Collection[Quartet], rng: Random) -> Quartet | None:
        for attempt in range(self.tries):
            # Noise below 1 only breaks ties; above, it lets in families used once more, and so on.
            noise = 1.0 if attempt < self.tries // 8 else attempt * 16 / self.tries
            keys = {name: count + noise * rng.random() for name, count in used.items()}
            quartet = tuple(sorted(sorted(keys, key=keys.__getitem__)[: self.pool.k]))
            if quartet not in seen:
                return quartet
        return None


SAMPLERS: Mapping[str, Callable[[Pool, int, Collection[Quartet]], Sampler]] = {
    "balanced": Balanced,
    # All there are; where all are taken, the order that is cheapest to go on with is as good as any.
    "exhaustive": Lexicographic,
    "lexicographic": Lexicographic,
    "random": Uniform,
    "stratified": Stratified,
}


def sampler(name: str, pool: Pool, seed: int, held: Collection[Quartet] = ()) -> Sampler:
    """Build a sampler by name.

    Args:
        name: A key of ``SAMPLERS``.
        pool: What is drawn from.
        seed: The run's seed; each sampler derives its own from it.
        held: Quartets (sorted) that must not be drawn.

    Raises:
        UsageError: If no sampler has that name.
    """
    try:
        make = SAMPLERS[name]
    except KeyError:
        hint = did_you_mean(name, SAMPLERS)
        raise UsageError(
            f"no sampler is called {name!r}: {hint}{hint and ' '}there are {', '.join(sorted(SAMPLERS))}"
        ) from None
    return make(pool, seed, held)


def draw(
    name: str,
    families: Sequence[str],
    size: int,
    seed: int,
    k: int = 4,
    *,
    held: Collection[Quartet] = (),
    include: Collection[str] = (),
) -> tuple[Quartet, ...]:
    """Draw ``size`` different quartets, experts sorted within each.

    Args:
        name: A key of ``SAMPLERS``.
        families: The pool.
        size: How many.
        seed: The run's seed.
        k: Families in a quartet.
        held: Quartets (sorted) that must not be drawn.
        include: Families that every quartet holds; the others are drawn around them.

    Raises:
        FamilyError: If a family is named twice, or one that every quartet is to hold is not in the pool.
        UsageError: If the sampler is unknown, the size is not positive or larger than what is
            left of the space, or there are fewer than ``k`` families.
    """
    missing = sorted(set(include) - set(families))
    if missing:
        raise FamilyError(f"every quartet is to hold {', '.join(missing)}, which the pool does not: add it or drop it")
    if len(set(include)) >= k:
        raise UsageError(f"every quartet is to hold {', '.join(include)}: name fewer than {k}, or there is no choice")
    pool = Pool.of([name for name in families if name not in include], k - len(set(include)))
    others = [tuple(sorted(set(quartet) - set(include))) for quartet in held if set(include) <= set(quartet)]
    chosen = sampler(name, pool, seed, others)
    check_size(pool, size)
    drawn = tuple(tuple(sorted({*include, *rest})) for _, rest in islice(chosen.stream(), size))
    if len(drawn) < size:
        raise UsageError(f"{size:,} new quartets were asked for, but only {len(drawn):,} are not held already")
    return drawn


def check_size(pool: Pool, size: int) -> None:
    """Refuse a number of quartets that the pool does not have.

    Raises:
        UsageError: If it is not positive, or larger than the space.
    """
    if size < 1:
        raise UsageError(f"--size must be at least 1, not {size}")
    if size > pool.space:
        raise UsageError(
            f"{size:,} quartets were asked for, but {len(pool.families)} families make only {pool.space:,}"
        )
