"""A- and D-efficiency of each sampler's quartets for family effects.

    python eval/design_efficiency.py [--seeds 5] [--write]

Model: a quartet's score is a constant plus the effects of its four families, which sum to zero over the families.
With X the matrix of quartets by families (0 or 1), columns centred, and H an orthonormal basis of the vectors that sum
to zero, the information per quartet is M = H' X' X H / n. Its trace is at most (v - 1) c with
c = 4 (v - 4) / (v (v - 1)). If all pairs occur equally often, M = c I, which is A- and D-optimal (Kiefer 1975).
A-efficiency is the harmonic mean of M's eigenvalues over c, D-efficiency their geometric mean over c; both are 0 if an
effect cannot be estimated.

Prints both for 29 and 34 families after 100, 203 and 1,021 quartets; for random samplers the median over the seeds.
Exit code 1 unless ``balanced`` is highest in all cases and ``lexicographic`` is singular in all cases.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence

import numpy as np
from _page import RESULTS, Evaluation, table
from sampler_balance import SAMPLERS, sample

SIZES = (100, 203, 1021)
POOLS = (29, 34)
EVALUATION = Evaluation(__file__, __doc__)


def efficiency(quartets: np.ndarray, v: int) -> tuple[float, float]:
    """Return A- and D-efficiency of a sample, each in [0, 1]."""
    held = np.zeros((len(quartets), v))
    np.put_along_axis(held, quartets, 1.0, axis=1)
    held -= held.mean(axis=0)
    # Each row sums to zero once centred, so the constant vector is the one eigenvector outside H.
    eigenvalues = np.linalg.eigvalsh(held.T @ held / len(quartets))[1:]
    bound = 4 * (v - 4) / (v * (v - 1))
    if eigenvalues[0] < 1e-9 * bound:
        return 0.0, 0.0
    a = len(eigenvalues) / np.sum(1 / eigenvalues) / bound
    return float(a), float(np.exp(np.mean(np.log(eigenvalues))) / bound)


def measure(name: str, v: int, seeds: int) -> dict[int, tuple[float, float]]:
    """Return the median A- and D-efficiency at each size."""
    runs = [sample(name, v, max(SIZES), seed) for seed in range(seeds if name in ("random", "stratified") else 1)]
    found = {}
    for size in SIZES:
        both = [efficiency(run[:size], v) for run in runs]
        found[size] = (statistics.median(a for a, _ in both), statistics.median(d for _, d in both))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write, compare."""
    given = EVALUATION.arguments(argv, seeds=5)
    results = {v: {name: measure(name, v, given.seeds) for name in SAMPLERS} for v in POOLS}
    lines, faults = [], []
    for v, rows in results.items():
        for name, row in rows.items():
            lines.append((v, name, *(f"{a:.4f}, {d:.4f}" if a else "singular" for a, d in row.values())))
            if name == "lexicographic":
                faults += [f"v = {v}, {size}: lexicographic is not singular" for size, (a, _) in row.items() if a]
            elif name != "balanced":
                lesser = [size for size in SIZES if any(np.array(row[size]) >= rows["balanced"][size])]
                faults += [f"v = {v}, {size}: {name} is as efficient as balanced" for size in lesser]
    verdict = "\n".join(faults) or "balanced is highest and lexicographic singular everywhere"
    columns = ("v", "sampler", *(f"{size:,}: A, D" for size in SIZES))
    about = f"Random samplers: the median of {given.seeds} seeds."
    if given.write:
        record = {"command": EVALUATION.command, "faults": faults, "efficiency": results}
        (RESULTS / "design_efficiency.json").write_text(json.dumps(record, indent=1) + "\n")
    shown = table(columns, lines, right=set(columns) - {"sampler"})
    return EVALUATION.finish(EVALUATION.page("Efficiency for family effects", about, shown, verdict), good=not faults)


if __name__ == "__main__":
    sys.exit(main())
