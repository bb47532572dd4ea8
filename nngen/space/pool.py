"""The families that quartets are drawn from, and their quartets by number."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Self, TypeAlias

from nngen.errors import FamilyError, UsageError
from nngen.space.ranks import rank, space, unrank

__all__ = ["EXPERTS", "Pool", "Quartet"]

EXPERTS = 4
"""Families in a quartet."""

Quartet: TypeAlias = tuple[str, ...]
"""The names of ``k`` different families, sorted (four, unless the pool says otherwise)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Families in sorted order and the size of a quartet; build it with ``of``."""

    families: tuple[str, ...]
    k: int = EXPERTS

    @classmethod
    def of(cls, families: Iterable[str], k: int = EXPERTS) -> Self:
        """Sort the names, so that the order in which they were typed does not matter.

        Raises:
            FamilyError: If a family is named twice.
            UsageError: If there are fewer than ``k`` families.
        """
        names = tuple(sorted(families))
        twice = sorted({a for a, b in pairwise(names) if a == b})
        if twice:
            raise FamilyError(f"named more than once: {', '.join(twice)}")
        if not 1 <= k <= len(names):
            raise UsageError(f"a mixture takes {k} different families, but there are only {len(names)}")
        return cls(families=names, k=k)

    @property
    def space(self) -> int:
        """How many quartets there are."""
        return space(len(self.families), self.k)

    def quartet(self, number: int) -> Quartet:
        """Give the quartet of that lexicographic rank."""
        return tuple(self.families[index] for index in unrank(number, len(self.families), self.k))

    def rank(self, quartet: Iterable[str]) -> int:
        """Give a quartet's lexicographic rank; the inverse of ``quartet``.

        Raises:
            FamilyError: If a name is not in the pool.
        """
        names = sorted(quartet)
        unknown = [name for name in names if name not in self.families]
        if unknown:
            raise FamilyError(f"not in the pool: {', '.join(unknown)}")
        return rank([self.families.index(name) for name in names], len(self.families))
