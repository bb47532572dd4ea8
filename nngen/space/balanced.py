"""An order of all k-subsets of v families in which families, pairs and triples are used evenly at every prefix.

There is one fixed order per (v, k). Its first v subsets are linearly independent, so that as few as possible tell all
families apart: of those that add a dimension the most even one is taken, of equals the most informative (D-optimal),
and counts may differ by two. Then it continues greedily, or with an exact design where ``designs`` contains one,
round by round: a round uses every family once more before any family is used again,
so two families' counts never differ by more than one while such rounds can be found. Within a round the
subset whose pairs, then triples, were used least comes first; the last two or three subsets of a round
are chosen together, because each restricts the others.

Nothing is drawn at random, and floating point is used element by element alone, so the order is equal on every
machine. It is
computed on demand, from the front, once per process (34 families: the first thousand quartets in a
tenth of a second, all 46,376 in some seconds).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations
from math import comb
from typing import TypeAlias

import numpy as np
from more_itertools import nth_combination
from numpy.typing import NDArray

from nngen.space.designs import opening
from nngen.space.permutation import Permutation
from nngen.space.rank import RowSpace

Ints: TypeAlias = NDArray[np.int64]

LARGEST = 250_000
"""Spaces with more subsets (v > 51 for k = 4) fall back to a fixed permutation of the ranks."""

_USED = 1 << 50  # score of a subset that was used already: above any sum of scores
_TIES = 64  # scores are multiplied by this, so that noise in [0, 64) breaks ties and nothing else
_POWERS: Ints = 4 ** np.arange(9, dtype=np.int64)
"""Weight of a pair by its count above the smallest: four times as much per use, capped at 4^8."""
_LARGEST_JOINT = 10_000  # largest number of pairs of disjoint subsets that are compared for one choice
_LEADING = 32  # best subsets looked at one by one before all are filtered for those used already

VARIANTS: dict[int, int] = {9: 317, 10: 248, 11: 238, 12: 85, 13: 56, 14: 30, 15: 18, 16: 26, 17: 4, 19: 55}
"""Offset into the noise that breaks ties among v families (k = 4), where it matters: near the end of a small space.

