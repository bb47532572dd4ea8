"""Audit of a sample of quartets: coverage of the space, bias, and the conclusions it supports."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, repeat
from typing import Any, TypeAlias

from nngen.space.pool import Pool, Quartet
from nngen.text import listed

Pair: TypeAlias = tuple[str, str]

_BIASED_Z = 4.0  # standard deviations beyond which a family's count counts as biased (one in 16,000 by chance)

_RARE = 0.01  # probability of a family being in every quartet below which an anchor counts as bias

_FIGURES = (
    *("quartets", "space", "share", "families", "pairs", "family_range", "pair_range", "triple_range"),
    *("unseen_pairs", "anchors", "absent", "biased", "verdict"),
)
"""Figures of an audit in the order of its JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """An audit of a sample."""

    quartets: int  # different quartets in the sample
    space: int  # quartets that the pool has
    k: int  # families per quartet
    families: Mapping[str, int]  # quartets per family, zeros included, sorted by name
    pairs: Mapping[Pair, int]  # quartets per pair of families, zeros included, names sorted within a pair
    triple_range: int  # largest less smallest count of a triple

    @property
    def share(self) -> float:
        """Share of the space that was sampled, in [0, 1]."""
        return self.quartets / self.space

    @property
    def family_range(self) -> int:
        """Largest less smallest count of a family."""
        return _range(self.families.values(), len(self.families))

    @property
    def pair_range(self) -> int:
        """Largest less smallest count of a pair."""
        return _range(self.pairs.values(), len(self.pairs))

    @property
    def unseen_pairs(self) -> tuple[Pair, ...]:
        return tuple(pair for pair, count in self.pairs.items() if count == 0)

    @property
    def anchors(self) -> tuple[str, ...]:
        """Families in every quartet."""
        return tuple(name for name, count in self.families.items() if self.quartets and count == self.quartets)

    @property
    def absent(self) -> tuple[str, ...]:
        """Families in no quartet."""
        return tuple(name for name, count in self.families.items() if count == 0)

    @property
    def biased(self) -> bool:
        """Whether the families are used more unevenly than chance explains."""
        anchored = bool(self.anchors) and (self.k / len(self.families)) ** self.quartets < _RARE
        return anchored or self._odd() is not None

    @property
    def verdict(self) -> str:
        """Conclusion that the sample supports, as one clause."""
        if self.quartets == 0:
            return "no quartet was sampled: nothing can be said about any family"
        if self.quartets >= self.space:
            return f"the whole space was sampled ({self.quartets:,} of {self.space:,} quartets)"
        for start, names, link in (
            ("every quartet contains", self.anchors, "without"),
            ("no quartet contains", self.absent, "with"),
        ):
            if names:
                them = "it" if len(names) == 1 else "them"
                return f"{start} {listed(names, 6)}: nothing can be said about quartets {link} {them}"
        odd = self._odd()
        if odd is not None:
            return (
                f"the sample is biased: {odd} is in {self.families[odd]:,} of {self.quartets:,} quartets,"
                f" {self._expected():.1f} are expected"
            )
        low, high = min(self.families.values()), max(self.families.values())
        times = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        unseen = f"{len(self.unseen_pairs):,} of {len(self.pairs):,} pairs were never seen together"
        tail = unseen if self.unseen_pairs else "every pair was seen together"
        return f"every family is in {times} of {self.quartets:,} quartets; {tail}"

    def _expected(self) -> float:
        return self.quartets * self.k / len(self.families)

    def _odd(self) -> str | None:
        """Return the family whose count deviates most, if chance does not explain it; None otherwise."""
        # The largest of v deviations decides, so the border lies far beyond the usual two standard deviations.
        deviation = {name: abs(count - self._expected()) for name, count in self.families.items()}
        name = max(deviation, key=deviation.__getitem__)
        spread = math.sqrt(count_variance(self, self.k / len(self.families)))
        return name if deviation[name] > _BIASED_Z * spread else None

    def to_dict(self) -> dict[str, Any]:
        """Convert the audit to JSON types; a pair becomes ``[first, second, count]``."""
        plain = {name: getattr(self, name) for name in _FIGURES}
        return plain | {"pairs": [[*pair, count] for pair, count in self.pairs.items()]}


def coverage(families: Sequence[str], quartets: Iterable[Quartet], k: int = 4) -> Coverage:
    """Audit a sample of quartets against its pool; repeats are counted once, whatever the order within a quartet.

    Quartets with a family outside of the pool are left out.

    Raises:
        FamilyError: If a family is named twice.
        UsageError: If there are fewer than ``k`` families.
    """
    pool = Pool.of(families, k)
    known = frozenset(pool.families)
    sample = {tuple(sorted(quartet)) for quartet in quartets if known.issuperset(quartet)}
    singles, pairs, triples = (
        Counter(chain.from_iterable(map(combinations, sample, repeat(size)))) for size in (1, 2, 3)
    )
    return Coverage(
        quartets=len(sample),
        space=pool.space,
        k=k,
        families={name: singles[(name,)] for name in pool.families},
        pairs={(a, b): pairs[(a, b)] for a, b in combinations(pool.families, 2)},
        triple_range=_range(triples.values(), math.comb(len(pool.families), 3)),
    )


def count_variance(audit: Coverage, share: float) -> float:
    """Return the variance of a count, by its share of the space, in a uniform sample without repeats."""
    # Drawing without repeats makes counts less variable, and constant at the end.
    left = (audit.space - audit.quartets) / max(audit.space - 1, 1)
    return audit.quartets * share * (1 - share) * left


def _range(counts: Collection[int], possible: int) -> int:
    """Return the largest less the smallest count; parts in no quartet count as zero."""
    if not counts:
        return 0
    return max(counts) - (min(counts) if len(counts) == possible else 0)
