"""Searches for the designs in ``nngen/space/designs.py``, repeated and compared with the stored ones.

    python eval/find_designs.py [--starters] [--steiner] [--runs] [--variants] [--write]

Three searches, each deterministic. Starters (v = 8, 12, 20, 24, 32, 36): a class of disjoint quartets over the
integers modulo v - 1 and a fixed point whose differences occur three times each. Steiner systems (v = 16, 28, 40): one
third of a class over a group, each difference once. Runs (v = 29): 29 quartets, one from each orbit of a multiplier
of order 7, that use every family four times and in which family counts never differ by more than one; of
several, the run with the most balanced pairs was kept, with the most balanced order of its images. Each search uses the
seed that succeeded (smaller seeds found nothing, or less balanced runs). Variants (v = 9 to 19): the tie-breaking rule
that leaves the end of a small space most balanced, of 1,000 (v < 13) or 60. Takes five minutes on one core.
Exit code 1 if a result differs from the stored design.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from itertools import combinations, count, permutations, product

import numpy as np
from _page import Evaluation, note
from sampler_balance import ranges

from nngen.space.balanced import VARIANTS, BalancedOrder
from nngen.space.designs import RUNS, STARTERS, STEINER, Block

STARTER_SEEDS = {12: (0, 20_000), 20: (0, 20_000), 24: (0, 20_000), 32: (5, 20_000), 36: (51, 6_000)}
"""Seed that succeeded, and nodes after which a seed is given up."""

RUN_BASES: tuple[tuple[Block, int, int], ...] = (
    ((1, 12, 17, 28), 1, 259),
    ((0, 1, 2, 3), 2, 78),
    ((0, 1, 3, 4), 2, 204),
    ((0, 1, 4, 26), 2, 130),
    ((0, 1, 5, 6), 2, 177),
)
"""A quartet of the orbit, how many runs it needs, and the seed that was kept."""

RUN_NODES = 300_000
EVALUATION = Evaluation(__file__, __doc__)

PAIRS = {pair: i for i, pair in enumerate(combinations(range(29), 2))}


class GivenUpError(Exception):
    """The search of a seed exceeded its limit of nodes."""


def starter(v: int, seed: int, nodes: int) -> tuple[Block, ...] | None:
    """Search one class over Z(v - 1) and the point v - 1 with every difference three times."""
    n, rng = v - 1, random.Random(seed)
    missing = [3] * (n // 2 + 1)
    blocks: list[Block] = []
    left = count(nodes, -1)

    def place(free: Sequence[int]) -> bool:
        if next(left) <= 0:
            raise GivenUpError
        if not free:
            return True
        trios = list(combinations(free[1:], 3))
        rng.shuffle(trios)
        for trio in trios[:60]:
            block = (free[0], *trio)
            steps = [min((a - b) % n, (b - a) % n) for a, b in combinations(block, 2) if n not in (a, b)]
            for step in steps:
                missing[step] -= 1
            if min(missing) >= 0:
                blocks.append(block)
                if place([point for point in free[1:] if point not in trio]):
                    return True
                blocks.pop()
            for step in steps:
                missing[step] += 1
        return False

    order = list(range(n))
    rng.shuffle(order)
    try:
        found = place([n, *order])
    except GivenUpError:
        return None
    return tuple(sorted(tuple(sorted(block)) for block in blocks)) if found else None


def third_of_a_class(moduli: tuple[int, ...], h: int) -> tuple[Block, ...] | None:
    """Search quartets with every difference once whose shifts by h and 2h are disjoint and miss 0, h and 2h."""
    elements = list(product(*map(range, moduli)))
    number = {element: i for i, element in enumerate(elements)}

    def plus(x: int, y: int, sign: int = 1) -> int:
        triples = zip(elements[x], elements[y], moduli, strict=True)
        return number[tuple((a + sign * b) % m for a, b, m in triples)]

    third = (0, h, plus(h, h))
    firsts = sorted({min(plus(x, y) for y in third) for x in range(len(elements))})
    seen, blocks = set(third), []

    def place(free: Sequence[int]) -> bool:
        if not free:
            return True
        for trio in combinations(free[1:], 3):
            for shifts in product(sorted(third), repeat=3):
                block = (free[0], *map(plus, trio, shifts))
                steps = {plus(a, b, -1) for a, b in permutations(block, 2)}
                if len(steps) == 12 and not seen & steps:
                    seen.update(steps)
                    blocks.append(tuple(sorted(block)))
                    if place([point for point in free[1:] if point not in trio]):
                        return True
                    blocks.pop()
                    seen.difference_update(steps)
        return False

    return tuple(blocks) if place(firsts[1:]) else None


class Xorshift:
    """Marsaglia's 64-bit xorshift (13, 7, 17), so that results do not depend on the programming language."""

    def __init__(self, seed: int) -> None:
        self.state = 88172645463325252 + 7919 * seed
        for _ in range(20):
            self.below(2)

    def below(self, n: int) -> int:
        mask = (1 << 64) - 1
        self.state ^= self.state << 13 & mask
        self.state ^= self.state >> 7
        self.state ^= self.state << 17 & mask
        return (self.state >> 20) % n

    def shuffle(self, items: list[int]) -> None:
        for i in range(len(items) - 1, 0, -1):
            j = self.below(i + 1)
            items[i], items[j] = items[j], items[i]


