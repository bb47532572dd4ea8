"""The space as arithmetic: k-subsets of n things by number, in constant memory.

Ranks follow the lexicographic order, that of ``itertools.combinations``. They are read off the
combinatorial number system (Knuth, TAOCP 4A, 7.2.1.3), whose natural order is the mirror image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

__all__ = ["rank", "space", "unrank"]


def space(n: int, k: int) -> int:
    """Count the k-subsets of n things."""
    return math.comb(n, k)


def rank(subset: Sequence[int], n: int) -> int:
    """Number a subset of ``range(n)``.

    Args:
        subset: Strictly rising integers in [0, n).
        n: How many things there are.

    Returns:
        Its place in lexicographic order, in [0, C(n, k)).

    Raises:
        ValueError: If the subset is not strictly rising within [0, n).
    """
    if any(a >= b for a, b in pairwise(subset)) or (subset and not 0 <= subset[0] <= subset[-1] < n):
        raise ValueError(f"{tuple(subset)} is not a strictly rising subset of range({n})")
    k = len(subset)
    mirrored = sum(math.comb(n - 1 - item, k - place) for place, item in enumerate(subset))
    return math.comb(n, k) - 1 - mirrored


def unrank(number: int, n: int, k: int) -> tuple[int, ...]:
    """Give the subset of size ``k`` of ``range(n)`` whose rank is ``number``; the inverse of ``rank``.

    Raises:
        ValueError: If ``number`` is outside [0, C(n, k)).
    """
    total = math.comb(n, k)
    if not 0 <= number < total:
        raise ValueError(f"rank {number} is outside [0, {total})")
    rest = total - 1 - number
    subset = []
    top = n - 1
    for size in range(k, 0, -1):
        top = _largest(rest, size, top)
        rest -= math.comb(top, size)
        subset.append(n - 1 - top)
        top -= 1
    return tuple(subset)


def _largest(value: int, size: int, top: int) -> int:
    """Find the largest m <= top with C(m, size) <= value."""
    if value == 0:
        return size - 1
    # C(m, s) is near (m - (s - 1) / 2)^s / s!, so one root lands within a step or two of m.
    root = math.exp(min((math.log(value) + math.lgamma(size + 1)) / size, 700.0))
    guess = max(size - 1, min(top, int(root + (size - 1) / 2)))
    step = 1
    if math.comb(guess, size) <= value:
        low, high = guess, guess + 1
        while high <= top and math.comb(high, size) <= value:
            low, step = high, 2 * step
            high = low + step
        high = min(high, top + 1)
    else:
        low, high = guess - 1, guess
        while math.comb(low, size) > value:
            high, step = low, 2 * step
            low = max(size - 1, high - step)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if math.comb(middle, size) <= value else (low, middle)
    return low
