"""A pool of families and its quartets by lexicographic rank, in constant memory."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Self, TypeAlias

from more_itertools import combination_index, nth_combination

from nngen.errors import FamilyError, UsageError

EXPERTS = 4
"""Families in a quartet."""

Quartet: TypeAlias = tuple[str, ...]
"""The names of ``k`` different families, sorted (four, unless the pool states another number)."""


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
        """Number of quartets."""
        return math.comb(len(self.families), self.k)

    def quartet(self, number: int) -> Quartet:
        """Return the quartet of a lexicographic rank, that of ``itertools.combinations``.

        Raises:
            IndexError: If the rank is outside [0, space).
        """
        # Checked here: nth_combination counts negative numbers from the end.
        if not 0 <= number < self.space:
            raise IndexError(f"rank {number} is outside [0, {self.space})")
        return nth_combination(self.families, self.k, number)

    def rank(self, quartet: Iterable[str]) -> int:
        """Return a quartet's lexicographic rank; the inverse of ``quartet``.

        Raises:
            FamilyError: If a name is not in the pool, or occurs twice.
        """
        names = sorted(quartet)
        unknown = [name for name in names if name not in self.families]
        if unknown:
            raise FamilyError(f"not in the pool: {', '.join(unknown)}")
        try:
            return combination_index(names, self.families)
        except ValueError:
            raise FamilyError(f"{', '.join(names)}: a family is named more than once") from None
