"""How much longer a campaign takes than its trainings: wall time over the sum of pure training time, on 2 cores.

    python eval/overhead.py [--trials 20] [--epochs 2] [--threads 2] [--two-workers] [--write]

A campaign of twenty small trials is run as a user runs it: ``nngen campaign run``, from the start of the process to its
end, so that starting Python, reading LEMUR, starting the workers' server, assembling, checking, forking, importing the
candidate, the predictions on the test split, writing the archive and summing up all count. Two things do not: the
families were measured before (once per machine), and so was the data set's file made.

Pure training time is what the judge's clock gives for the epochs: showing the training split once, and predicting the
validation split. It is taken twice: from the campaign itself, and from the same candidates trained again one after
another with nothing else going on, for the check of the next candidate beside a training slows that training down.
The larger of the two quotients is held against 1.15; exit 1 above. ``--write`` makes ``eval/results/overhead.md``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from nngen.archive import Archive, StoredTrial
from nngen.datasets.dataset import load_dataset
from nngen.training.engine import TrainJob
from nngen.training.local_engine import LocalEngine
from nngen.types import Candidate

FAMILIES = "AirNext,ICNet,MNASNet,MobileNetV3,ShuffleNet,SqueezeNet-1,SqueezeNet-2"
DATASET, SHAPE, BATCH = "digits", "1x32x32", 128
MOST = 1.15
RESULT = Path(__file__).parent / "results" / "overhead.md"


@dataclass(frozen=True, kw_only=True)
class Times:
    """Where the wall time of one campaign went, in seconds.

    Attributes:
        wall: From the start of the command to its end.
        epochs: Sum of the pure training time.
        workers: Sum of the trials' time in their workers; epochs, and start, import, test predictions beside them.
        before: From the start of the command to the campaign's first event.
        at_once: Trainings at once.
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
    """Run a command of nngen as a user does."""
    subprocess.run([sys.executable, "-m", "nngen", *tokens], check=True, stdout=subprocess.DEVNULL)


def epochs_of(trials: tuple[StoredTrial, ...]) -> float:
    """Add up the seconds of all epochs."""
    return sum(point.seconds for trial in trials for point in trial.curve)


def run(path: Path, trials: int, epochs: int, workers: int, threads: int) -> Times:
    """Run one campaign and read its times."""
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
    """Train the campaign's candidates again, nothing beside them; give the sum of their epochs."""
    dataset = load_dataset(DATASET)
    total = 0.0
    with Archive.open(path, readonly=True) as archive, LocalEngine() as engine:
        sources = {candidate.id: candidate for candidate in archive.candidates()}
        for trial in archive.trials("one"):
            assert trial.candidate_id is not None and trial.spec is not None
            stored = sources[trial.candidate_id]
            candidate = Candidate(id=stored.id, source=stored.source, canonical=stored.canonical)
            again = engine.train(TrainJob(candidate=candidate, spec=trial.spec, dataset=dataset))
            if not again.verdict.valid:
                raise SystemExit(f"{stored.id} was not trained the second time: {again.verdict.message}")
            total += sum(point.seconds for point in again.curve)
    return total


def table(times: list[Times], quiet: float, trials: int, epochs: int) -> str:
    """Write the times as Markdown."""
    first = times[0]
    lines = [
        "# What a campaign costs beside its trainings",
        "",
        f"`python eval/overhead.py {' '.join(sys.argv[1:])}`, {datetime.now(UTC):%Y-%m-%d},",
        f"cores: {len(os.sched_getaffinity(0))}.",
        "",
        f"{trials} trials of {epochs} epochs of {DATASET} at {SHAPE}, batches of {BATCH}; quartets of",
        f"{FAMILIES.replace(',', ', ')}.",
        "The wall time is that of the whole command; pure training time is that of the epochs with their",
        "validation",
        "predictions, by the judge's clock.",
        "",
        "| seconds, workers x threads | " + " | ".join(item.label for item in times) + " |",
        "|---|" + "--:|" * len(times),
        _row("wall time of the command", [item.wall for item in times]),
        _row("sum of the epochs", [item.epochs for item in times]),
        _row(
            "workers beside the epochs: fork, import, build, test predictions",
            [item.workers - item.epochs for item in times],
        ),
        _row("before the campaign's first event: Python, LEMUR, data", [item.before for item in times]),
        _row("the rest: server's start, first check, between trials, end", [_rest(item) for item in times]),
        _row("wall time x workers / sum of the epochs", [item.quotient for item in times], digits=3),
        "",
        f"The same candidates one after another with nothing beside them: {quiet:.1f} s of epochs; the wall time",
        f"of the first column is {first.wall / quiet:.3f} times that. The aim is at most {MOST}, for both.",
    ]
    return "\n".join(lines) + "\n"


def _rest(item: Times) -> float:
    return item.wall - item.before - item.workers / item.at_once


def _row(name: str, values: list[float], digits: int = 1) -> str:
    return f"| {name} | " + " | ".join(f"{value:.{digits}f}" for value in values) + " |"


def main() -> int:
    """Run the campaigns, print where the time went, and judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--two-workers", action="store_true", help="a second campaign, two trainings at once")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nngen-overhead-") as name:
        folder = Path(name)
        command("families", "--shape", SHAPE)
        load_dataset(DATASET)
        times = [run(folder / "one.db", asked.trials, asked.epochs, 1, asked.threads)]
        quiet = alone(folder / "one.db")
        if asked.two_workers:
            times.append(run(folder / "two.db", asked.trials, asked.epochs, 2, 1))
    text = table(times, quiet, asked.trials, asked.epochs)
    print(text, end="")
    if asked.write:
        RESULT.write_text(text, encoding="utf-8")
    return 0 if max(times[0].quotient, times[0].wall / quiet) <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
