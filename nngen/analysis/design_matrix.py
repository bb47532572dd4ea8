"""Design matrices of a sample of quartets, and the family effects that the sample can identify."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, combinations
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Matrix: TypeAlias = NDArray[np.float64]
Quartet: TypeAlias = tuple[str, ...]

_TINY = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """Estimable family effects of a sample of quartets.

    A difference of two families' effects can be estimated if the design's null space has equal entries
    for both. This relation splits the families into classes: effects are estimated within a class, and
    a family alone in its class has none.
    """

    units: tuple[tuple[str, ...], ...]  # groups of families that are always together; most groups have one family
    # groups of two or more indices into ``units`` that can be compared with one another
    classes: tuple[tuple[int, ...], ...]
    reasons: Mapping[str, str]  # reason, by family, for having no effect
    rank: int  # number of identified unknowns, the mean included
    basis: Matrix  # orthonormal basis of the estimable functions, ``(1 + units, rank)``


def structure(families: Sequence[str], quartets: Sequence[Quartet]) -> Structure:
    """Determine the effects that a sample identifies: one or more different quartets of a sorted pool."""
    counts = Counter(name for quartet in quartets for name in quartet)
    units, reasons = _units(families, quartets, counts)
    matrix = np.column_stack([np.ones(len(quartets)), family_matrix(units, quartets)])
    values, vectors = np.linalg.eigh(matrix.T @ matrix)
    # Directions with eigenvalue zero change no prediction: along them the effects are not identified.
    kept = values > _TINY * max(values[-1], 1.0)
    null, basis = vectors[:, ~kept], vectors[:, kept]
    classes = [members for members in _alike(null[1:]) if len(members) > 1]
    compared = {index for members in classes for index in members}
    for index, unit in enumerate(units):
        if index not in compared:
            for name in unit:
                reasons.setdefault(name, "cannot be separated from the others in this sample")
    return Structure(
        units=units, classes=tuple(map(tuple, classes)), reasons=reasons, rank=int(kept.sum()), basis=basis
    )


def family_matrix(units: Sequence[tuple[str, ...]], quartets: Sequence[Quartet]) -> Matrix:
    """Count the families of each unit in each quartet, ``(quartets, units)``."""
    place = {name: index for index, unit in enumerate(units) for name in unit}
    matrix = np.zeros((len(quartets), len(units)))
    for row, quartet in enumerate(quartets):
        for name in quartet:
            if name in place:
                matrix[row, place[name]] += 1
    return matrix


def pair_matrix(families: Sequence[str], quartets: Sequence[Quartet]) -> csr_array:
    """Mark the pairs of each quartet, ``(quartets, pairs)``, sparse; pairs in the order of ``combinations``."""
    from scipy.sparse import csr_array

    place = {pair: index for index, pair in enumerate(combinations(families, 2))}
    columns = [[place[pair] for pair in combinations(sorted(quartet), 2)] for quartet in quartets]
    ends = np.cumsum([0, *map(len, columns)])
    cells = np.fromiter(chain.from_iterable(columns), dtype=np.intp, count=int(ends[-1]))
    return csr_array((np.ones(len(cells)), cells, ends), shape=(len(quartets), len(place)))


@lru_cache(maxsize=8)
def centred_pairs(families: int) -> Matrix:
    """Return an orthonormal basis of pair effects that sum to zero over each family's pairs, ``(pairs, d)``.

    This is the second degree of the orthogonal decomposition of functions of k-subsets (Filmus
    2016, "An orthogonal basis for functions over a slice of the Boolean hypercube"): the pair effects
    that remain when the families' own effects are removed.
    """
    pairs = list(combinations(range(families), 2))
    incidence = np.zeros((families, len(pairs)))
    for column, pair in enumerate(pairs):
        incidence[list(pair), column] = 1
    if not pairs:
        return np.zeros((0, 0))
    # The null space of the incidence matrix: vectors whose sum over each family's pairs is zero.
    values, vectors = np.linalg.eigh(incidence.T @ incidence)
    return np.ascontiguousarray(vectors[:, values < _TINY * max(values[-1], 1.0)])


def _units(
    families: Sequence[str], quartets: Sequence[Quartet], counts: Mapping[str, int]
) -> tuple[tuple[tuple[str, ...], ...], dict[str, str]]:
    """Remove anchors and absent families, with the reason, and merge families that are always together."""
    reasons: dict[str, str] = {}
    where: dict[str, set[int]] = defaultdict(set)
    for index, quartet in enumerate(quartets):
        for name in quartet:
            where[name].add(index)
    together: dict[frozenset[int], list[str]] = defaultdict(list)
    for name in families:
        if counts.get(name, 0) == 0:
            reasons[name] = "in no quartet that was trained, so evidence is missing"
        elif counts[name] == len(quartets):
            reasons[name] = "in every quartet that was trained, so the effect is part of the mean"
        else:
            together[frozenset(where[name])].append(name)
    return tuple(sorted(tuple(group) for group in together.values())), reasons


def _alike(null: Matrix) -> Iterable[list[int]]:
    """Group equal rows of the null space; groups of one included."""
    groups: list[tuple[Matrix, list[int]]] = []
    for index, row in enumerate(null):
        for first, members in groups:
            if np.abs(first - row).max(initial=0.0) < 1e-6:
                members.append(index)
                break
        else:
            groups.append((row, [index]))
    return [members for _, members in groups]
