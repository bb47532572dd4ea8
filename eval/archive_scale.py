"""Time and memory of every reading command, and of the driver, over the number of trials in the archive.

    python eval/archive_scale.py [--trials 1000 5000 25000 100000] [--feedback 1000 5000] [--work FOLDER] [--write]

Archives of 1,000 to 100,000 trials are filled with fakes: quartets of 34 families in a random order, a unique source of
20 kB for each candidate, two seeds for each, three in a hundred of them failed. No command trains or reads LEMUR, but
each is run as by a user, in a process of its own, of a package whose modules are compiled, as pip leaves them: wall
time (the median of three runs where the limit is 2 s), largest resident memory, and for ``report`` the size of the
page. The driver runs campaigns with fake trainings in 512 slots, through all 46,376 quartets.

Claims, each at the largest archive: ``campaign ls``, ``campaign status``, ``show`` and ``leaderboard --top 20`` within
2 s and 300 MiB; the other commands within 10 s and 1 GiB; a page under 10 MB; ``feedback build`` within 60 s; from one
size to the next no time grows faster than the number of trials to the power 1.1. Otherwise the exit code is 1.
``--write`` writes ``eval/results/archive_scale.md``.
"""

from __future__ import annotations

import compileall
import hashlib
import itertools
import math
import multiprocessing
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from statistics import fmean

from _page import Evaluation, note, table

import nngen
from nngen.archive import Archive, Promotion, StoredTrial, TrialLine
from nngen.campaign.protocols import Watcher
from nngen.plan import Plan
from nngen.testing.fakes import FakeEngine, fake_campaign, fake_inputs, fake_record
from nngen.types import Candidate, EpochResult, Outcome, Shape, Trial, TrialSpec, Verdict

FAMILIES = [f"F{number:02}" for number in range(34)]
SPACE = math.comb(34, 4)
GROWTH = 1.1
EVALUATION = Evaluation(__file__, __doc__)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command with its limits at the largest archive.

    Attributes:
        tokens: Command line; ``{id}`` is the id of a candidate and ``{out}`` a file to write.
        seconds: Limit of the wall time.
        mib: Limit of the resident memory.
        runs: Runs, of which the one with the median of the wall times counts.
    """

    tokens: str
    seconds: float = 10.0
    mib: float = 1024.0
    runs: int = 1


COMMANDS = (
    Command(tokens="campaign ls", seconds=2, mib=300, runs=3),
    Command(tokens="campaign status big", seconds=2, mib=300, runs=3),
    Command(tokens="show {id}", seconds=2, mib=300, runs=3),
    Command(tokens="leaderboard --top 20", seconds=2, mib=300, runs=3),
    Command(tokens="leaderboard"),
    Command(tokens="coverage big"),
    Command(tokens="cost big"),
    Command(tokens="effects big"),
    Command(tokens="report big --out {out}"),
)
FEEDBACK = Command(tokens="feedback build --out {out}", seconds=60)
PAGE_BYTES = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One command at one archive.

    Attributes:
        trials: Trials in the archive.
        seconds: Wall time of the process.
        mib: Largest resident memory.
        size: Bytes of the file that it wrote; 0 where it writes none.
    """

    command: Command
    trials: int
    seconds: float
    mib: float
    size: int


