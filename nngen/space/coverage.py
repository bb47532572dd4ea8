"""Audit of a sample of quartets: coverage of the space, bias, and the conclusions it supports."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeAlias

from nngen.space.pool import Pool, Quartet
from nngen.text import listed

Pair: TypeAlias = tuple[str, str]

_BIASED_Z = 4.0
"""Standard deviations beyond which a family's count counts as biased (one in 16,000 by chance)."""

_RARE = 0.01
"""Probability of a family being in every quartet below which an anchor counts as bias."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """An audit of a sample.

    Attributes:
        quartets: Different quartets in the sample.
        space: Quartets that the pool has.
        share: Their ratio, in [0, 1].
        families: Quartets per family, zeros included, sorted by name.
        pairs: Quartets per pair of families, zeros included, names sorted within a pair.
        family_range: Largest less smallest count of a family.
        pair_range: Largest less smallest count of a pair.
        triple_range: Largest less smallest count of a triple.
        unseen_pairs: Pairs in no quartet.
        anchors: Families in every quartet.
        absent: Families in no quartet.
        biased: Whether the families are used more unevenly than chance explains.
        verdict: Conclusion that the sample supports, as one clause.
    """

    quartets: int
    space: int
    share: float
    families: Mapping[str, int]
    pairs: Mapping[Pair, int]
    family_range: int
    pair_range: int
    triple_range: int
    unseen_pairs: tuple[Pair, ...]
    anchors: tuple[str, ...]
    absent: tuple[str, ...]
    biased: bool
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """Convert the audit to JSON types; a pair becomes ``[first, second, count]``."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        return plain | {
            "families": dict(self.families),
            "pairs": [[*pair, count] for pair, count in self.pairs.items()],
            "unseen_pairs": [list(pair) for pair in self.unseen_pairs],
            "anchors": list(self.anchors),
            "absent": list(self.absent),
        }


def coverage(families: Sequence[str], quartets: Iterable[Quartet], k: int = 4) -> Coverage:
    """Audit a sample of quartets against the pool it was drawn from.

    Args:
        families: The pool.
        quartets: The sample; repeats are counted once, order within a quartet does not matter.
        k: Families per quartet.

    Raises:
        FamilyError: If a family is named twice.
        UsageError: If there are fewer than ``k`` families.
    """
    pool = Pool.of(families, k)
    sample = {tuple(sorted(quartet)) for quartet in quartets}
    singles, pairs = (_counts(pool, sample, size) for size in (1, 2))
    by_family = {name: singles[(name,)] for name in pool.families}
    by_pair = {(a, b): pairs[(a, b)] for a, b in combinations(pool.families, 2)}
    anchors = tuple(name for name, count in by_family.items() if sample and count == len(sample))
    absent = tuple(name for name, count in by_family.items() if count == 0)
    return Coverage(
        quartets=len(sample),
        space=pool.space,
        share=len(sample) / pool.space,
        families=by_family,
        pairs=by_pair,
        family_range=_range(by_family.values(), len(pool.families)),
        pair_range=_range(by_pair.values(), len(by_pair)),
        triple_range=_range(_counts(pool, sample, 3).values(), math.comb(len(pool.families), 3)),
        unseen_pairs=tuple(pair for pair, count in by_pair.items() if count == 0),
        anchors=anchors,
        absent=absent,
        biased=bool(anchors and (pool.k / len(pool.families)) ** len(sample) < _RARE)
        or _odd(pool, len(sample), by_family) is not None,
        verdict=_verdict(pool, len(sample), by_family, by_pair, anchors, absent),
    )


def _counts(pool: Pool, sample: Collection[Quartet], size: int) -> Counter[tuple[str, ...]]:
    known = frozenset(pool.families)  # a sample may hold quartets of other pools: only the pool's families count
    inside = (quartet if known.issuperset(quartet) else tuple(n for n in quartet if n in known) for quartet in sample)
    return Counter(part for quartet in inside for part in combinations(quartet, size))


def _range(counts: Collection[int], possible: int) -> int:
    """Return the largest less the smallest count; parts in no quartet count as zero."""
    if not counts:
        return 0
    return max(counts) - (min(counts) if len(counts) == possible else 0)


def _verdict(
    pool: Pool,
    size: int,
    families: Mapping[str, int],
    pairs: Mapping[Pair, int],
    anchors: Sequence[str],
    absent: Sequence[str],
) -> str:
    if size == 0:
        return "no quartet was sampled: nothing can be said about any family"
    if size >= pool.space:
        return f"the whole space was sampled ({size:,} of {pool.space:,} quartets)"
    if anchors:
        return (
            f"every quartet contains {listed(anchors, 6)}: nothing can be said about quartets without {_them(anchors)}"
        )
    if absent:
        return f"no quartet contains {listed(absent, 6)}: nothing can be said about quartets with {_them(absent)}"
    low, high = min(families.values()), max(families.values())
    odd = _odd(pool, size, families)
    if odd is not None:
        expected = size * pool.k / len(families)
        return f"the sample is biased: {odd} is in {families[odd]:,} of {size:,} quartets, {expected:.1f} are expected"
    times = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    unseen = sum(count == 0 for count in pairs.values())
    tail = f"{unseen:,} of {len(pairs):,} pairs were never seen together" if unseen else "every pair was seen together"
    return f"every family is in {times} of {size:,} quartets; {tail}"


def _odd(pool: Pool, size: int, families: Mapping[str, int]) -> str | None:
    """Return the family whose count deviates most, if chance does not explain it; None otherwise."""
    expected = size * pool.k / len(families)
    name = max(families, key=lambda name: abs(families[name] - expected))
    return name if abs(families[name] - expected) > _BIASED_Z * _spread(pool, size) else None


def _spread(pool: Pool, size: int) -> float:
    """Return the standard deviation of a family's count in a uniform sample without repeats (hypergeometric)."""
    share = pool.k / len(pool.families)
    return math.sqrt(size * share * (1 - share) * (pool.space - size) / max(pool.space - 1, 1))


def _them(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"
