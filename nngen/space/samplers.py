"""Samplers with a fixed order, and ``draw``, which takes the first quartets of one.

A sampler orders a pool's quartets without repeats, equally for equal seeds. It continues from any position, skips
quartets that are known already (failed ones included), and never builds the whole space.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from random import Random

from nngen.errors import FamilyError, UsageError
from nngen.seeds import derive
from nngen.space.balanced import balanced_order
from nngen.space.permutation import Permutation
from nngen.space.pool import Pool, Quartet
from nngen.space.rank import RowSpace
from nngen.space.registry import SAMPLERS, Sampler, SamplerEntry, find_sampler

_COMPARED = 8
"""Quartets of which the most informative one is taken while effects of some families cannot be estimated."""


class Lexicographic:
    """The published order, alphabetical. A short prefix never leaves the first family."""

    def __init__(self, pool: Pool, seed: int = 0, known: Collection[Quartet] = ()) -> None:
        self.pool, self.known = pool, frozenset(known)
        self.quartet_at: Callable[[int], Quartet] = pool.quartet

    def stream(self, start: int = 0) -> Iterator[tuple[int, Quartet]]:
        for position in range(start, self.pool.space):
            quartet = self.quartet_at(position)
            if quartet not in self.known:
                yield position, quartet


class Uniform(Lexicographic):
    """Each quartet equally likely, without repeats: a seeded permutation of the ranks."""

    def __init__(self, pool: Pool, seed: int = 0, known: Collection[Quartet] = ()) -> None:
        super().__init__(pool, seed, known)
        rank_at = Permutation(pool.space, derive(seed, "sampler", "random"))
        self.quartet_at = lambda position: pool.quartet(rank_at(position))


class Balanced(Lexicographic):
    """Families, pairs and triples used evenly at every prefix: a fixed order, under shuffled names.

    The order is a function of the position alone (``nngen.space.balanced``); the seed only assigns
    families to its places, so all seeds are equally even.
    """

    def __init__(self, pool: Pool, seed: int = 0, known: Collection[Quartet] = ()) -> None:
        super().__init__(pool, seed, known)
        order = balanced_order(len(pool.families), pool.k)
        names = list(pool.families)
        Random(derive(seed, "sampler", "balanced")).shuffle(names)
        self.quartet_at = lambda position: tuple(sorted(names[place] for place in order[position]))


class Stratified:
    """The published correction: counts of families differ by one or two at most, at every prefix.

    Each quartet takes the least used families, ties broken at random. Where all such quartets were
    drawn already (the last of a round, or small spaces near their end), the tie is widened step by step. The first
    v quartets of v families are linearly independent, so that with them every family's effect can be estimated:
    rounds that use every family once more would all add up to the same.
    Known quartets count as drawn but not as used, so the new quartets are even among themselves.
    Continuing from a position repeats the draws before it, in time linear in the position.
    """

    tries = 256

    def __init__(self, pool: Pool, seed: int = 0, known: Collection[Quartet] = ()) -> None:
        self.pool, self.seed, self.known = pool, derive(seed, "sampler", "stratified"), frozenset(known)

    def stream(self, start: int = 0) -> Iterator[tuple[int, Quartet]]:
        rng = Random(self.seed)
        used = dict.fromkeys(self.pool.families, 0)
        space = RowSpace(self.pool.families)
        seen = {quartet for quartet in self.known if set(quartet) <= used.keys() and len(quartet) == self.pool.k}
        # Where no least used quartet is found, the next unseen one of a random order is taken.
        rest = Uniform(self.pool, self.seed).stream()
        for position in range(self.pool.space - len(seen)):
            quartet = None if space.full else self._informative(used, seen, rng, space)
            quartet = (
                quartet or next(self._least_used(used, seen, rng), None) or next(q for _, q in rest if q not in seen)
            )
            seen.add(quartet)
            space.take(quartet)
            for name in quartet:
                used[name] += 1
            if position >= start:
                yield position, quartet

    def _informative(
        self, used: Mapping[str, int], seen: Collection[Quartet], rng: Random, space: RowSpace
    ) -> Quartet | None:
        """Return the most informative of a few quartets that add a dimension and keep counts within two."""
        most = min(used.values()) + 2
        even = (q for q in self._least_used(used, seen, rng) if all(used[name] < most for name in q))
        return max(islice(filter(space.adds, even), _COMPARED), key=space.leverage, default=None)

    def _least_used(self, used: Mapping[str, int], seen: Collection[Quartet], rng: Random) -> Iterator[Quartet]:
        """Draw unseen quartets, from the least used families at first, then with a wider and wider tie."""
        for attempt in range(self.tries):
            # Noise below 1 only breaks ties; above, it lets in families used once more, and so on.
            noise = 1.0 if attempt < self.tries // 8 else attempt * 16 / self.tries
            keys = {name: count + noise * rng.random() for name, count in used.items()}
            quartet = tuple(sorted(sorted(keys, key=keys.__getitem__)[: self.pool.k]))
            if quartet not in seen:
                yield quartet


SAMPLERS["balanced"] = SamplerEntry(summary="families, pairs and triples used evenly at every length", order=Balanced)
SAMPLERS["exhaustive"] = SamplerEntry(summary="the whole space", order=Lexicographic)
SAMPLERS["lexicographic"] = SamplerEntry(
    summary="the published alphabetical order (a short sample hardly leaves the first family)", order=Lexicographic
)
SAMPLERS["random"] = SamplerEntry(summary="every quartet equally likely", order=Uniform)
SAMPLERS["stratified"] = SamplerEntry(
    summary="families used equally often at every length (the published correction)", order=Stratified
)


def sampler(name: str, pool: Pool, seed: int, known: Collection[Quartet] = ()) -> Sampler:
    """Build a sampler with a fixed order by name, which derives its seed from the run's and skips known quartets.

    Raises:
        UsageError: If the name is unknown, or the sampler learns from results.
    """
    order = find_sampler(name, learns=False).order
    assert order is not None
    return order(pool, seed, known)


def draw(
    name: str,
    families: Sequence[str],
    size: int,
    seed: int,
    k: int = 4,
    *,
    known: Collection[Quartet] = (),
    include: Collection[str] = (),
) -> tuple[Quartet, ...]:
    """Draw ``size`` different quartets of ``k`` families, each sorted: none known, and each with those to include.

    Raises:
        FamilyError: If a family is named twice, or an included one is not in the pool.
        UsageError: If the sampler is unknown, the size is not positive or larger than the rest of
            the space, or there are fewer than ``k`` families.
    """
    missing = sorted(set(include) - set(families))
    if missing:
        raise FamilyError(f"{', '.join(missing)}: to be in every quartet, but not in the pool: add it or drop it")
    if include and len(set(include)) >= k:
        raise UsageError(f"{', '.join(include)} in every quartet leave nothing to draw: name fewer than {k}")
    Pool.of(families, k)  # a family that is named twice is refused also where it is included
    pool = Pool.of([name for name in families if name not in include], k - len(set(include)))
    others = [tuple(sorted(set(quartet) - set(include))) for quartet in known if set(include) <= set(quartet)]
    chosen = sampler(name, pool, seed, others)
    check_size(pool, size)
    drawn = tuple(tuple(sorted({*include, *rest})) for _, rest in islice(chosen.stream(), size))
    if len(drawn) < size:
        raise UsageError(f"{size:,} new quartets were asked for, but only {len(drawn):,} are not known already")
    return drawn


def check_size(pool: Pool, size: int) -> None:
    """Check that a pool has as many quartets as are asked for.

    Raises:
        UsageError: If the number is not positive, or larger than the space.
    """
    if size < 1:
        raise UsageError(f"--size must be at least 1, not {size}")
    if size > pool.space:
        raise UsageError(
            f"{size:,} quartets were asked for, but {len(pool.families)} families make only {pool.space:,}"
        )
