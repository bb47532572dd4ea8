"""Intervals of shares and means, and corrections for multiple comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev, variance
from typing import TypeAlias

import numpy as np

Span: TypeAlias = tuple[float, float]
"""Lower and upper end of an interval."""

_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A share of successes with its interval."""

    successes: int
    tries: int
    rate: float | None  # successes over tries; None without tries
    low: float  # lower end of the interval, in [0, 1]
    high: float  # upper end of the interval, in [0, 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An effect in accuracy (0.01 is one point) with its interval and error probability.

    Attributes:
        p: Two-sided error probability of the hypothesis that the effect is zero.
        p_adjusted: ``p`` corrected for the number of effects.
    """

    effect: float
    low: float
    high: float
    p: float
    p_adjusted: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A mean difference in accuracy with its 95 % interval, whose ends are None where it cannot be given."""

    mean: float
    low: float | None
    high: float | None


def wilson(successes: int, tries: int, confidence: float = 0.95) -> Rate:
    """Return a share with its score interval (Wilson 1927); without tries the interval is [0, 1].

    Raises:
        ValueError: If successes are not within the tries, or the confidence is not within (0, 1).
    """
    if not 0 <= successes <= tries:
        raise ValueError(f"{successes} successes of {tries} tries")
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence must be between 0 and 1, not {confidence}")
    if tries == 0:
        return Rate(successes=0, tries=0, rate=None, low=0.0, high=1.0)
    low, high = share_interval(successes / tries, tries, confidence)
    return Rate(successes=successes, tries=tries, rate=successes / tries, low=low, high=high)


def share_interval(share: float, tries: int, confidence: float = 0.95) -> Span:
    """Return the score interval of a share of ``tries`` (Wilson 1927); the share may be a mean over several counts.

    ``scipy.stats.binomtest`` computes the same for whole counts, but takes half a second to import.
    """
    square = _NORMAL.inv_cdf(0.5 + confidence / 2) ** 2
    middle = (share + square / (2 * tries)) / (1 + square / tries)
    half = math.sqrt(square * (share * (1 - share) / tries + square / (4 * tries**2))) / (1 + square / tries)
    return max(0.0, middle - half), min(1.0, middle + half)


def mean_interval(values: Sequence[float]) -> Span | None:
    """Return Student's 95 % interval of a mean; None for fewer than two values."""
    from scipy.special import stdtrit

    if len(values) < 2:
        return None
    half = float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / math.sqrt(len(values))
    middle = fmean(values)
    return middle - half, middle + half


def mean_share_interval(values: Sequence[float]) -> Span | None:
    """Return the interval of a mean of shares, such as accuracies, within [0, 1]; None for fewer than two."""
    span = mean_interval(values)
    return span and (max(span[0], 0.0), min(span[1], 1.0))


def difference_interval(ones: Sequence[float], others: Sequence[float]) -> Span | None:
    """Return Welch's 95 % interval of a difference of means (Welch 1947); None for fewer than two values on a side.

    ``scipy.stats.ttest_ind`` computes the same, but warns and returns nan where one side has no spread.
    """
    from scipy.special import stdtrit

    if len(ones) < 2 or len(others) < 2:
        return None
    first, second = variance(ones) / len(ones), variance(others) / len(others)
    middle = fmean(ones) - fmean(others)
    if first + second == 0:
        return middle, middle
    df = (first + second) ** 2 / (first**2 / (len(ones) - 1) + second**2 / (len(others) - 1))
    half = float(stdtrit(df, 0.975)) * math.sqrt(first + second)
    return middle - half, middle + half


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjust error probabilities so that the chance of any false finding is bounded (Holm 1979)."""
    values = np.array(p_values, dtype=float)
    order, adjusted = np.argsort(values), np.empty(len(values))
    # The smallest is multiplied by n, the next by n - 1, ...; none may fall below the one before it.
    adjusted[order] = np.maximum.accumulate(np.arange(len(values), 0, -1) * values[order]).clip(max=1.0)
    return tuple(adjusted.tolist())


def benjamini_hochberg(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjust error probabilities so that the expected share of false findings is bounded (1995).

    ``scipy.stats.false_discovery_control`` computes the same, but takes half a second to import.
    """
    values = np.array(p_values, dtype=float)
    order, adjusted = np.argsort(values), np.empty(len(values))
    # The largest is multiplied by n / n, the next by n / (n - 1), ...; none may exceed the one after it.
    scaled = values[order] * len(values) / np.arange(1, len(values) + 1)
    adjusted[order] = np.minimum.accumulate(scaled[::-1])[::-1].clip(max=1.0)
    return tuple(adjusted.tolist())