def fill(path: Path, trials: int, source_bytes: int = 20_000) -> None:
    """Write an archive of so many finished trials, two for each candidate, in campaigns of at most the whole space."""
    rng = random.Random(0)
    quartets = list(itertools.combinations(FAMILIES, 4))
    rng.shuffle(quartets)
    merit = {name: rng.gauss(0, 0.06) for name in FAMILIES}
    families = [family for family, _ in fake_inputs(FAMILIES).families.values()]
    pool = {family.name: family.fingerprint for family in families}
    with Archive.open(path) as archive:
        # Waiting for the disk at each call would take hours, and a draft is not worth it.
        archive._db.execute("PRAGMA synchronous = OFF")
        for family in families:
            archive.add_family(family)
        for number, first in enumerate(range(0, trials // 2, SPACE)):
            name, size = f"big{number or ''}", min(SPACE, trials // 2 - first)
            spec = {"dataset": "digits", "shape": Shape(1, 32, 32), "seed": number, "size": size}
            record = fake_record(name, pool=pool, data_fingerprint="d1", classes=10, **spec)
            archive.add_campaign(record, [Plan(experts=quartet) for quartet in quartets[:size]])
            for line in archive.lines(name):
                candidate = make_candidate(name, line, source_bytes)
                archive.add_candidate(candidate, pool)
                archive.add_verdict(candidate.id, Verdict(outcome=Outcome.VALID), shape=Shape(1, 32, 32), classes=10)
                skill = None if rng.random() < 0.03 else 0.4 + 2 * fmean(merit[family] for family in line.experts)
                finish(archive, line.id, candidate, skill, rng)
                (again,) = archive.promote(name, [Promotion(trial_id=line.id, rung=0, replicate=1)])
                finish(archive, again, candidate, skill, rng)


def make_candidate(campaign: str, line: TrialLine, source_bytes: int) -> Candidate:
    """Make a candidate with a source of its own, as long as asked."""
    source = f"# {campaign} {line.position}\nEXPERTS = {list(line.experts)}\n"
    lines = (f"layer_{number} = make({number}, width={number * 7}, name='layer')\n" for number in itertools.count())
    while len(source) < source_bytes:
        source += next(lines)
    digest = hashlib.sha256(source.encode()).hexdigest()
    return Candidate(id=f"MoE4-{digest[:32]}", source=source, canonical=digest, plan=Plan(experts=line.experts))


def finish(archive: Archive, trial_id: int, candidate: Candidate, skill: float | None, rng: random.Random) -> None:
    """Store the result of a training of one epoch, with an accuracy near the candidate's skill; None fails."""
    spec = TrialSpec(dataset="digits", shape=Shape(1, 32, 32), seed=rng.getrandbits(32))
    archive.start_trial(trial_id)
    if skill is None:
        verdict = Verdict(outcome=Outcome.CRASHED, rule="worker", message="it crashed")
        archive.finish_trial(trial_id, Trial(candidate_id=candidate.id, spec=spec, verdict=verdict, seconds=1.0))
        return
    accuracy = min(1.0, max(0.05, skill + rng.gauss(0, 0.02)))
    shown = {"train_loss": 1.0, "seconds": 30.0, "entropy": 1.38}
    trained = Trial(
        candidate_id=candidate.id,
        spec=spec,
        verdict=Verdict(outcome=Outcome.VALID),
        validation_accuracy=accuracy,
        curve=(EpochResult(epoch=1, validation_accuracy=accuracy, usage=(0.25,) * 4, **shown),),
        validation_predictions=rng.randbytes(574),
        test_predictions=rng.randbytes(718),
        parameters=3_000_000,
        seconds=30.0,
        peak_mib=900.0,
        batch=64,
        data_fingerprint="d1",
        isolation="process",
        environment={"device": "cpu", "torch": "2"},
    )
    archive.finish_trial(trial_id, trained)


def measure(command: Command, archive: Path, trials: int) -> Measured:
    """Run a command in a process of its own."""
    with Archive.open(archive, readonly=True) as opened:
        candidate = opened.lines("big")[0].candidate_id
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.html"
        tokens = command.tokens.format(id=candidate, out=out).split()
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "nngen", *tokens, "--archive", archive],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        errors = process.stderr.read().decode() if process.stderr else ""
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"nngen {' '.join(tokens)} failed: {errors}")
        size = sum(file.stat().st_size for file in [out, *out.rglob("*")] if file.is_file())
    found = Measured(command=command, trials=trials, seconds=seconds, mib=usage.ru_maxrss / 1024, size=size)
    note(f"{trials:,} trials, {command.tokens}: {seconds:.2f} s, {found.mib:.0f} MiB, {size:,} bytes")
    return found


def drive(path: Path, size: int, sampler: str) -> tuple[float, float, float]:
    """Run a campaign with fake trainings; return trials/s of its first and last tenth, and MiB."""
    times: list[float] = []

    class Clock(Watcher):
        def finished(self, trial: StoredTrial) -> None:
            times.append(time.perf_counter())

    with Archive.open(path) as archive:
        inputs, engine = fake_inputs(FAMILIES), FakeEngine(slots=512)
        fake_campaign(
            archive, size=size, sampler=sampler, epochs=1, inputs=inputs, engine=engine, watcher=Clock()
        ).run()
    tenth = len(times) // 10
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return tenth / (times[tenth] - times[0]), tenth / (times[-1] - times[-1 - tenth]), mib


def growth(rows: Sequence[Measured]) -> float:
    """Return the exponent with which the time grows between the two largest archives."""
    if len(rows) < 2:
        return 0.0
    before, last = rows[-2:]
    return math.log(last.seconds / before.seconds) / math.log(last.trials / before.trials)


def holds(rows: Sequence[Measured]) -> bool:
    """Return whether one command keeps its limits at the largest archive."""
    last = rows[-1]
    within = last.seconds <= last.command.seconds and last.mib <= last.command.mib
    return within and growth(rows) <= GROWTH and (not last.size or last.command is FEEDBACK or last.size < PAGE_BYTES)


def measure_all(work: Path, trials: Sequence[int], feedback: Sequence[int], source_bytes: int) -> list[list[Measured]]:
    """Fill the archives that are missing and run the commands on each; a list for each command, by size."""
    rows: list[list[Measured]] = [[] for _ in (*COMMANDS, FEEDBACK)]
    for size in sorted({*trials, *feedback}):
        archive = work / f"archive-{size}.db"
        if not archive.exists():
            note(f"filling {archive.name}")
            fill(archive.with_suffix(".part"), size, source_bytes)
            archive.with_suffix(".part").rename(archive)
        for command, found in zip((*COMMANDS, FEEDBACK), rows, strict=True):
            if size in (feedback if command is FEEDBACK else trials):
                runs = [measure(command, archive, size) for _ in range(command.runs)]
                found.append(sorted(runs, key=attrgetter("seconds"))[len(runs) // 2])
    return [found for found in rows if found]


def main(argv: Sequence[str] | None = None) -> int:
    """Fill archives, run the commands on each, drive campaigns, and write the page."""
    given = EVALUATION.arguments(
        argv,
        trials=([1000, 5000, 25_000, 100_000], "sizes of the archives"),
        feedback=([1000, 5000], "sizes of the archives for feedback build"),
        drive=(SPACE, "quartets of the driver's campaign"),
        adaptive=(5000, "quartets of the adaptive campaign"),
        source_bytes=(20_000, "bytes of a candidate's source"),
        work=Path,
    )
    compileall.compile_dir(nngen.__path__[0], quiet=1)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure_all(given.work or Path(folder), given.trials, given.feedback, given.source_bytes)
        # Processes of their own, so that the memory of one does not count for the other.
        driven = [
            (sampler, size, *in_process(drive, Path(folder) / f"{sampler}.db", size, sampler))
            for sampler, size in (("random", given.drive), ("adaptive", given.adaptive))
        ]
    rates = {"random": 200.0, "adaptive": 20.0}
    good = all(map(holds, rows)) and all(
        min(first, last) >= rates[sampler] and mib <= 400 for sampler, _, first, last, mib in driven
    )
    lines = [
        [
            found[-1].command.tokens,
            *(" / ".join(f"{one.seconds:.1f}" for one in found),),
            " / ".join(f"{one.mib:.0f}" for one in found),
            f"{growth(found):.2f}",
            f"{found[-1].size / 1e6:.1f}" if found[-1].size else "",
            "yes" if holds(found) else "no",
        ]
        for found in rows
    ]
    sizes = " / ".join(f"{trials:,}" for trials in given.trials)
    return EVALUATION.finish(
        EVALUATION.page(
            "Cost of an archive of 100,000 trials",
            f"Archives of {sizes} trials (`feedback build`: {' / '.join(f'{n:,}' for n in given.feedback)}); "
            "the start of Python is in every figure.",
            table(
                ["command", "s", "MiB", "growth", "MB written", "holds"], lines, ["s", "MiB", "growth", "MB written"]
            ),
            table(
                ["driver", "quartets", "trials/s at the start", "at the end", "MiB"],
                [[sampler, f"{size:,}", f"{a:.0f}", f"{b:.0f}", f"{mib:.0f}"] for sampler, size, a, b, mib in driven],
            ),
        ),
        good=good,
    )


def in_process(work: Callable[..., tuple[float, ...]], *given: object) -> tuple[float, ...]:
    """Run a function in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


if __name__ == "__main__":
    sys.exit(main())
