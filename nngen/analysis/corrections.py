"""Corrections for looking at many effects at once."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["benjamini_hochberg", "holm"]


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjust so that the chance of any false finding stays below the level (Holm 1979)."""
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, (len(p_values) - place) * p_values[index])
        adjusted[index] = min(1.0, running)
    return tuple(adjusted)


def benjamini_hochberg(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjust so that the expected share of false findings stays below the level (1995)."""
    adjusted = [0.0] * len(p_values)
    running = 1.0
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    for place in range(len(order), 0, -1):
        index = order[place - 1]
        running = min(running, p_values[index] * len(p_values) / place)
        adjusted[index] = running
    return tuple(adjusted)
