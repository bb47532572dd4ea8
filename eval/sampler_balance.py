"""Balance of each sampler over families, pairs and triples, for 8 to 40 families.

    python eval/sampler_balance.py [--low 8] [--high 40] [--seeds 3] [--write]

Prints the range (largest minus smallest count) after 100, 203, 1,021 and 1,827 quartets and the worst over all
prefixes of up to 4,463 quartets (the whole space of up to 19 families). For random samplers the median over the seeds
is printed; ``balanced`` is drawn with seed 0, because a seed only renames families. Exit code 1 if a sampler has a
smaller range than ``balanced`` at any size (except the whole space, where every range is 0), or if the exact designs of
28 and 29 families are not exact.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from _page import RESULTS, Evaluation, note, table

from nngen.space import draw

SIZES = (100, 203, 1021, 1827)
LONGEST = 4463
SAMPLERS = ("balanced", "stratified", "random", "lexicographic")
PARTS = {1: "family", 2: "pair", 3: "triple"}
EVALUATION = Evaluation(__file__, __doc__)


def sample(name: str, v: int, size: int, seed: int) -> np.ndarray:
    """Draw quartets of families named by number, ``(size, 4)``."""
    names = [f"{i:02d}" for i in range(v)]
    return np.array([[int(family) for family in quartet] for quartet in draw(name, names, size, seed)])


def ranges(quartets: np.ndarray, v: int, t: int) -> np.ndarray:
    """Return the range of the counts of all t-subsets after each quartet, ``(size,)``."""
    number = np.zeros((v,) * t, dtype=np.int64)
    subsets = np.array(list(combinations(range(v), t)))
    number[tuple(subsets.T)] = np.arange(len(subsets))
    rows = np.stack([number[tuple(quartets[:, part] for part in parts)] for parts in combinations(range(4), t)], axis=1)
    used = np.zeros(len(subsets), dtype=np.int16)
    found = []
    for start in range(0, len(rows), 256):
        block = rows[start : start + 256]
        counts = np.zeros((len(block), len(subsets)), dtype=np.int16)
        np.put_along_axis(counts, block, 1, axis=1)
        counts = counts.cumsum(axis=0, dtype=np.int16) + used
        used = counts[-1]
        found.append(counts.max(axis=1) - counts.min(axis=1))
    return np.concatenate(found)


def measure(name: str, v: int, seeds: int) -> dict[str, float]:
    """Return the ranges of one sampler, with keys such as ``pair@203`` and ``pair worst``."""
    length = min(math.comb(v, 4), LONGEST)
    runs = []
    for seed in range(seeds if name in ("random", "stratified") else 1):
        quartets = sample(name, v, length, seed)
        run = {}
        for t, part in PARTS.items():
            curve = ranges(quartets, v, t)
            run |= {f"{part}@{size}": int(curve[size - 1]) for size in SIZES if size < math.comb(v, 4)}
            run[f"{part} worst"] = int(curve.max())
        runs.append(run)
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def shortfalls(v: int, rows: dict[str, dict[str, float]]) -> list[str]:
    """List the cases in which another sampler is more balanced than ``balanced``."""
    return [
        f"v = {v}, {key}: balanced {rows['balanced'][key]:g}, {name} {value:g}"
        for name, row in rows.items()
        for key, value in row.items()
        if value < rows["balanced"][key]
    ]


def exactness() -> list[str]:
    """List the deviations from the exact designs."""
    faults = []
    for v, size, t, times in ((28, 63, 2, 1), (29, 203, 2, 3), (29, 1827, 3, 2)):
        quartets = sample("balanced", v, size, 0)
        counts: dict[tuple[int, ...], int] = dict.fromkeys(combinations(range(v), t), 0)
        for quartet in quartets.tolist():
            for part in combinations(quartet, t):
                counts[part] += 1
        if set(counts.values()) != {times}:
            faults.append(f"v = {v}: not every {PARTS[t]} occurs {times} times in the first {size}")
    return faults


def ranges_table(results: dict[int, dict[str, dict[str, float]]]) -> str:
    """Return a Markdown table whose cells are family/pair/triple."""
    columns = ("v", "sampler", *(f"{size:,}" for size in SIZES), "worst prefix", "of first")
    lines = []
    for v, rows in results.items():
        for name, row in rows.items():
            cells = [
                "/".join(f"{row[f'{part}@{size}']:g}" for part in PARTS.values()) if f"pair@{size}" in row else "-"
                for size in SIZES
            ]
            worst = "/".join(f"{row[f'{part} worst']:g}" for part in PARTS.values())
            lines.append((v, name, *cells, worst, f"{min(math.comb(v, 4), LONGEST):,}"))
    return table(columns, lines, right=set(columns) - {"sampler"})


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write, compare."""
    given = EVALUATION.arguments(argv, low=8, high=40, seeds=3)
    results: dict[int, dict[str, dict[str, float]]] = {}
    for v in range(given.low, given.high + 1):
        results[v] = {name: measure(name, v, given.seeds) for name in SAMPLERS}
        note(f"{v} families measured")
    faults = exactness() + [fault for v, rows in results.items() for fault in shortfalls(v, rows)]
    verdict = "balanced is best everywhere" if not faults else "\n".join(["balanced is not best:", *faults])
    about = (
        "A cell is family/pair/triple, largest less smallest count; random samplers: "
        f"the median of {given.seeds} seeds. A dash: the space is not larger."
    )
    if given.write:
        record = {"command": EVALUATION.command, "faults": faults, "ranges": results}
        (RESULTS / "sampler_balance.json").write_text(json.dumps(record, indent=1) + "\n")
    text = EVALUATION.page("Ranges of family/pair/triple counts", about, ranges_table(results), verdict)
    return EVALUATION.finish(text, good=not faults)


if __name__ == "__main__":
    sys.exit(main())
