"""Time that checkpoints add to a training.

    python eval/checkpoint_overhead.py [--side 72] [--pairs 3] [--threads 2] [--write]

One mixture is trained for three epochs on digits, scaled to ``--side`` pixels so that an epoch takes 20 s or more: with
a checkpoint after each epoch but the last, and without, in turn, after one training that warms up. The worker's time
from its start to its end may grow by 3 %: the median of the pairs counts, otherwise the exit code is 1. ``--write``
writes ``eval/results/checkpoint_overhead.md``.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from _page import Evaluation, note, table

import nngen
from nngen.datasets import load_dataset
from nngen.isolation import Isolation
from nngen.training import LocalEngine, TrainJob
from nngen.training.state.checkpoints import TrialFolder
from nngen.types import Shape, Trial, TrialSpec

FAMILIES = ("AirNext", "ICNet", "MNASNet", "MobileNetV3")
MOST = 1.03
EVALUATION = Evaluation(__file__, __doc__)


def train(engine: LocalEngine, job: TrainJob, folder: TrialFolder | None, sizes: list[int]) -> Trial:
    """Train once; add the sizes of the checkpoints that are seen to ``sizes``."""

    def look(_: object) -> None:
        if folder is not None:
            sizes.extend(file.stat().st_size for file in folder.path.glob("*.safetensors"))

    trial = engine.train(replace(job, folder=folder), look)
    if not trial.verdict.valid or trial.seconds is None:
        raise SystemExit(f"a training failed: {trial.verdict.message}")
    if folder is not None:
        # A checkpoint that stays would be gone on from.
        folder.clear(keep=False)
    note(f"{trial.seconds:.1f} s {'with' if folder else 'without'} checkpoints")
    return trial


def main(argv: Sequence[str] | None = None) -> int:
    """Train the pairs and print their times; return 1 where checkpoints cost too much."""
    given = EVALUATION.arguments(argv, side=72, pairs=3, threads=2)
    shape = Shape(1, given.side, given.side)
    candidate = nngen.assemble(FAMILIES, shape=shape)
    spec = TrialSpec(dataset="digits", shape=shape, epochs=3, batch=64, threads=given.threads, time_limit_s=3600.0)
    job = TrainJob(candidate=candidate, spec=spec, dataset=load_dataset("digits"), isolation=Isolation.PROCESS)
    rows, sizes, epochs = [], [], []
    with tempfile.TemporaryDirectory(prefix="nngen-checkpoints-") as name, LocalEngine() as engine:
        folder = TrialFolder(path=Path(name) / "trial")
        train(engine, replace(job, spec=replace(spec, epochs=1)), None, sizes)
        for pair in range(given.pairs):
            # The order alternates, so that a slow drift of the machine favours neither side.
            order = (None, folder) if pair % 2 == 0 else (folder, None)
            trials = {one is not None: train(engine, job, one, sizes) for one in order}
            epochs += [point.seconds for point in trials[False].curve]
            without, kept = trials[False].seconds or 0.0, trials[True].seconds or 0.0
            rows.append((f"{without:.1f}", f"{kept:.1f}", f"{kept / without:.3f}"))
    ratio = statistics.median(float(row[-1]) for row in rows)
    about = (
        f"Cores: {len(os.sched_getaffinity(0))}. {', '.join(FAMILIES)} for three epochs of digits at {shape}; an epoch"
        f" takes {statistics.median(epochs):.1f} s (median), a checkpoint has {max(sizes, default=0) / 2**20:.0f} MiB."
    )
    end = f"With checkpoints a training takes {ratio:.3f} times as long (median; at most {MOST} is wanted)."
    head = ("seconds without", "with checkpoints", "ratio")
    page = EVALUATION.page("Time that checkpoints add to a training", about, table(head, rows, right=head), end)
    return EVALUATION.finish(page, good=bool(sizes) and ratio <= MOST)


if __name__ == "__main__":
    sys.exit(main())
