"""Rank of a sample of quartets: whether another quartet makes the effect of one more family estimable."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import product
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

_PRIME = 2**20 - 3  # modulus of the rank; products of two residues summed over a thousand families stay within 64 bits
_PRIOR = 1e-3  # information on each family before the first quartet, which keeps the matrix regular


class RowSpace:
    """The space spanned by the rows of quartets x families (0 or 1), and what another quartet would add to it.

    The effects of all v families can be estimated once it has v dimensions. Dimensions are counted modulo a prime: a
    quartet that adds one there does so in real numbers too, and one that does not is judged otherwise only by a chance
    of one in the prime. All arithmetic is element by element, so that it gives the same result on every machine.
    """

    def __init__(self, families: Iterable[Hashable]) -> None:
        self._place = {name: number for number, name in enumerate(families)}
        # The vectors orthogonal to all rows, as columns, and one mixture of them: a row adds a dimension if it is
        # not orthogonal to every vector, and then hardly ever to the mixture.
        self._null: Ints = np.eye(len(self._place), dtype=np.int64)
        self._mix: Ints = np.array([pow(5, place + 1, _PRIME) for place in range(len(self._place))], dtype=np.int64)
        self._mixture = self._mix
        self._variance: Floats = np.eye(len(self._place)) / _PRIOR

    @property
    def dimensions(self) -> int:
        """Number of dimensions."""
        families, free = self._null.shape
        return int(families - free)

    @property
    def full(self) -> bool:
        """Whether no quartet can add a dimension."""
        return self.dimensions == len(self._null)

    def adds(self, quartet: Iterable[Hashable]) -> bool:
        """Tell whether a quartet adds a dimension."""
        return bool(self.adding(self._block(quartet)[None])[0])

    def leverage(self, quartet: Iterable[Hashable]) -> float:
        """Return by how much a quartet would raise the determinant of the information."""
        return float(self.leverages(self._block(quartet)[None])[0])

    def adding(self, blocks: Ints) -> NDArray[np.bool_]:
        """Tell for each of ``blocks``, ``(m, k)`` places of families, whether it adds a dimension, ``(m,)``."""
        found: NDArray[np.bool_] = self._mixture[blocks].sum(axis=1) % _PRIME != 0
        return found

    def leverages(self, blocks: Ints) -> Floats:
        """Return the leverage of each of ``blocks``, ``(m, k)``; a greedy D-optimal design takes the largest."""
        found: Floats = np.zeros(len(blocks))
        for a, b in product(range(blocks.shape[1]), repeat=2):
            found += self._variance[blocks[:, a], blocks[:, b]]
        return found

    def take(self, quartet: Iterable[Hashable]) -> None:
        """Add a quartet; families that are not among the space's are passed over."""
        block = self._block(quartet)
        if self.full or not len(block):
            return
        spread: Floats = np.zeros(len(self._null))
        for place in block:
            spread = spread + self._variance[place]
        self._variance = self._variance - np.outer(spread, spread) / (1.0 + sum(spread[place] for place in block))
        products = self._null[block].sum(axis=0) % _PRIME
        places = np.flatnonzero(products)
        if not len(places):
            return
        pivot = int(places[0])
        scaled = products * pow(int(products[pivot]), -1, _PRIME) % _PRIME
        rest = (self._null - np.outer(self._null[:, pivot], scaled)) % _PRIME
        self._null = np.delete(rest, pivot, axis=1)
        self._mixture = self._null @ self._mix[: self._null.shape[1]] % _PRIME

    def _block(self, quartet: Iterable[Hashable]) -> Ints:
        return np.array([self._place[name] for name in quartet if name in self._place], dtype=np.int64)


def dimensions(quartets: Iterable[Sequence[str]], families: Sequence[str]) -> int:
    """Count the dimensions of a sample; as many as there are families if the effect of each can be estimated."""
    space = RowSpace(families)
    for quartet in quartets:
        if space.full:
            break
        space.take(quartet)
    return space.dimensions