def affine_orbit(base: Block) -> list[Block]:
    """Return the images of a quartet under x -> ax + b modulo 29."""
    images = {tuple(sorted((a * x + b) % 29 for x in base)) for a in range(1, 29) for b in range(29)}
    return sorted(images)


class RunSearch:
    """Depth-first search for runs of 29 quartets, one from each orbit of the multiplier 16."""

    def __init__(self, base: Block, runs: int, seed: int) -> None:
        self.blocks, self.length, self.rng = affine_orbit(base), 29 * runs, Xorshift(seed)
        self.masks = [sum(1 << point for point in block) for block in self.blocks]
        row = {block: i for i, block in enumerate(self.blocks)}
        self.orbit = [
            min(row[tuple(sorted(pow(16, i, 29) * x % 29 for x in block))] for i in range(7)) for block in self.blocks
        ]
        self.holding = [[i for i, block in enumerate(self.blocks) if x in block] for x in range(29)]
        self.taken: set[int] = set()
        self.sequence: list[int] = []
        self.left = RUN_NODES

    def find(self) -> list[Block] | None:
        try:
            return [self.blocks[i] for i in self.sequence] if self._place((1 << 29) - 1) else None
        except GivenUpError:
            return None

    def _place(self, low: int) -> bool:
        """``low`` has a bit for each family that the round still lacks."""
        full = (1 << 29) - 1
        self.left -= 1
        if self.left < 0:
            raise GivenUpError
        if len(self.sequence) == self.length:
            return low == full
        for i in self._options(low):
            rest = low & ~self.masks[i] if low.bit_count() >= 4 else full & ~(self.masks[i] & ~low)
            self.taken.add(self.orbit[i])
            self.sequence.append(i)
            if self._place(rest or full):
                return True
            self.sequence.pop()
            self.taken.discard(self.orbit[i])
        return False

    def _options(self, low: int) -> list[int]:
        size = low.bit_count()
        if size >= 4 and size % 4 == 0:  # every family of `low` must be used: branch on the one with the fewest ways
            options = min(
                (
                    [i for i in self.holding[x] if not self.masks[i] & ~low and self.orbit[i] not in self.taken]
                    for x in range(29)
                    if low >> x & 1
                ),
                key=len,
            )
            self.rng.shuffle(options)
            return options
        inside = size >= 4
        options = [
            i
            for i, mask in enumerate(self.masks)
            if not (mask & ~low if inside else low & ~mask) and self.orbit[i] not in self.taken
        ]
        self.rng.shuffle(options)
        return options[:6]


def pair_counts(run: Sequence[Block]) -> np.ndarray:
    """Return the counts of each pair after each quartet of a run, ``(29, 406)``."""
    rows = np.zeros((len(run), 406), dtype=np.int64)
    for row, block in zip(rows, run, strict=True):
        row[[PAIRS[pair] for pair in combinations(block, 2)]] = 1
    return rows.cumsum(axis=0)


