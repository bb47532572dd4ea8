"""Means and differences of means with their intervals, from the textbook formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev, variance
from typing import TypeAlias

from scipy.special import stdtrit

__all__ = ["Span", "difference_interval", "mean_interval"]

Span: TypeAlias = tuple[float, float]


def mean_interval(values: Sequence[float]) -> Span | None:
    """Student's 95 % interval of a mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    half = float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / math.sqrt(len(values))
    middle = fmean(values)
    return middle - half, middle + half


def difference_interval(ones: Sequence[float], others: Sequence[float]) -> Span | None:
    """Welch's 95 % interval of the difference of two means (Welch 1947); None for fewer than two values on a side."""
    if len(ones) < 2 or len(others) < 2:
        return None
    first, second = variance(ones) / len(ones), variance(others) / len(others)
    middle = fmean(ones) - fmean(others)
    if first + second == 0:
        return middle, middle
    freedom = (first + second) ** 2 / (first**2 / (len(ones) - 1) + second**2 / (len(others) - 1))
    half = float(stdtrit(freedom, 0.975)) * math.sqrt(first + second)
    return middle - half, middle + half
