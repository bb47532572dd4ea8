"""An order of all k-subsets of v families in which families, pairs and triples are used evenly at every prefix.

It is one fixed order per (v, k): position in, subset out. It opens with an exact design where
``designs`` holds one and goes on greedily, round by round: a round uses every family once more
before any family is used again, so two families' counts never differ by more than one while such
rounds can be found. Within that, the subset whose pairs, then triples, were used least goes first;
the last two or three subsets of a round are chosen together, because they decide one another.

Nothing is drawn at random and no floating point is used, so every machine has the same order. It
is computed on demand, from the front, once per process (34 families: the first thousand
quartets in a tenth of a second, all 46,376 in some seconds).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations
from math import comb
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nngen.space.designs import opening
from nngen.space.permutation import Permutation
from nngen.space.ranks import unrank

__all__ = ["LARGEST", "BalancedOrder", "balanced_order"]

Ints: TypeAlias = NDArray[np.int64]

LARGEST = 250_000
"""Spaces with more subsets (v > 50 for k = 4) fall back to a fixed permutation of the ranks."""

_USED = 1 << 50
_TIES = 64
_POWERS: Ints = 4 ** np.arange(9, dtype=np.int64)
_LARGEST_JOINT = 10_000
_LEADING = 32

VARIANTS: dict[int, int] = {9: 383, 10: 308, 11: 584, 12: 85, 13: 12, 14: 58, 15: 12, 16: 50, 17: 50, 18: 17, 19: 42}
"""How ties are broken among v families (k = 4), where that matters: at the end of a small space.

