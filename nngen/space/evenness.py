"""Measures of how evenly a sample uses families and pairs, compared with a random sample."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from nngen.space.coverage import Coverage, count_variance


@dataclass(frozen=True, slots=True, kw_only=True)
class Evenness:
    """Evenness of the counts of an audit."""

    # shannon entropy of the families' counts over its maximum, 1 when all are equal; None for an empty sample
    family_entropy: float | None
    pair_entropy: float | None
    # gini coefficient of the families' counts, 0 when all are equal; None for an empty sample
    family_gini: float | None
    pair_gini: float | None
    family_expected: tuple[float, float]  # interval of 95 % of the families' counts in a random sample of that size
    pair_expected: tuple[float, float]  # interval of 95 % of the pairs' counts in a random sample of that size
    # statistic of the families' counts against a random sample without repeats; None where nothing is random (no
    # quartet, or all of them)
    chi_square: float | None
    df: int
    # probability of counts at least as uneven in a random sample; near 1 for counts more even than chance
    p: float | None

    def to_dict(self) -> dict[str, Any]:
        """Convert it to JSON types."""
        return asdict(self)


def evenness(audit: Coverage) -> Evenness:
    """Measure how evenly an audited sample uses its pool.

    The chi-square allows for the families of a quartet being different and quartets being drawn
    without repeats: the counts of a random sample have covariance
    ``n p (1 - p) f v / (v - 1) (I - J / v)`` with ``p = k / v`` and ``f = (space - n) / (space - 1)``.
    """
    from scipy.special import chdtrc

    v, k = len(audit.families), audit.k
    family, pair = k / v, k * (k - 1) / (v * (v - 1)) if v > 1 else 0.0
    # Families of a quartet are different, so their counts are correlated: v / (v - 1), as in the covariance above.
    variance = count_variance(audit, family) * v / max(v - 1, 1)
    squares = math.fsum((count - audit.quartets * family) ** 2 for count in audit.families.values())
    chi_square = squares / variance if variance > 0 else None
    return Evenness(
        family_entropy=entropy(audit.families.values()),
        pair_entropy=entropy(audit.pairs.values()),
        family_gini=gini(audit.families.values()),
        pair_gini=gini(audit.pairs.values()),
        family_expected=_expected(audit, family),
        pair_expected=_expected(audit, pair),
        chi_square=chi_square,
        df=v - 1,
        p=None if chi_square is None else float(chdtrc(v - 1, chi_square)),
    )


def entropy(counts: Collection[int]) -> float | None:
    """Return the Shannon entropy of counts over its maximum, in [0, 1]; None if all counts are zero."""
    total = sum(counts)
    if total == 0:
        return None
    if len(counts) == 1:
        return 1.0
    nats = -math.fsum(count / total * math.log(count / total) for count in counts if count)
    return min(1.0, nats / math.log(len(counts)))


def gini(counts: Collection[int]) -> float | None:
    """Return the Gini coefficient of counts, in [0, 1); None if all counts are zero."""
    total = sum(counts)
    if total == 0:
        return None
    weighted = sum(place * count for place, count in enumerate(sorted(counts), 1))
    return 2 * weighted / (len(counts) * total) - (len(counts) + 1) / len(counts)


def _expected(audit: Coverage, share: float) -> tuple[float, float]:
    """Return a 95 % interval of counts: the normal approximation to the hypergeometric, clipped to what is possible."""
    from scipy.special import ndtri

    mean = audit.quartets * share
    half = float(ndtri(0.975)) * math.sqrt(count_variance(audit, share))
    most = min(float(audit.quartets), audit.space * share)
    return max(0.0, mean - half), min(most, mean + half)
