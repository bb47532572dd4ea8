"""Intervals for shares and means, from the textbook formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import TypeAlias

from scipy.special import stdtrit

__all__ = ["Span", "mean_interval", "share_interval"]

Span: TypeAlias = tuple[float, float]

_Z = 1.959964


def share_interval(hits: int, trials: int) -> Span:
    """Wilson's 95 % score interval of a share (Wilson 1927); (0, 1) where nothing was tried."""
    if trials == 0:
        return 0.0, 1.0
    share, square = hits / trials, _Z * _Z
    middle = (share + square / (2 * trials)) / (1 + square / trials)
    half = _Z / (1 + square / trials) * math.sqrt(share * (1 - share) / trials + square / (4 * trials * trials))
    # Rounding must not push the share itself out of its interval.
    return max(min(middle - half, share), 0.0), min(max(middle + half, share), 1.0)


def mean_interval(values: Sequence[float]) -> Span | None:
    """Student's 95 % interval of a mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    half = float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / math.sqrt(len(values))
    middle = fmean(values)
    return middle - half, middle + half
