"""Sources that are the same program, or nearly: by LEMUR's id, by the parsed tree, by MinHash."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from nngen.assembly.identity import canonical_hash
from nngen.lemur.layout import nn_id

__all__ = ["PERMUTATIONS", "SHINGLE", "THRESHOLD", "Fingerprint", "Twins", "find_twins", "fingerprint", "same"]

PERMUTATIONS = 128
SHINGLE = 7
"""Tokens per shingle; it and the permutations are those of nn-dataset 2.2.11's own similarity table."""

THRESHOLD = 0.9
"""Estimated Jaccard similarity from which two sources are near-twins."""

_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What a source is compared by.

    Attributes:
        canonical: None where the source does not parse.
        minhash: ``(PERMUTATIONS,)`` uint64 values over the source's shingles.
    """

    nn_id: str
    canonical: str | None
    minhash: npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Twins:
    """Groups of two or more names that share a source in one of three senses; each group sorted.

    Attributes:
        white_space: Equal but for white space (LEMUR's id).
        canonical: Equal trees.
        near: Each at least ``THRESHOLD`` similar to the first of its group.
    """

    white_space: tuple[tuple[str, ...], ...]
    canonical: tuple[tuple[str, ...], ...]
    near: tuple[tuple[str, ...], ...]


def fingerprint(source: str) -> Fingerprint:
    """Compute all three identities of a source; one that does not parse has no canonical hash."""
    try:
        canonical: str | None = canonical_hash(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        canonical = None
    found = _empty().copy()
    found.update_batch(_shingles(source))
    return Fingerprint(nn_id=nn_id(source), canonical=canonical, minhash=found.hashvalues)


def find_twins(prints: Mapping[str, Fingerprint]) -> Twins:
    """Group what is the same and what is nearly the same.

    A near-twin joins the first earlier source (by name) that it resembles and that leads a group;
    comparing all with all would take hours where thousands resemble each other.
    """
    names = sorted(prints)
    return Twins(
        white_space=same((name, prints[name].nn_id) for name in names),
        canonical=same((name, prints[name].canonical) for name in names),
        near=_near(names, prints),
    )


def same(keys: Iterable[tuple[str, str | None]]) -> tuple[tuple[str, ...], ...]:
    """Group names by key; those without a key, and groups of one, are left out."""
    groups: dict[str, list[str]] = {}
    for name, key in keys:
        if key is not None:
            groups.setdefault(key, []).append(name)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _near(names: Sequence[str], prints: Mapping[str, Fingerprint]) -> tuple[tuple[str, ...], ...]:
    from datasketch import MinHashLSH

    leaders = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    groups: dict[str, list[str]] = {}
    for name in names:
        mine = _minhash(prints[name])
        alike = {leader: _share(prints[leader], prints[name]) for leader in sorted(leaders.query(mine))}
        best = max(alike, key=lambda leader: alike[leader], default=None)
        if best is not None and alike[best] >= THRESHOLD:
            groups[best].append(name)
        else:
            leaders.insert(name, mine)
            groups[name] = [name]
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _share(one: Fingerprint, other: Fingerprint) -> float:
    """Estimate the Jaccard similarity of two sources' shingles (Broder 1997)."""
    return float(np.mean(one.minhash == other.minhash))


def _shingles(source: str) -> list[bytes]:
    tokens = _TOKEN.findall(source)
    count = max(1, len(tokens) - SHINGLE + 1)
    return sorted({" ".join(tokens[start : start + SHINGLE]).encode() for start in range(count)})


@lru_cache(maxsize=1)
def _empty() -> Any:
    """An empty MinHash: its permutations are drawn once and shared by all copies."""
    from datasketch import MinHash

    return MinHash(num_perm=PERMUTATIONS, hashfunc=zlib.crc32)


def _minhash(found: Fingerprint) -> Any:
    made = _empty().copy()
    made.hashvalues = found.minhash
    return made
