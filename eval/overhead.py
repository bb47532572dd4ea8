"""Overhead of a campaign: wall time over the sum of pure training time, on 2 cores.

    python eval/overhead.py [--trials 20] [--epochs 2] [--threads 2] [--two-workers] [--write]

A campaign of twenty small trials is run as by a user, with ``nngen campaign run``, and timed from the start of the
process to its end. This includes starting Python, reading LEMUR, starting the fork server, assembly, checks, forks,
imports of candidates, predictions on the test split, writes to the archive and the summary. It excludes the probe of
the families and the preparation of the data set, which are done once per machine.

Pure training time is the parent process's time of the epochs: one pass over the training split and the predictions on
the validation split. It is measured twice: in the campaign, and by training the same candidates again one after another
on an idle machine, because the check of the next candidate slows down a concurrent training. The larger of the two
quotients must be at most 1.15, otherwise the exit code is 1. ``--write`` writes ``eval/results/overhead.md``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from _page import Evaluation, table

from nngen.archive import Archive, StoredTrial
from nngen.datasets import load_dataset
from nngen.isolation import Isolation
from nngen.training.engine import TrainJob
from nngen.training.local_engine import LocalEngine
from nngen.types import Candidate

FAMILIES = "AirNext,ICNet,MNASNet,MobileNetV3,ShuffleNet,SqueezeNet-1,SqueezeNet-2"
DATASET, SHAPE, BATCH = "digits", "1x32x32", 128
MOST = 1.15
EVALUATION = Evaluation(__file__, __doc__)


@dataclass(frozen=True, kw_only=True)
class Times:
    """Wall time of one campaign and its parts, in seconds.

    Attributes:
        wall: Time from the start of the command to its end.
        epochs: Sum of the pure training time.
        workers: Sum of the trials' time in their workers: epochs, start, import, test predictions.
        before: Time from the start of the command to the campaign's first event.
        at_once: Number of concurrent trainings.
    """

    label: str
    wall: float
    epochs: float
    workers: float
    before: float
    at_once: int

    @property
    def quotient(self) -> float:
        return self.wall * self.at_once / self.epochs


def command(*tokens: str) -> None:
    """Run a command of nngen as a user would."""
    subprocess.run([sys.executable, "-m", "nngen", *tokens], check=True, stdout=subprocess.DEVNULL)


def epochs_of(trials: tuple[StoredTrial, ...]) -> float:
    """Return the sum of the seconds of all epochs."""
    return sum(point.seconds for trial in trials for point in trial.curve)


def run(path: Path, trials: int, epochs: int, workers: int, threads: int) -> Times:
    """Run one campaign and return its times."""
    started = time.time()
    asked = ("--size", str(trials), "--families", FAMILIES, "--dataset", DATASET, "--shape", SHAPE)
    more = (
        "--epochs",
        str(epochs),
        "--batch",
        str(BATCH),
        "--workers",
        str(workers),
        "--threads",
        str(threads),
        "--archive",
        str(path),
    )
    command("campaign", "run", "one", *asked, *more)
    wall = time.time() - started
    with Archive.open(path, readonly=True) as archive:
        done, first = archive.trials("one"), archive.events("one")[0]
    if not all(trial.trained for trial in done):
        raise SystemExit("not every trial was trained")
    return Times(
        label=f"{workers} x {threads} threads",
        wall=wall,
        epochs=epochs_of(done),
        workers=sum(trial.seconds or 0.0 for trial in done),
        before=datetime.fromisoformat(first.at).timestamp() - started,
        at_once=workers,
    )


def alone(path: Path) -> float:
    """Train the campaign's candidates again, one at a time; return the sum of their epochs' seconds."""
    dataset = load_dataset(DATASET)
    total = 0.0
    with Archive.open(path, readonly=True) as archive, LocalEngine() as engine:
        sources = {candidate.id: candidate for candidate in archive.candidates()}
        for trial in archive.trials("one"):
            assert trial.candidate_id is not None and trial.spec is not None
            stored = sources[trial.candidate_id]
            candidate = Candidate(id=stored.id, source=stored.source, canonical=stored.canonical)
            again = engine.train(
                TrainJob(candidate=candidate, spec=trial.spec, dataset=dataset, isolation=Isolation.PROCESS)
            )
            if not again.verdict.valid:
                raise SystemExit(f"{stored.id} was not trained the second time: {again.verdict.message}")
            total += sum(point.seconds for point in again.curve)
    return total


def page(times: list[Times], quiet: float, trials: int, epochs: int) -> str:
    """Write the times as Markdown."""
    about = (
        f"Cores: {len(os.sched_getaffinity(0))}. {trials} trials of {epochs} epochs of {DATASET} at {SHAPE}, batches of"
        f" {BATCH}; quartets of {FAMILIES.replace(',', ', ')}. The wall time is that of the whole command; pure"
        " training time is that of the epochs with their validation predictions, by the engine's clock."
    )
    measures = {
        "wall time of the command": [item.wall for item in times],
        "sum of the epochs": [item.epochs for item in times],
        "workers beside the epochs: fork, import, build, test predictions": [
            item.workers - item.epochs for item in times
        ],
        "before the campaign's first event: Python, LEMUR, data": [item.before for item in times],
        "the rest: server's start, first check, between trials, end": [
            item.wall - item.before - item.workers / item.at_once for item in times
        ],
    }
    rows = [(name, *(f"{value:.1f}" for value in values)) for name, values in measures.items()]
    rows.append(("wall time x workers / sum of the epochs", *(f"{item.quotient:.3f}" for item in times)))
    labels = [item.label for item in times]
    alone = (
        f"The same candidates one after another with nothing beside them: {quiet:.1f} s of epochs; the wall time"
        f" of the first column is {times[0].wall / quiet:.3f} times that. The aim is at most {MOST}, for both."
    )
    shown = table(("seconds, workers x threads", *labels), rows, right=labels)
    return EVALUATION.page("What a campaign costs beside its trainings", about, shown, alone)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the campaigns, print their times, and compare the overhead with the limit."""
    two = (False, "a second campaign, two trainings at once")
    given = EVALUATION.arguments(argv, trials=20, epochs=2, threads=2, two_workers=two)
    with tempfile.TemporaryDirectory(prefix="nngen-overhead-") as name:
        folder = Path(name)
        command("families", "--shape", SHAPE)
        load_dataset(DATASET)
        times = [run(folder / "one.db", given.trials, given.epochs, 1, given.threads)]
        quiet = alone(folder / "one.db")
        if given.two_workers:
            times.append(run(folder / "two.db", given.trials, given.epochs, 2, 1))
    good = max(times[0].quotient, times[0].wall / quiet) <= MOST
    return EVALUATION.finish(page(times, quiet, given.trials, given.epochs), good=good)


if __name__ == "__main__":
    sys.exit(main())
