"""Recovery of planted effects: 203 quartets of 29 families, 100 repetitions, every sampler.

Each repetition plants one truth: normally distributed family effects, pair effects and quartet effects, and noise
between seeds. Every sampler draws 203 quartets, one seed each. The estimated order of the families is compared with the
planted one (Kendall's tau-b; a family without an estimate counts as zero), and the coverage of the 95 % intervals is
counted.

Variances come from a measurement on 37 quartets with two seeds: Kendall's tau is 0.29 between the seeds, and 0.38
between additive family effects and the mean of both seeds. They follow from tau = 2/pi asin(r), Greiner's relation for
normal variables. The variance that families do not explain is divided equally between pairs and single quartets; this
division is an assumption.

    python eval/effects_simulation.py [--repetitions 100] [--seeds 0 1 2 3] [--write]

Exit code 1 if a coverage is outside 93 to 97 %, or if ``balanced`` is not better than ``random`` and ``lexicographic``,
or is worse than ``stratified`` beyond the error of the comparison.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from _page import Evaluation, table
from scipy.stats import kendalltau, t

from nngen.analysis.design_matrix import centred_pairs
from nngen.analysis.effects import Effects, effects
from nngen.analysis.observations import Observation
from nngen.seeds import derive
from nngen.space import SAMPLERS, draw

EVALUATION = Evaluation(__file__, __doc__)
COLUMNS = (
    "seed",
    "sampler",
    "Kendall's tau, 95 % interval",
    "family intervals that hold",
    "pair intervals that hold",
    "families with an interval",
    "width",
)
FAMILIES = [f"{number:02d}" for number in range(29)]
SIZE = 203
TAU_BETWEEN_SEEDS, TAU_FAMILIES = 0.29, 0.38
HELD = (0.93, 0.97)


def variances() -> tuple[float, float]:
    """Return the variance of a quartet's true accuracy, and the part due to families; noise between seeds is 1."""
    reliability = math.sin(math.pi / 2 * TAU_BETWEEN_SEEDS)
    of_mean = 2 * reliability / (1 + reliability)  # Spearman-Brown, two seeds
    families = math.sin(math.pi / 2 * TAU_FAMILIES) ** 2 / of_mean
    signal = reliability / (1 - reliability)
    return signal, families * signal


class Truth:
    """Planted effects: family effects that sum to zero, centred pair effects, one effect per quartet."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        signal, families = variances()
        v, k = len(FAMILIES), 4
        rest = (signal - families) / 2
        # The variance of a sum over a random quartet, by the number of families and of pairs in it.
        effects_ = rng.normal(size=v)
        effects_ -= effects_.mean()
        self.families = effects_ * math.sqrt(families / (k * (v - k) / (v - 1)))
        basis = centred_pairs(v)
        pairs = basis @ rng.normal(size=basis.shape[1])
        typical = sum(basis[place] @ basis[other] for place, other in self._within(v, k))
        self.pairs = dict(zip(combinations(range(v), 2), pairs * math.sqrt(rest / typical), strict=True))
        self.quirk = math.sqrt(rest)
        self.seed = seed

    @staticmethod
    def _within(v: int, k: int) -> list[tuple[int, int]]:
        place = {pair: index for index, pair in enumerate(combinations(range(v), 2))}
        inside = [place[pair] for pair in combinations(range(k), 2)]
        return [(a, b) for a in inside for b in inside]

    def accuracy(self, quartet: Sequence[str]) -> float:
        """Return the accuracy of one trial; a quartet has the same accuracy for every sampler."""
        members = sorted(int(name) for name in quartet)
        rng = np.random.default_rng([self.seed, *members])
        own = sum(self.families[member] for member in members)
        together = sum(self.pairs[pair] for pair in combinations(members, 2))
        return float(own + together + self.quirk * rng.normal() + rng.normal())


def one(name: str, seed: int) -> dict[str, float]:
    """Run one repetition of one sampler; return tau, the number of intervals and the number that cover."""
    truth = Truth(derive(seed, "truth"))
    quartets = draw(name, FAMILIES, SIZE, derive(seed, "draw"))
    found = effects([Observation(quartet=quartet, accuracy=truth.accuracy(quartet)) for quartet in quartets], FAMILIES)
    points = {row.family: row.point or 0.0 for row in found.families}
    tau = kendalltau([points[family] for family in FAMILIES], truth.families).statistic
    return {"tau": float(tau)} | _held(found, truth)


def _held(found: Effects, truth: Truth) -> dict[str, float]:
    rows = [(int(row.family), row.interval) for row in found.families if row.interval is not None]
    mean = float(np.mean([truth.families[family] for family, _ in rows]))
    families = [interval.low <= truth.families[family] - mean <= interval.high for family, interval in rows]
    pairs = [
        row.interval.low <= truth.pairs[int(row.families[0]), int(row.families[1])] <= row.interval.high
        for row in found.pairs
    ]
    width = float(np.mean([interval.high - interval.low for _, interval in rows]))
    return {
        "family_intervals": len(families),
        "family_held": sum(families),
        "pair_intervals": len(pairs),
        "pair_held": sum(pairs),
        "width": width,
    }


def summary(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return means over the repetitions, with the 95 % interval of the mean tau."""
    taus = np.array([run["tau"] for run in runs])
    half = interval(taus)
    return {
        "tau": round(float(taus.mean()), 4),
        "tau_low": round(float(taus.mean() - half), 4),
        "tau_high": round(float(taus.mean() + half), 4),
        "family_coverage": round(
            sum(run["family_held"] for run in runs) / sum(run["family_intervals"] for run in runs), 4
        ),
        "pair_coverage": round(sum(run["pair_held"] for run in runs) / sum(run["pair_intervals"] for run in runs), 4),
        "families_told": round(float(np.mean([run["family_intervals"] for run in runs])), 2),
        "interval_width": round(float(np.mean([run["width"] for run in runs])), 4),
    }


