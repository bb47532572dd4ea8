"""Intervals for shares and means, from the textbook formulas."""

from __future__ import annotations

from nngen.analysis.means import Span, mean_interval
from nngen.analysis.success_rates import wilson

__all__ = ["Span", "mean_interval", "share_interval"]


def share_interval(hits: int, trials: int) -> Span:
    """Wilson's 95 % score interval of a share (Wilson 1927); (0, 1) where nothing was tried."""
    found = wilson(hits, trials)
    return found.low, found.high