The most even of 1,000 offsets (v < 13) or 60; ``eval/find_designs.py`` finds them again.
"""


class BalancedOrder:
    """The order for one (v, k); get it with ``balanced_order``.

    Attributes:
        greedy: Whether the order is the greedy one; a space that is too large (or k outside 3 to 6) has a
            fixed permutation of the ranks instead, only as even as a random sample.
    """

    def __init__(self, v: int, k: int, variant: int = 0) -> None:
        self.v, self.k, self.size = v, k, comb(v, k)
        self.greedy = 3 <= k <= 6 and k <= v and self.size <= LARGEST
        self._counts = _Counts(v, k, variant) if self.greedy else None
        self._shuffled = Permutation(self.size, 0)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, position: int) -> tuple[int, ...]:
        """Return the subset at ``position``: ``k`` rising integers in [0, v).

        Raises:
            IndexError: If ``position`` is outside [0, C(v, k)).
        """
        if not 0 <= position < self.size:
            raise IndexError(f"position {position} is outside [0, {self.size})")
        if self._counts is None:
            return nth_combination(range(self.v), self.k, self._shuffled(position))
        self._counts.extend(position + 1)
        return self._counts.order[position]


def balanced_order(v: int, k: int = 4) -> BalancedOrder:
    """Return the balanced order of the k-subsets of v families, cached for the life of the process."""
    return _kept_order(v, k)  # one cache entry, however the arguments are spelled


@lru_cache(maxsize=16)
def _kept_order(v: int, k: int) -> BalancedOrder:
    return BalancedOrder(v, k, VARIANTS.get(v, 0) if k == 4 else 0)


class _Counts:
    """Counts of the families, pairs and triples used so far, and the order chosen by them."""

    def __init__(self, v: int, k: int, variant: int) -> None:
        self.v, self.k, self.variant = v, k, variant
        self.order: list[tuple[int, ...]] = []
        self.families = np.zeros(v, dtype=np.int64)
        self.pairs = np.zeros((v, v), dtype=np.int64)
        self.triples = np.zeros((v, v, v), dtype=np.int64)
        self.used = np.zeros(comb(v, k), dtype=bool)
        self.rest = _subsets(v, k)  # unused subsets; used ones are removed only where ``_any`` needs them
        # Row j holds C(i, j + 1): the sum over a subset is its rank in colexicographic order.
        self.binomials = np.array([[comb(i, j + 1) for i in range(v)] for j in range(k)], dtype=np.int64)
        self.space = RowSpace(range(v))
        if k == 4:
            self._open(opening(v))

    def extend(self, size: int) -> None:
        """Extend the order to at least ``size`` subsets."""
        while len(self.order) < size:
            for block in self._next():
                self._take(block)

    def _take(self, block: tuple[int, ...]) -> None:
        self.order.append(block)
        self.space.take(block)
        self.used[sum(comb(item, place + 1) for place, item in enumerate(block))] = True
        items = np.array(block)
        self.families[items] += 1
        self.pairs[items[:, None], items] += 1
        self.triples[items[:, None, None], items[:, None], items] += 1  # repeats inside are never read

    def _open(self, blocks: Sequence[tuple[int, ...]]) -> None:
        """Take the blocks of an exact design, the first v of them so that they are independent.

        Unless they are anyway, they are chosen from the first classes, whose rest follows at once, so that counts are
        even again.
        """
        window, independent, size = RowSpace(range(self.v)), True, 0
        while size < len(blocks) and (not window.full or (size * self.k) % self.v):
            window.take(blocks[size])
            size += 1
            independent = independent and window.dimensions == min(size, self.v)
        first = np.array(blocks[:size])
        while not independent and len(self.order) < size:
            for block in self._even(first) if self.space.full else self._spanning(first):
                self._take(block)
        for block in blocks[len(self.order) :]:
            self._take(block)

    def _next(self) -> list[tuple[int, ...]]:
        """Choose the next subset, or the last few of a round at once."""
        # Independence may cost evenness, which is restored before the rounds begin.
        if not self.space.full:
            return self._spanning(self.rest) or self._even(self._unused())
        if len(self.order) < 2 * self.v and np.ptp(self.families) > 1:
            return self._even(self._unused())
        # Families that the current round has not used yet. The number left decides how much is chosen at once:
        # two or three disjoint subsets fill the rest of a round exactly, and a poor first one would spoil them.
        low = np.flatnonzero(self.families == self.families.min())
        left = len(low)
        disjoint_pairs = comb(left, self.k) * comb(max(0, left - self.k), self.k) // 2
        if left < self.k:
            chosen = self._finishing(low)
        elif left == 3 * self.k and self.k <= 4:
            chosen = self._joint(low, 3)
        elif left < 3 * self.k and 0 < disjoint_pairs <= _LARGEST_JOINT:
            chosen = self._joint(low, 2)
        else:
            chosen = self._anchored(low)
        # Where the space has no complete round left, the least used families go first.
        return chosen or self._even(self._unused())

    def _finishing(self, low: Ints) -> list[tuple[int, ...]]:
        """Choose the best subset of all families that the round still lacks, filled up from the others."""
        rest = np.flatnonzero(self.families != self.families.min())
        filling = rest[_subsets(len(rest), self.k - len(low))]
        blocks = np.sort(np.hstack([np.broadcast_to(low, (len(filling), len(low))), filling]), axis=1)
        return self._best(blocks, self._scores(blocks))

    def _joint(self, low: Ints, count: int) -> list[tuple[int, ...]]:
        """Choose ``count`` disjoint subsets of ``low`` with the smallest total score; none if all are used."""
        blocks = low[_subsets(len(low), self.k)]
        scores = np.where(self.used[self._ranks(blocks)], _USED, self._scores(blocks))
        choices = _disjoint(len(low), self.k, count)
        totals = scores[choices].sum(axis=1)
        best = int(totals.argmin())
        if totals[best] >= _USED:
            return []
        # Best first: a prefix that ends within the round then has the better subsets.
        return [_block(blocks[i]) for i in sorted(choices[best], key=lambda i: (scores[i], i))]

    def _anchored(self, low: Ints) -> list[tuple[int, ...]]:
        """Choose the best subset of ``low`` that contains one given family, the anchor.

        Fixing one family leaves C(m, k - 1) subsets to compare instead of C(m + 1, k). Any family of ``low`` must
        be used in this round anyway, so the anchor costs little evenness; noise picks it, so none is favoured.
        """
        anchor = int(low[self._noise(1)[0] % len(low)])
        others = low[low != anchor]  # (m,)
        subsets, pairs, triples = _tables(len(others), self.k - 1)
        grid = np.ix_(others, others)
        steep = self._steep()
        beside = steep[anchor, others]  # (m,), pairs with the anchor
        # The score of a subset is the sum over its pairs and triples, as in ``_scores``, times k - 2. Written as a
        # sum over pairs of others alone, it needs only C(k - 1, 2) look-ups per subset: a pair of others carries
        # its own weight and its triple with the anchor; each other family is in k - 2 of these pairs, so adding
        # its pair with the anchor to each of them counts it k - 2 times, too.
        pair_scores = (self.k - 2) * (steep[grid] + self.triples[anchor][grid]) + beside[:, None] + beside  # (m, m)
        scores = pair_scores.take(pairs[0])  # (C(m, k - 1),)
        for column in pairs[1:]:
            scores += pair_scores.take(column)
        if len(triples):  # triples without the anchor, where k > 3
            cube = self.triples[np.ix_(others, others, others)] * (self.k - 2)
            for column in triples:
                scores += cube.take(column)
        scores = scores * _TIES + self._noise(len(scores))
        # Mostly one of the best few is unused; only if none is, all subsets are built and filtered.
        for row in _leading(scores):
            block = _block(np.sort(np.append(others[subsets[row]], anchor)))
            if not self.used[sum(comb(item, place + 1) for place, item in enumerate(block))]:
                return [block]
        blocks = np.sort(np.hstack([others[subsets], np.full((len(subsets), 1), anchor)]), axis=1)
        return self._best(blocks, scores)

    def _unused(self) -> Ints:
        self.rest = self.rest[~self.used[self._ranks(self.rest)]]
        return self.rest

    def _spanning(self, blocks: Ints) -> list[tuple[int, ...]]:
        """Choose the subset that adds most to what is known of the families' effects: none if all are in the span.

        It must add a dimension, and counts of families may differ by two, or by as little as can be.
        """
        blocks = blocks[self.space.adding(blocks)]
        weights = self._uneven(blocks)
        blocks = blocks[weights == weights.min(initial=_USED)]
        return [_block(blocks[int(self.space.leverages(blocks).argmax())])] if len(blocks) else []

    def _even(self, blocks: Ints) -> list[tuple[int, ...]]:
        """Choose the unused subset of the least used families."""
        return self._best(blocks, self._scores(blocks) + _TIES * 1000 * self._uneven(blocks))

    def _uneven(self, blocks: Ints) -> Ints:
        """Weigh each of ``blocks`` by the uses of its families: 3 per use above the minimum, the most decide."""
        above = np.minimum(self.families - self.families.min(), 12)  # 3^12 still fits beside _USED
        weights: Ints = (3**above)[blocks].sum(axis=1)
        return weights

    def _best(self, blocks: Ints, scores: Ints) -> list[tuple[int, ...]]:
        scores = np.where(self.used[self._ranks(blocks)], _USED, scores)
        best = int(scores.argmin())
        return [_block(blocks[best])] if scores[best] < _USED else []

    def _steep(self) -> Ints:
        """Weigh each pair, ``(v, v)``, by a power of its count, so that the most used pairs are avoided."""
        steep: Ints = _POWERS.take(self.pairs - self.pairs.min(), mode="clip")
        return steep

    def _scores(self, blocks: Ints) -> Ints:
        """Score how much ``blocks``, ``(m, k)``, repeat pairs and triples; fixed noise breaks ties."""
        steep = self._steep()
        scores = np.zeros(len(blocks), dtype=np.int64)
        for a, b in combinations(range(self.k), 2):
            scores += steep[blocks[:, a], blocks[:, b]]
        for a, b, c in combinations(range(self.k), 3):
            scores += self.triples[blocks[:, a], blocks[:, b], blocks[:, c]]
        return scores * _TIES + self._noise(len(blocks))

    def _noise(self, size: int) -> Ints:
        """Return ``(size,)`` numbers in [0, 64) that differ by position and are equal on every machine."""
        offset = (len(self.order) * 7919 + self.variant * 4099) % 8192
        return _noise_table()[offset : offset + size]

    def _ranks(self, blocks: Ints) -> Ints:
        """Return the colexicographic ranks of ``blocks``, ``(m, k)`` with rising rows."""
        ranks: Ints = self.binomials[0][blocks[:, 0]]
        for place in range(1, self.k):
            ranks = ranks + self.binomials[place][blocks[:, place]]
        return ranks


def _leading(scores: Ints) -> Iterator[int]:
    """Yield the row of the smallest score, then some of the next ones (in row order where scores are equal)."""
    yield int(scores.argmin())
    keys = scores * len(scores) + np.arange(len(scores))  # all different, so that partition has one result
    if len(keys) > _LEADING:
        keys = np.partition(keys, _LEADING)[:_LEADING]
    yield from (np.sort(keys)[1:] % len(scores)).tolist()


def _block(row: Ints) -> tuple[int, ...]:
    return tuple(row.tolist())


@lru_cache(maxsize=1)
def _noise_table() -> Ints:
    """Hash the integers by splitmix64 (Steele, Lea and Flood 2014)."""
    state = np.arange(1, LARGEST + 8193, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((state ^ (state >> np.uint64(31))) % np.uint64(_TIES)).astype(np.int64)


@lru_cache(maxsize=256)
def _subsets(n: int, k: int) -> Ints:
    """List all k-subsets of ``range(n)``, ``(C(n, k), k)``, in lexicographic order."""
    flat = np.fromiter((item for subset in combinations(range(n), k) for item in subset), dtype=np.int64)
    return flat.reshape(comb(n, k), k)


@lru_cache(maxsize=256)
def _tables(n: int, k: int) -> tuple[Ints, list[Ints], list[Ints]]:
    """List the k-subsets of ``range(n)`` and, for each pair and triple of places, its index in a flattened table."""
    subsets = _subsets(n, k)
    columns = [subsets[:, place] for place in range(k)]
    pairs = [a * n + b for a, b in combinations(columns, 2)]
    triples = [(a * n + b) * n + c for a, b, c in combinations(columns, 3)]
    return subsets, pairs, triples


@lru_cache(maxsize=32)
def _disjoint(n: int, k: int, count: int) -> Ints:
    """List all sets of ``count`` (2 or 3) disjoint k-subsets of ``range(n)``, as rows of ``_subsets(n, k)``."""
    # Subsets as bit masks: two are disjoint where their masks share no bit; triu keeps each pair once.
    masks = (1 << _subsets(n, k)).sum(axis=1)
    first, second = np.nonzero(np.triu((masks[:, None] & masks) == 0, 1))
    if count == 2:
        return np.stack([first, second], axis=1)
    # Three of them cover 3k = n families, so the first two determine the third.
    rows = {int(mask): row for row, mask in enumerate(masks)}
    rest = ((1 << n) - 1) & ~(masks[first] | masks[second])
    third = np.array([rows[int(mask)] for mask in rest])
    return np.stack([first, second, third], axis=1)[third > second]
