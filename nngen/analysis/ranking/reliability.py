"""Reliability of the accuracies of one fidelity: noise between seeds, and the ranks that it leaves to candidates.

An accuracy is the candidate's own plus the noise of its seed, both normal (one-way random effects, the estimator of the
analysis of variance). The intraclass correlation ICC is the candidates' share of the variance of one accuracy; the mean
of k seeds has reliability ``R = k ICC / (1 + (k - 1) ICC)``, and no score without noise has a higher Kendall's tau with
it than ``2 / pi * asin(sqrt(R))``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

ASSUMED_SD = 0.014
"""Deviation between seeds where none was measured: that of twelve quartets on CIFAR-10 (eval/results/moe4_table.md)."""

_WANTED = 0.8
_FEWEST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """Reliability of the accuracies of one fidelity."""

    candidates: int  # number of candidates
    replicated: int  # number of those with several seeds
    seeds: float  # median number of seeds of a candidate
    mean: float  # mean accuracy
    between_sd: float  # standard deviation between candidates, without the noise
    noise_sd: float  # standard deviation between seeds of one candidate
    assumed: bool  # whether ``noise_sd`` was assumed, because no candidate has several seeds
    icc: float  # intraclass correlation of one accuracy
    low: float | None  # lower end of its 95 % interval; None where the noise was assumed
    high: float | None  # upper end of that interval
    p: float  # probability of differences as large as these if all candidates were equal

    @property
    def value(self) -> float:
        """Reliability of the candidates' means, in [0, 1]."""
        return self.seeds * self.icc / (1 + (self.seeds - 1) * self.icc)

    @property
    def ceiling(self) -> float:
        """Highest Kendall's tau that a score without noise can have with the means."""
        return 2 / math.pi * math.asin(math.sqrt(self.value))

    @property
    def distinct(self) -> bool:
        """Whether the accuracies differ beyond the noise (5 %)."""
        return self.p < 0.05

    @property
    def seeds_needed(self) -> int | None:
        """Seeds of each candidate for a reliability of 0.8; None where no difference is visible."""
        if self.icc <= 0:
            return None
        seeds = _WANTED / (1 - _WANTED) * (1 - self.icc) / self.icc
        return math.ceil(round(seeds, 9))  # 0.8 / (1 - 0.8) is a little over 4

    @property
    def images_needed(self) -> int | None:
        """Validation images whose sampling error is half the deviation between candidates; None without one."""
        return math.ceil(4 * self.mean * (1 - self.mean) / self.between_sd**2) if self.between_sd > 0 else None

    @property
    def sentence(self) -> str:
        """The finding in one clause, with the remedy where the accuracies do not differ."""
        noise = f"{self.noise_sd:.4f} between seeds" + (" is assumed" if self.assumed else "")
        if not self.distinct:
            remedy = "no difference is visible to plan by"
            if self.seeds_needed is not None:
                remedy = f"differences of {self.between_sd:.4f} would need about {self.seeds_needed:,} seeds each"
                remedy += f" and {self.images_needed:,} validation images"
            return (
                f"the {self.candidates:,} candidates do not differ beyond the noise (p {self.p:.2f}, {noise}): their"
                f" order is chance; {remedy}"
            )
        span = "" if self.low is None else f", 95 % interval {self.low:.2f} to {self.high:.2f}"
        return (
            f"the {self.candidates:,} candidates are told apart with reliability {self.value:.2f} (intraclass"
            f" correlation {self.icc:.2f}{span}; {noise}): no score can rank them with a tau above {self.ceiling:.2f}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Convert everything to JSON types."""
        more = ("value", "ceiling", "distinct", "seeds_needed", "images_needed", "sentence")
        return asdict(self) | {name: getattr(self, name) for name in more}


def reliability(
    means: npt.ArrayLike, seeds: npt.ArrayLike, within: float, images: int | None = None
) -> Reliability | None:
    """Estimate the reliability of the accuracies of one fidelity; None for fewer than three candidates.

    Args:
        means: Mean accuracy of each candidate, ``(n,)``.
        seeds: Number of seeds behind each, ``(n,)``.
        within: Sum of squares of the seeds around their candidates' means.
        images: Number of validation images, whose sampling error is the least noise that is assumed.
    """
    from scipy.special import chdtrc, fdtrc, fdtri

    means, seeds = np.asarray(means, dtype=float), np.asarray(seeds, dtype=float)
    count, trials = len(means), float(seeds.sum())
    if count < _FEWEST:
        return None
    mean = float(seeds @ means / trials)
    df = count - 1, int(trials) - count
    between = float(seeds @ (means - mean) ** 2) / df[0]  # mean square
    size = float(trials - seeds @ seeds / trials) / df[0]  # seeds of a candidate, as the analysis of variance counts
    low, high = None, None
    if df[1]:
        noise = within / df[1]
        ratio = between / noise if noise > 0 else math.inf
        p = float(fdtrc(*df, ratio))
        ends = ratio / float(fdtri(*df, 0.975)), ratio * float(fdtri(*df[::-1], 0.975))
        low, high = (1.0 if math.isinf(end) else max(0.0, (end - 1) / (end - 1 + size)) for end in ends)
    else:
        sampling = mean * (1 - mean) / images if images else 0.0
        noise = max(ASSUMED_SD**2, sampling)
        p = float(chdtrc(df[0], df[0] * between / noise))
    own = max(0.0, (between - noise) / size)
    if between == noise == 0:
        p, low, high = 1.0, None, None
    return Reliability(
        candidates=count,
        replicated=int((seeds > 1).sum()),
        seeds=float(np.median(seeds)),
        mean=mean,
        between_sd=math.sqrt(own),
        noise_sd=math.sqrt(noise),
        assumed=not df[1],
        icc=own / (own + noise) if own else 0.0,
        low=low,
        high=high,
        p=p,
    )


def rank_spans(
    means: Sequence[float], seeds: Sequence[int], half: float | None, images: int
) -> list[tuple[int | None, int | None]]:
    """Return the best and the worst rank that each candidate may have, by the noise of one pair at a time.

    The means are sorted, best first; ``half`` is half the width of one seed's 95 % interval, where it is known.
    """
    if half is None and not images:
        return [(None, None)] * len(means)
    values, counts = np.array(means), np.array(seeds, dtype=float)
    sampling = (
        NormalDist().inv_cdf(0.975) * np.sqrt(2 * values * (1 - values) / images) if images else np.zeros(len(values))
    )
    better, worse = (np.zeros(len(values), dtype=int) for _ in range(2))
    # Others with equally many seeds have one threshold for each candidate, and are counted by a search.
    for number in np.unique(counts):
        others = values[counts == number][::-1]  # ascending
        threshold = np.maximum(sampling, (half or 0.0) * np.sqrt(1 / counts + 1 / number))
        better += len(others) - np.searchsorted(others, values + threshold, side="right")
        worse += np.searchsorted(others, values - threshold, side="left")
    return list(zip((1 + better).tolist(), (len(values) - worse).tolist(), strict=True))


def half_width(places: Iterable[tuple[float, int]]) -> float | None:
    """Return half the width of one seed's 95 % interval; None where all candidates have one seed.

    It comes from the pooled variance between seeds: a row of two seeds would hardly know its own noise.

    Args:
        places: Sum of the squares around the mean and number of seeds of each candidate.
    """
    from scipy.special import stdtrit

    squares, freedom = 0.0, 0
    for square, seeds in places:
        squares += square
        freedom += seeds - 1
    return float(stdtrit(freedom, 0.975)) * math.sqrt(squares / freedom) if freedom else None
