"""Families that hardly ever give a mixture that trains: who they are, on what evidence."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from nngen.analysis.observations import Observation, describe_failures
from nngen.analysis.success_rates import Rate, success_rates

__all__ = ["Exclusion", "LowYield", "low_yield"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """A family that should not be drawn again.

    Attributes:
        success: Of its quartets, those with a family excluded before it left out.
        reason: One sentence for the archive.
    """

    family: str
    success: Rate
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LowYield:
    """What to hand to a sampler.

    Attributes:
        excluded: Worst first.
        kept: The other families, sorted.
        note: Why there is less to exclude than the evidence says; "" otherwise.
    """

    excluded: tuple[Exclusion, ...]
    kept: tuple[str, ...]
    note: str


def low_yield(
    observations: Sequence[Observation],
    families: Collection[str],
    *,
    threshold: float = 0.5,
    confidence: float = 0.95,
    least: int = 4,
) -> LowYield:
    """Find the families whose quartets train too rarely, with evidence.

    A family is low-yield if the upper end of its success rate's Wilson interval lies below the
    threshold. The worst one goes first, and its quartets with it, before the others are judged:
    so nobody is blamed for the company it was in. A family that was never tried is kept.

    Args:
        observations: Trials, failed ones included.
        families: The pool.
        threshold: Success rate, in (0, 1].
        confidence: Of the intervals, in (0, 1).
        least: Families that must remain.

    Raises:
        ValueError: If threshold or confidence is out of range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"a threshold lies above 0 and up to 1, not at {threshold}")
    kept, lines, excluded = sorted(families), list(observations), list[Exclusion]()
    while suspects := _suspects(kept, lines, threshold, confidence):
        if len(kept) <= least:
            names = ", ".join(name for _, name, _ in suspects)
            return LowYield(
                excluded=tuple(excluded),
                kept=tuple(kept),
                note=f"{names} would be next, but a mixture needs {least} families",
            )
        _, name, rate = suspects[0]
        excluded.append(Exclusion(family=name, success=rate, reason=_reason(name, rate, lines, threshold, confidence)))
        kept.remove(name)
        lines = [line for line in lines if name not in line.quartet]
    return LowYield(excluded=tuple(excluded), kept=tuple(kept), note="")


def _suspects(
    families: Sequence[str], lines: Sequence[Observation], threshold: float, confidence: float
) -> list[tuple[float, str, Rate]]:
    rates = success_rates(families, lines, confidence)
    return sorted((rate.high, name, rate) for name, rate in rates.items() if rate.high < threshold)


def _reason(name: str, rate: Rate, lines: Sequence[Observation], threshold: float, confidence: float) -> str:
    own = [line for line in lines if name in line.quartet]
    return (
        f"{name}: {rate.successes} of {rate.tries} quartets trained ({rate.successes / rate.tries:.0%}, "
        f"{confidence:.0%} interval {rate.low:.0%} to {rate.high:.0%}), below {threshold:.0%}; "
        f"failures: {describe_failures(own)}"
    )