The most even of 1,000 ways (v < 13) or 60; ``eval/find_designs.py`` finds them again.
"""


class BalancedOrder:
    """The order for one (v, k); get it with ``balanced_order``.

    Attributes:
        greedy: False where the space is too large (or k outside 3 to 6) and the order is a fixed
            permutation of the ranks, as even as chance makes it.
    """

    def __init__(self, v: int, k: int, variant: int = 0) -> None:
        self.v, self.k, self.size = v, k, comb(v, k)
        self.greedy = 3 <= k <= 6 and k <= v and self.size <= LARGEST
        self._counts = _Counts(v, k, variant) if self.greedy else None
        self._shuffled = Permutation(self.size, 0)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, position: int) -> tuple[int, ...]:
        """Give the subset at ``position``: ``k`` rising integers in [0, v).

        Raises:
            IndexError: If ``position`` is outside [0, C(v, k)).
        """
        if not 0 <= position < self.size:
            raise IndexError(f"position {position} is outside [0, {self.size})")
        if self._counts is None:
            return unrank(self._shuffled(position), self.v, self.k)
        self._counts.extend(position + 1)
        return self._counts.order[position]

    def prefix(self, size: int) -> Ints:
        """Give the first ``size`` subsets as ``(size, k)``."""
        return np.array([self[position] for position in range(size)], dtype=np.int64).reshape(size, self.k)


def balanced_order(v: int, k: int = 4) -> BalancedOrder:
    """Give the balanced order of the k-subsets of v families, kept for the life of the process."""
    return _kept_order(v, k)


@lru_cache(maxsize=16)
def _kept_order(v: int, k: int) -> BalancedOrder:
    return BalancedOrder(v, k, VARIANTS.get(v, 0) if k == 4 else 0)


class _Counts:
    """How often families, pairs and triples were used, and the order that came of it."""

    def __init__(self, v: int, k: int, variant: int) -> None:
        self.v, self.k, self.variant = v, k, variant
        self.order: list[tuple[int, ...]] = []
        self.families = np.zeros(v, dtype=np.int64)
        self.pairs = np.zeros((v, v), dtype=np.int64)
        np.fill_diagonal(self.pairs, 1 << 20)
        self.triples = np.zeros((v, v, v), dtype=np.int64)
        self.used = np.zeros(comb(v, k), dtype=bool)
        self.rest = _subsets(v, k)  # those not used yet, brought up to date when it is asked for
        # Row j holds C(i, j + 1): the sum over a subset is its rank in colexicographic order.
        self.binomials = np.array([[comb(i, j + 1) for i in range(v)] for j in range(k)], dtype=np.int64)
        for block in opening(v) if k == 4 else ():
            self._take(block)

    def extend(self, size: int) -> None:
        """Go on until the order holds at least ``size`` subsets."""
        while len(self.order) < size:
            for block in self._next():
                self._take(block)

    def _take(self, block: tuple[int, ...]) -> None:
        self.order.append(block)
        self.used[sum(comb(item, place + 1) for place, item in enumerate(block))] = True
        items = np.array(block)
        self.families[items] += 1
        self.pairs[items[:, None], items] += 1
        self.triples[items[:, None, None], items[:, None], items] += 1  # repeats inside are never read

    def _next(self) -> list[tuple[int, ...]]:
        """Choose the next subset, or the last few of a round at once."""
        low = np.flatnonzero(self.families == self.families.min())
        if len(low) < self.k:
            chosen = self._finishing(low)
        elif len(low) == 3 * self.k and self.k <= 4:
            chosen = self._joint(low, 3)
        elif 2 * self.k <= len(low) < 3 * self.k and _joint_size(len(low), self.k) <= _LARGEST_JOINT:
            chosen = self._joint(low, 2)
        else:
            chosen = self._anchored(low)
        return chosen or self._any()

    def _finishing(self, low: Ints) -> list[tuple[int, ...]]:
        """All of the few families that the round still lacks, filled up from those it had."""
        rest = np.flatnonzero(self.families != self.families.min())
        filling = rest[_subsets(len(rest), self.k - len(low))]
        blocks = np.sort(np.hstack([np.broadcast_to(low, (len(filling), len(low))), filling]), axis=1)
        return self._best(blocks, self._scores(blocks))

    def _joint(self, low: Ints, count: int) -> list[tuple[int, ...]]:
        """``count`` disjoint subsets of ``low`` with the least total score."""
        blocks = low[_subsets(len(low), self.k)]
        scores = np.where(self.used[self._ranks(blocks)], _USED, self._scores(blocks))
        choices = _disjoint(len(low), self.k, count)
        totals = scores[choices].sum(axis=1)
        best = int(totals.argmin())
        if totals[best] >= _USED:
            return []
        # The most wanted first: a prefix that stops here has taken the better part.
        return [_block(blocks[i]) for i in sorted(choices[best], key=lambda i: (scores[i], i))]

    def _anchored(self, low: Ints) -> list[tuple[int, ...]]:
        """The best subset of ``low`` that holds one given family, which halves the work k times over."""
        anchor = int(low[self._noise(1)[0] % len(low)])
        others = low[low != anchor]
        m = len(others)
        subsets, pairs, triples = _tables(m, self.k - 1)
        grid = np.ix_(others, others)
        steep = self._steep()
        beside = steep[anchor, others]
        # Each of the k - 1 others is in k - 2 pairs of them, so its pair with the anchor is spread over those.
        pair_scores = (self.k - 2) * (steep[grid] + self.triples[anchor][grid]) + beside[:, None] + beside
        scores = pair_scores.take(pairs[0])
        for column in pairs[1:]:
            scores += pair_scores.take(column)
        if len(triples):
            cube = self.triples[np.ix_(others, others, others)] * (self.k - 2)
            for column in triples:
                scores += cube.take(column)
        scores = scores * _TIES + self._noise(len(scores))
        for row in _leading(scores):
            block = _block(np.sort(np.append(others[subsets[row]], anchor)))
            if not self.used[sum(comb(item, place + 1) for place, item in enumerate(block))]:
                return [block]
        blocks = np.sort(np.hstack([others[subsets], np.full((len(subsets), 1), anchor)]), axis=1)
        return self._best(blocks, scores)

    def _any(self) -> list[tuple[int, ...]]:
        """Near the end of the space no round may be left: the unused subset of the least used families."""
        self.rest = blocks = self.rest[~self.used[self._ranks(self.rest)]]
        above = np.minimum(self.families - self.families.min(), 12)
        return self._best(blocks, self._scores(blocks) + _TIES * 1000 * (3**above)[blocks].sum(axis=1))

    def _best(self, blocks: Ints, scores: Ints) -> list[tuple[int, ...]]:
        scores = np.where(self.used[self._ranks(blocks)], _USED, scores)
        best = int(scores.argmin())
        return [_block(blocks[best])] if scores[best] < _USED else []

    def _steep(self) -> Ints:
        """Weight of each pair, ``(v, v)``: a power of its count, so that the most used pairs are shunned."""
        steep: Ints = _POWERS.take(self.pairs - self.pairs.min(), mode="clip")
        return steep

    def _scores(self, blocks: Ints) -> Ints:
        """How much ``blocks``, ``(m, k)``, repeat pairs and triples; ties are broken by a fixed noise."""
        steep = self._steep()
        scores = np.zeros(len(blocks), dtype=np.int64)
        for a, b in combinations(range(self.k), 2):
            scores += steep[blocks[:, a], blocks[:, b]]
        for a, b, c in combinations(range(self.k), 3):
            scores += self.triples[blocks[:, a], blocks[:, b], blocks[:, c]]
        return scores * _TIES + self._noise(len(blocks))

    def _noise(self, size: int) -> Ints:
        """Numbers in [0, 64) that differ from position to position, the same on every machine."""
        offset = (len(self.order) * 7919 + self.variant * 4099) % 8192
        return _noise_table()[offset : offset + size]

    def _ranks(self, blocks: Ints) -> Ints:
        ranks: Ints = self.binomials[0][blocks[:, 0]]
        for place in range(1, self.k):
            ranks = ranks + self.binomials[place][blocks[:, place]]
        return ranks


def _leading(scores: Ints) -> Iterator[int]:
    """Yield the row of the least score, then some of the next ones (rows in order where scores are equal)."""
    yield int(scores.argmin())
    keys = scores * len(scores) + np.arange(len(scores))  # all different, so every machine partitions them alike
    if len(keys) > _LEADING:
        keys = np.partition(keys, _LEADING)[:_LEADING]
    yield from (np.sort(keys)[1:] % len(scores)).tolist()


def _block(row: Ints) -> tuple[int, ...]:
    return tuple(row.tolist())


@lru_cache(maxsize=1)
def _noise_table() -> Ints:
    """Splitmix64 (Steele, Lea and Flood 2014) over the integers."""
    state = np.arange(1, LARGEST + 8193, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((state ^ (state >> np.uint64(31))) % np.uint64(_TIES)).astype(np.int64)


@lru_cache(maxsize=256)
def _subsets(n: int, k: int) -> Ints:
    """All k-subsets of ``range(n)``, ``(C(n, k), k)``, in lexicographic order."""
    flat = np.fromiter((item for subset in combinations(range(n), k) for item in subset), dtype=np.int64)
    return flat.reshape(comb(n, k), k)


@lru_cache(maxsize=256)
def _tables(n: int, k: int) -> tuple[Ints, list[Ints], list[Ints]]:
    """The k-subsets of ``range(n)`` and, for each pair and triple of places, where it lies in a flat table."""
    subsets = _subsets(n, k)
    columns = [subsets[:, place] for place in range(k)]
    pairs = [a * n + b for a, b in combinations(columns, 2)]
    triples = [(a * n + b) * n + c for a, b, c in combinations(columns, 3)]
    return subsets, pairs, triples


def _joint_size(n: int, k: int) -> int:
    return comb(n, k) * comb(n - k, k) // 2


@lru_cache(maxsize=32)
def _disjoint(n: int, k: int, count: int) -> Ints:
    """All sets of ``count`` (2 or 3) disjoint k-subsets of ``range(n)``, as rows of ``_subsets(n, k)``."""
    masks = (1 << _subsets(n, k)).sum(axis=1)
    first, second = np.nonzero(np.triu((masks[:, None] & masks) == 0, 1))
    if count == 2:
        return np.stack([first, second], axis=1)
    rows = {int(mask): row for row, mask in enumerate(masks)}
    rest = ((1 << n) - 1) & ~(masks[first] | masks[second])
    third = np.array([rows[int(mask)] for mask in rest])
    return np.stack([first, second, third], axis=1)[third > second]
