"""The closed loop at equal budget: ``random``, ``mutate`` and the tuned model on digits, over several seeds.

Every arm of one seed begins with the same random plans, then proposes and trains as many plans a cycle as the
others; the model is tuned after each cycle on what its own loop's archive holds by then. Reported: the best and the
mean validation accuracy of what each arm proposed, and the mean of its judged best on fresh seeds, with intervals
over the seeds.

Each step is kept under --work and not done again.

    python eval/closed_loop.py [--cycles 3] [--number 6] [--start 8] [--seeds 3] [--threads 2] [--work FOLDER] [--write]
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from nngen.archive import Archive
from nngen.llm.baselines import Mutate, Uniform
from nngen.llm.bench import Fidelity, Ground, lay
from nngen.llm.evolve import Cycle, Evolution
from nngen.llm.intervals import mean_interval, share_interval
from nngen.llm.local import Local
from nngen.llm.rewriter import Rewriter
from nngen.llm.smollm import fetch
from nngen.llm.teaching import AdapterTeacher
from nngen.llm.tuning import Tuning
from nngen.paths import cache_dir

OUT = Path(__file__).parent / "results" / "closed_loop.json"
LIGHT = ("ComplexNet", "DPN107", "DPN131", "DPN68", "Diffuser", "ICNet", "MobileNetV3", "ShuffleNet", "SqueezeNet-1")
ARMS = ("random", "mutate", "model")


def main() -> None:
    """Run every arm with every seed, print what came of it, and write it if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for name, default in (("cycles", 3), ("number", 6), ("start", 8), ("seeds", 3), ("threads", 2), ("epochs", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--work", type=Path, default=cache_dir() / "eval" / "closed_loop")
    parser.add_argument("--write", action="store_true", help=f"write {OUT.name}")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.work.mkdir(parents=True, exist_ok=True)
    fidelity = Fidelity(epochs=given.epochs, threads=given.threads)
    with lay(fidelity, LIGHT) as ground:
        found = {arm: [_arm(arm, seed, ground, given) for seed in range(given.seeds)] for arm in ARMS}
    result = {
        "command": f"python eval/closed_loop.py {' '.join(sys.argv[1:])}".strip(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {given.threads} threads, torch {torch.__version__}",
        "dataset": "digits",
        "epochs": given.epochs,
        "families": LIGHT,
        "trials_an_arm_and_seed": given.start + given.cycles * given.number,
        "arms": {arm: _told(loops) for arm, loops in found.items()},
    }
    text = json.dumps(result, indent=2) + "\n"
    print(text)
    if given.write:
        OUT.write_text(text, encoding="utf-8")


def _arm(arm: str, seed: int, ground: Ground, given: argparse.Namespace) -> list[Cycle]:
    """Run one loop in an archive of its own, so that no arm learns from another's trials."""
    _say(f"{arm}, seed {seed}")
    place = given.work / f"{arm}-{seed}"
    place.mkdir(exist_ok=True)
    rewriter, teach = _writer(arm, place)
    with Archive.open(place / "loop.db") as archive:
        loop = Evolution(
            name="loop",
            archive=archive,
            ground=ground,
            rewriter=rewriter,
            cycles=given.cycles,
            start=given.start,
            number=given.number,
            seed=seed,
            # Equal budgets: no arm stops early.
            patience=given.cycles + 1,
            teach=teach,
            note=_say,
        )
        return loop.run()


def _writer(arm: str, place: Path) -> tuple[Rewriter, AdapterTeacher | None]:
    if arm != "model":
        return (Uniform() if arm == "random" else Mutate()), None
    base = str(fetch())
    tuning = Tuning(base=base, epochs=1.0, accumulate=4, lr=5e-4, judged=8, max_tokens=1024)
    return Local(base), AdapterTeacher(tuning=tuning, folder=place, note=_say)


def _told(loops: Sequence[Sequence[Cycle]]) -> Mapping[str, Any]:
    """Sum one arm up, over its seeds; the common start is left out."""
    own = [[cycle for cycle in loop if cycle.number > 0] for loop in loops]
    values = [[value for cycle in loop for value in cycle.accuracies] for loop in own]
    asked, valid, new = (sum(getattr(c, name) for loop in own for c in loop) for name in ("asked", "valid", "new"))
    return {
        "best_accuracy": _mean([max(row) for row in values if row]),
        "mean_accuracy": _mean([fmean(row) for row in values if row]),
        "judged_best": _mean([loop[-1].judged for loop in own if loop and loop[-1].judged is not None]),
        "valid_share": _share(valid, asked),
        "new_share_of_valid": _share(new, valid),
        "trained": [len(row) for row in values],
        "cycles": [
            [
                {
                    "rewriter": cycle.rewriter,
                    "valid": cycle.valid,
                    "new": cycle.new,
                    "mean": round(fmean(cycle.accuracies), 4) if cycle.accuracies else None,
                    "best": cycle.best,
                    "judged": cycle.judged,
                }
                for cycle in loop
            ]
            for loop in loops
        ],
    }


def _mean(values: Sequence[float]) -> Mapping[str, Any]:
    """Give a mean over seeds with Student's 95 % interval."""
    span = mean_interval(values)
    low, high = span if span is not None else (None, None)
    return {
        "mean": round(fmean(values), 4) if values else None,
        "low": None if low is None else round(low, 4),
        "high": None if high is None else round(high, 4),
        "seeds": len(values),
    }


def _share(hits: int, trials: int) -> list[float]:
    low, high = share_interval(hits, trials)
    return [round(value, 4) for value in (hits / max(trials, 1), low, high)]


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
