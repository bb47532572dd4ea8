"""Low-yield families: families whose quartets can hardly ever be trained, with the evidence."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from nngen.analysis.observations import Observation, describe_failures, success_rates
from nngen.analysis.statistics import Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """A family that should not be drawn again.

    Attributes:
        success: Success rate over its quartets, those with a family excluded earlier left out.
        reason: Evidence in one clause, for the archive.
    """

    family: str
    success: Rate
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LowYield:
    """Families to exclude and to keep.

    Attributes:
        excluded: Excluded families, worst first.
        kept: The other families, sorted.
        note: Reason for excluding fewer than the evidence supports; "" otherwise.
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
    """Find the families whose quartets train too rarely.

    A family is low-yield if the upper end of its success rate's Wilson interval lies below the
    threshold. The worst family is excluded first, together with its quartets, before the others are
    evaluated: a family is not excluded because of another one in its quartets. Untried families are kept.

    Args:
        observations: Trials, failed ones included.
        families: The pool.
        threshold: Success rate, in (0, 1].
        confidence: Confidence of the intervals, in (0, 1).
        least: Number of families that must remain.

    Raises:
        ValueError: If threshold or confidence is out of range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"a threshold must be above 0 and at most 1, not {threshold}")
    kept, lines, excluded = sorted(families), list(observations), list[Exclusion]()
    note = ""
    while True:
        rates = success_rates(kept, lines, confidence)
        suspects = sorted((rate.high, name) for name, rate in rates.items() if rate.high < threshold)
        if suspects and len(kept) <= least:
            note = f"{', '.join(name for _, name in suspects)} would be next, but a mixture needs {least} families"
        if not suspects or note:
            return LowYield(excluded=tuple(excluded), kept=tuple(kept), note=note)
        name = suspects[0][1]
        rate = rates[name]
        reason = (
            f"{name}: {rate.successes} of {rate.tries} quartets trained ({rate.successes / rate.tries:.0%}, "
            f"{confidence:.0%} interval {rate.low:.0%} to {rate.high:.0%}), below {threshold:.0%}; "
            f"failures: {describe_failures(line for line in lines if name in line.quartet)}"
        )
        excluded.append(Exclusion(family=name, success=rate, reason=reason))
        kept.remove(name)
        lines = [line for line in lines if name not in line.quartet]