def order_of_runs(quartets: Sequence[Block]) -> str:
    """Order the images of the runs so that pairs differ least: worst prefix first, then the sum over prefixes.

    One run: all 720 orders. Two: forty orders, half at random, half greedy (least range, least variance).
    """
    counts = {}
    for start, power in product(range(0, len(quartets), 29), range(7)):
        factor = pow(16, power, 29)
        moved = [tuple(sorted(factor * x % 29 for x in block)) for block in quartets[start : start + 29]]
        counts[start // 29, power] = pair_counts(moved)
    if len(counts) == 7:
        orders = [((0, 0), *((0, power) for power in rest)) for rest in permutations(range(1, 7))]
    else:
        orders = [_greedy_order(counts, random.Random(trial)) for trial in range(40)]
    best = min(orders, key=lambda order: _unevenness(counts, order))
    return " ".join(f"{run}{power}" for run, power in best)


def _unevenness(counts: dict[tuple[int, int], np.ndarray], order: Sequence[tuple[int, int]]) -> tuple[int, int]:
    used, ranges = np.zeros(406, dtype=np.int64), []
    for key in order:
        rows = counts[key] + used
        ranges.append(np.ptp(rows, axis=1))
        used = rows[-1]
    flat = np.concatenate(ranges)
    return int(flat.max()), int(flat.sum())


def _greedy_order(counts: dict[tuple[int, int], np.ndarray], rng: random.Random) -> tuple[tuple[int, int], ...]:
    used, left, order = np.zeros(406, dtype=np.int64), list(counts), []
    while left:
        scores = []
        for key in left:
            rows = counts[key] + used
            tie = 0.3 * rng.random() * (len(left) < 14)
            scores.append((np.ptp(rows, axis=1).max() + 0.58 * rows[-1].astype(float).var() + tie, key))
        key = min(scores)[1] if len(left) < 14 else rng.choice(left)
        used = used + counts[key][-1]
        left.remove(key)
        order.append(key)
    return tuple(order)


def variant(v: int) -> int:
    """Return the most balanced tie-breaking rule over the whole space: families, then pairs, worst prefix first."""

    def unevenness(number: int) -> tuple[int, int, int, int]:
        order = np.array(list(BalancedOrder(v, 4, number)))
        families, pairs = ranges(order, v, 1), ranges(order, v, 2)
        return int(families.max()), int(pairs.max()), int((families > 1).sum()), int(pairs.sum())

    return min(range(1000 if v < 13 else 60), key=unevenness)


def main(argv: Sequence[str] | None = None) -> int:
    """Search, compare, report."""
    given = EVALUATION.arguments(argv, starters=False, steiner=False, runs=False, variants=False)
    everything = not (given.starters or given.steiner or given.runs or given.variants)
    found_again: list[tuple[str, bool]] = []

    def report(what: str, agrees: bool) -> None:
        found_again.append((what, agrees))
        note(f"{what}: {'as kept' if agrees else 'NOT as kept'}")

    if everything or given.steiner:
        for v, (moduli, h, kept) in STEINER.items():
            found = third_of_a_class(moduli, h)
            report(f"Steiner system, v = {v}", found == tuple(tuple(sorted(block)) for block in kept))
    if everything or given.starters:
        for v, (seed, nodes) in STARTER_SEEDS.items():
            report(f"starter, v = {v}, seed {seed}", starter(v, seed, nodes) == STARTERS[v])
    if everything or given.runs:
        for (base, runs, seed), (text, order) in zip(RUN_BASES, RUNS, strict=True):
            kept_run = [tuple(int(letter, 36) for letter in word) for word in text.split()]
            report(f"runs of the orbit of {base}, seed {seed}", RunSearch(base, runs, seed).find() == kept_run)
            report(f"order of the images of {base}", order_of_runs(kept_run) == order)
    if everything or given.variants:
        for v in range(9, 20):
            report(f"variant, v = {v}", variant(v) == VARIANTS.get(v, 0))
    lines = [f"- {what}: {'as kept' if agrees else '**not as kept**'}" for what, agrees in found_again]
    good = all(agrees for _, agrees in found_again)
    return EVALUATION.finish(EVALUATION.page("Designs found again", "", lines), good=good)


if __name__ == "__main__":
    sys.exit(main())
