"""How often quartets with a family can be trained at all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy.special import ndtri

from nngen.analysis.observations import Observation

__all__ = ["Rate", "success_rates", "trained_quartets", "wilson"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A share of successes with its interval.

    Attributes:
        rate: Successes over tries; None without tries.
        low: Lower end of the interval, in [0, 1].
        high: Upper end.
    """

    successes: int
    tries: int
    rate: float | None
    low: float
    high: float


def wilson(successes: int, tries: int, confidence: float = 0.95) -> Rate:
    """Give a share its score interval (Wilson 1927, JASA 22:209).

    Without tries the interval is all of [0, 1].

    Raises:
        ValueError: If successes are not within the tries, or the confidence not within (0, 1).
    """
    if not 0 <= successes <= tries:
        raise ValueError(f"{successes} successes of {tries} tries")
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1, not at {confidence}")
    if tries == 0:
        return Rate(successes=0, tries=0, rate=None, low=0.0, high=1.0)
    z = float(ndtri(0.5 + confidence / 2))
    share, weight = successes / tries, z * z / tries
    centre = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / tries + weight / (4 * tries)) / (1 + weight)
    return Rate(
        successes=successes,
        tries=tries,
        rate=share,
        low=0.0 if successes == 0 else centre - half,
        high=1.0 if successes == tries else centre + half,
    )


def trained_quartets(observations: Iterable[Observation]) -> Mapping[tuple[str, ...], bool]:
    """Say of each quartet whether any of its trials has an accuracy; seeds are no new tries."""
    trained: dict[tuple[str, ...], bool] = {}
    for line in observations:
        quartet = line.key[0]
        trained[quartet] = trained.get(quartet, False) or line.trained
    return trained


def success_rates(
    families: Sequence[str], observations: Iterable[Observation], confidence: float = 0.95
) -> Mapping[str, Rate]:
    """Give each family the share of its quartets that could be trained."""
    trained = trained_quartets(observations)
    rates = {}
    for name in families:
        outcomes = [good for quartet, good in trained.items() if name in quartet]
        rates[name] = wilson(sum(outcomes), len(outcomes), confidence)
    return rates