def interval(values: np.ndarray) -> float:
    """Return half the width of the 95 % interval of a mean."""
    return float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))


def failures(table: Mapping[str, Mapping[str, float]], runs: Mapping[str, Sequence[Mapping[str, float]]]) -> list[str]:
    """List the claims that are not met."""
    # Lexicographic samples do not identify these effects; tests check that this is reported.
    found = [
        f"{name}: {what} is {row[what]:.3f}, outside {HELD[0]} to {HELD[1]}"
        for name, row in table.items()
        for what in ("family_coverage", "pair_coverage")
        if name != "lexicographic" and not HELD[0] <= row[what] <= HELD[1]
    ]
    if "balanced" in runs:
        balanced = np.array([run["tau"] for run in runs["balanced"]])
        for other in (name for name in runs if name != "balanced"):
            gain = balanced - np.array([run["tau"] for run in runs[other]])
            needed = -interval(gain) if other == "stratified" else 0.0
            if gain.mean() <= needed:
                found.append(f"balanced less {other}: tau {gain.mean():+.4f}")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the simulation, print the table, and list the claims that are not met."""
    seeds = ([0], "each one a simulation of its own")
    given = EVALUATION.arguments(argv, repetitions=100, seeds=seeds)
    started = time.perf_counter()
    lines, wrong = [], []
    for seed in given.seeds:
        names = [name for name in ("balanced", "stratified", "random", "lexicographic") if name in SAMPLERS]
        runs = {name: [one(name, derive(seed, turn)) for turn in range(given.repetitions)] for name in names}
        summaries = {name: summary(rows) for name, rows in runs.items()}
        lines += [_line(seed, name, row) for name, row in summaries.items()]
        wrong += [f"seed {seed}: {failure}" for failure in failures(summaries, runs)]
    about = (
        f"{time.perf_counter() - started:.0f} s. {SIZE} of the quartets of {len(FAMILIES)} families, one seed"
        f" each, {given.repetitions} repetitions. The width of the prior was chosen with seed 0; the other seeds"
        " confirm it."
    )
    verdict = "; ".join(wrong) or "Everything holds."
    shown = table(COLUMNS, lines, right=("seed", *COLUMNS[3:]))
    return EVALUATION.finish(EVALUATION.page("Planted effects found again", about, shown, verdict), good=not wrong)


def _line(seed: int, name: str, row: Mapping[str, float]) -> tuple[object, ...]:
    tau = f"{row['tau']:.3f} [{row['tau_low']:.3f}, {row['tau_high']:.3f}]"
    held = (f"{row['family_coverage']:.3f}", f"{row['pair_coverage']:.3f}")
    return (seed, name, tau, *held, f"{row['families_told']:g}", f"{row['interval_width']:.3f}")


if __name__ == "__main__":
    sys.exit(main())
