"""Campaigns whose driver and workers are killed and resumed, compared with an undisturbed campaign.

    python eval/kill_resume.py [--campaigns 25] [--minutes 8] [--work FOLDER] [--write]

Each campaign has twelve trials: nine quartets of real families, three of which are promoted to a second rung, on a few
real images of digits. It runs through the same classes as ``nngen campaign run``: the archive, the local engine, the
runner. Its driver is a separate process that is killed

- at every write boundary of the undisturbed run: immediately before and after a transaction's commit. The boundaries
  are distributed over the campaigns; a boundary counts if a driver was killed exactly there;
- at a random instant, once per campaign.

In each campaign two workers are also killed at random instants while their driver runs. A trial that was killed after
an epoch goes on from its checkpoint; epochs that it trains again are counted.

The next call with the same ``--work`` continues after the limit ``--minutes``. Exit code 1 unless all campaigns are
finished, every archive equals the undisturbed one, no trial was lost or repeated, no kill cost more than one epoch, no
process was left running, and every file passes ``PRAGMA integrity_check``. ``--write`` writes
``eval/results/kill_resume.md``.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import math
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from _page import Evaluation, note, table
from PIL import Image

from nngen.archive import Archive, TrialState
from nngen.assembly.assemble import Assembler
from nngen.campaign.protocols import CampaignInputs
from nngen.campaign.runner import Campaign
from nngen.campaign.setup import prepare
from nngen.campaign_spec import CampaignSpec
from nngen.datasets import load_dataset
from nngen.lemur.source import open_lemur
from nngen.training.local_engine import LocalEngine
from nngen.types import Shape

NAME = "killed"
SIZE, RUNGS = 9, (1, 4)
FAMILIES = ("AirNext", "ICNet", "MNASNet", "MobileNetV3", "ShuffleNet", "SqueezeNet-1", "SqueezeNet-2")
IMAGES_PER_CLASS = 12
MOST_CAMPAIGNS_MORE = 10
WORKER_KILLS = 2
MOST_EPOCHS_LOST = 1
OUTLIVED_S = 20.0
PR_SET_PDEATHSIG = 1
EVALUATION = Evaluation(__file__, __doc__)
WRITES = (
    "add_family",
    "add_candidate",
    "add_verdict",
    "add_campaign",
    "add_trials",
    "promote",
    "start_trial",
    "finish_trial",
    "requeue",
    "requeue_trial",
    "reveal_test",
    "log",
)


class Marked(Archive):
    """Archive that counts its writes and can kill its process at one of them."""

    now = ""
    reached: Callable[[str], None] = staticmethod(lambda _place: None)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with super()._transaction():
            yield
            type(self).reached(f"{self.now}, before its commit")
        type(self).reached(f"{self.now}, after its commit")


def _marking(name: str) -> Callable[..., Any]:
    plain = getattr(Archive, name)

    def method(self: Marked, *args: Any, **more: Any) -> Any:
        first = args[0] if args else ""
        about = getattr(first, "id", getattr(first, "name", first))
        self.now = f"{name} {about} {more.get('trial_id') or ''}".strip()
        return plain(self, *args, **more)

    return method


for _name in WRITES:
    setattr(Marked, _name, _marking(_name))


@dataclass(kw_only=True)
class Result:
    """Interruptions of one campaign, and its comparison with the undisturbed one."""

    number: int
    boundaries: list[str] = field(default_factory=list)
    drivers: int = 0
    driver_kills_at_random: int = 0
    worker_kills: int = 0
    orphans: int = 0
    begun_again: int = 0
    gone_on: int = 0
    epochs_lost: int = 0
    lost: int = 0
    repeated: int = 0
    running: int = 0
    equal: bool = False
    integrity: str = ""
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        clean = self.integrity == "ok" and self.equal and self.epochs_lost <= MOST_EPOCHS_LOST
        return clean and not (self.lost or self.repeated or self.running or self.orphans)


def images(folder: Path) -> Path:
    """Write some of scikit-learn's digits as one folder per class."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for label in range(10):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        for number, index in enumerate(np.flatnonzero(digits.target == label)[:IMAGES_PER_CLASS]):
            file = folder / str(label) / f"{number:02}.png"
            if not file.exists():
                Image.fromarray((digits.images[index] * 15).astype(np.uint8)).save(file)
    return folder


def drive(path: Path, spec: CampaignSpec, inputs: CampaignInputs, reached: Callable[[str], None]) -> int:
    """Start or resume the campaign in a separate process; return its pid immediately."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        Marked.reached = staticmethod(reached)
        with Marked.open(path) as archive, LocalEngine() as engine:
            Campaign(spec=spec, archive=archive, inputs=inputs, engine=engine, assemble=Assembler().assemble).run()
        code = 0
    finally:
        # The child must not return into this script, whatever happens.
        os._exit(code)


def descend(pid: int) -> list[psutil.Process]:
    """Return the living descendants of a process."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def follow(child: int, draw: random.Random, result: Result, *, kill_driver: bool, kill_worker: bool) -> bool:
    """Wait for a driver to end and kill as requested; return whether it finished."""
    started = time.monotonic()
    driver_at = started + draw.uniform(0.1, 25.0) if kill_driver else math.inf
    worker_at = math.inf
    seen: dict[int, psutil.Process] = {}
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        now = time.monotonic()
        family = descend(child)
        seen |= {process.pid: process for process in family}
        if now >= driver_at:
            os.kill(child, signal.SIGKILL)
            result.driver_kills_at_random += 1
            driver_at = math.inf
        # A worker has depth 3, below fork server and supervisor.
        workers = [process for process in family if _depth(process, child) == 3]
        if kill_worker and workers:
            worker_at, kill_worker = now + draw.uniform(0.0, 2.0), False
        if now >= worker_at and workers:
            with suppress(psutil.NoSuchProcess):
                draw.choice(workers).kill()
                result.worker_kills += 1
            worker_at = math.inf
        time.sleep(0.05)
    # A fork server that is importing torch detects the end of its driver only afterwards.
    _, alive = psutil.wait_procs(list(seen.values()), timeout=OUTLIVED_S)
    result.orphans += len(alive)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(f"a driver of campaign {result.number} ended with {code}")
    return code == 0


def _depth(process: psutil.Process, top: int) -> int:
    """Return the depth of a descendant below a process; 0 for one that has ended or is orphaned."""
    with suppress(psutil.NoSuchProcess, ValueError):
        return [parent.pid for parent in process.parents()].index(top) + 1
    return 0


def essence(path: Path) -> list[Any]:
    """Return the content of the archive that must be equal: all but times and memory."""
    with Archive.open(path, readonly=True) as archive:
        trials = archive.trials(NAME)
        plain = [
            replace(
                trial,
                started_at=None,
                finished_at=None,
                seconds=None,
                peak_mib=None,
                curve=tuple(replace(point, seconds=0.0) for point in trial.curve),
            )
            for trial in trials
        ]
        predicted = [archive.predictions(trial.id, split) for trial in trials for split in ("validation", "test")]
        candidates = [replace(candidate, created_at="") for candidate in archive.candidates()]
        return [plain, predicted, candidates, replace(archive.campaign(NAME), created_at="")]


def compare(path: Path, reference: Path, result: Result) -> None:
    """Compare a finished campaign with the undisturbed one."""
    wanted, found = essence(reference), essence(path)
    result.equal = found == wanted
    with Archive.open(path, readonly=True) as archive:
        trials = archive.trials(NAME)
        finished = Counter(event.trial_id for event in archive.events(NAME) if event.kind == "trial.finished")
        begun = sum(event.kind == "trial.started" for event in archive.events(NAME))
        result.gone_on, result.epochs_lost = resumptions(archive)
    result.lost = sum(finished[trial.id] == 0 for trial in wanted[0]) + (len(wanted[0]) - len(trials))
    result.repeated = sum(count - 1 for count in finished.values()) + sum(
        trial.copied_from is not None for trial in trials
    )
    result.running = sum(trial.state is TrialState.RUNNING for trial in trials)
    result.begun_again = begun - len(trials)
    with sqlite3.connect(path) as plain:
        result.integrity = plain.execute("PRAGMA integrity_check").fetchone()[0]
    plain.close()


def resumptions(archive: Archive) -> tuple[int, int]:
    """Count the trials that were begun again after an epoch, and the most epochs that one of them trained again."""
    reached: Counter[int | None] = Counter()
    begun_again: set[int | None] = set()
    times, most = 0, 0
    for event in archive.events(NAME):
        if event.kind == "trial.started" and reached[event.trial_id]:
            begun_again.add(event.trial_id)
        elif event.kind in ("trial.epoch", "trial.finished"):
            epoch = event.detail.get("epoch", RUNGS[-1])
            if event.trial_id in begun_again:
                begun_again.remove(event.trial_id)
                times, most = times + 1, max(most, reached[event.trial_id] + 1 - epoch)
            reached[event.trial_id] = epoch
    return times, most


def undisturbed(work: Path, spec: CampaignSpec, inputs: CampaignInputs) -> list[str]:
    """Run the campaign once without interruption; return its write boundaries, in order."""
    path, places = work / "undisturbed.db", work / "boundaries.txt"
    if not (work / "undisturbed.done").exists():
        path.unlink(missing_ok=True)
        with places.open("w") as file:

            def record(place: str) -> None:
                file.write(f"{place}\n")
                file.flush()

            if not follow(
                drive(path, spec, inputs, record),
                random.Random(0),
                Result(number=0),
                kill_driver=False,
                kill_worker=False,
            ):
                raise SystemExit("the undisturbed run did not come through")
        (work / "undisturbed.done").touch()
    met = list(dict.fromkeys(places.read_text().splitlines()))
    resuming = [
        f"{write}, {when}"
        for write in (f"requeue {NAME}", "log campaign.resumed")
        for when in ("before its commit", "after its commit")
    ]
    return [*met, *(place for place in resuming if place not in met)]


def campaign(number: int, targets: list[str], work: Path, spec: CampaignSpec, inputs: CampaignInputs) -> Result:
    """Run one campaign with a kill at each of its targets, and compare it."""
    path = work / f"campaign-{number:02}.db"
    for old in work.glob(f"{path.name}*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    draw, result, started = random.Random(number), Result(number=number), time.monotonic()
    death_note = work / "died-at.txt"
    random_turn = draw.randrange(len(targets) + 1)
    through = False
    while not through:
        left = set(targets) - set(result.boundaries)

        def reached(place: str, left: set[str] = left) -> None:
            if place in left:
                death_note.write_text(place)
                os.kill(os.getpid(), signal.SIGKILL)

        death_note.write_text("")
        child = drive(path, spec, inputs, reached)
        kill_driver, kill_worker = result.drivers == random_turn, result.worker_kills < WORKER_KILLS
        through = follow(child, draw, result, kill_driver=kill_driver, kill_worker=kill_worker)
        result.drivers += 1
        if place := death_note.read_text():
            result.boundaries.append(place)
    compare(path, work / "undisturbed.db", result)
    result.seconds = time.monotonic() - started
    return result


def page(results: list[Result], boundaries: list[str], wanted: int) -> str:
    """Write the results as Markdown."""
    hit = {place for result in results for place in result.boundaries}
    about = f"""{len(results)} campaigns of twelve trials each, {SIZE} quartets and those of them that went on from
{RUNGS[0]} epoch to {RUNGS[1]}, of the families {", ".join(FAMILIES)},
on {10 * IMAGES_PER_CLASS} images of scikit-learn's digits at 1x32x32, one worker. Drivers and workers were ended with
SIGKILL, and the campaign was resumed until it was done. Equal means: trials, candidates, sources, verdicts, accuracies,
losses to the last digit, predictions byte for byte; all but clocks and memory."""
    rows = {
        f"campaigns, of {wanted}": len(results),
        "archives equal to the undisturbed one": sum(result.equal for result in results),
        "drivers killed at a boundary of the writing": sum(len(result.boundaries) for result in results),
        f"such boundaries met, of {len(boundaries)} (before and after each commit)": len(hit & set(boundaries)),
        "drivers killed at a random instant": sum(result.driver_kills_at_random for result in results),
        "workers killed at a random instant": sum(result.worker_kills for result in results),
        "trials lost": sum(result.lost for result in results),
        "trials done twice": sum(result.repeated for result in results),
        "trials left running": sum(result.running for result in results),
        f"processes that outlived their driver by {OUTLIVED_S:g} s": sum(result.orphans for result in results),
        "files that pass `PRAGMA integrity_check`": sum(result.integrity == "ok" for result in results),
        "trials begun again, not done when the kill came": sum(result.begun_again for result in results),
        "of these killed after an epoch, which went on": sum(result.gone_on for result in results),
        "most epochs that one of them trained again": max((result.epochs_lost for result in results), default=0),
    }
    missed = [place for place in boundaries if place not in hit]
    last = f"Boundaries that no driver died at: {'; '.join(missed)}." if missed else ""
    return EVALUATION.page("Killed and resumed", about, table(("what", "count"), rows.items(), right=("count",)), last)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the remaining campaigns and compare all of them."""
    asked = EVALUATION.arguments(
        argv,
        campaigns=25,
        minutes=(math.inf, "begin no further campaign after so long"),
        work=(Path, "where archives and results of parts are kept"),
    )
    started = time.monotonic()
    work = asked.work or Path(tempfile.mkdtemp(prefix="nngen-kill-"))
    (work / "scratch").mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(work / "scratch")  # folders of killed workers' trials
    spec = CampaignSpec(
        name=NAME,
        size=SIZE,
        families=FAMILIES,
        dataset=f"folder:{images(work / 'digits')}",
        shape=Shape.parse("1x32x32"),
        batch=32,
        lr=0.003,
        time_limit_s=300.0,
        epochs=RUNGS[-1],
        rungs=RUNGS,
    )
    inputs = prepare(spec, load_dataset(spec.dataset), lemur=open_lemur())
    boundaries = undisturbed(work, spec, inputs)
    results = [Result(**json.loads(file.read_text())) for file in sorted(work.glob("campaign-*.json"))]
    while True:
        hit = {place for result in results for place in result.boundaries}
        left = [place for place in boundaries if place not in hit]
        number = next(number for number in itertools.count(1) if number not in {result.number for result in results})
        if number > asked.campaigns + (MOST_CAMPAIGNS_MORE if left else 0):
            break
        if time.monotonic() - started > 60 * asked.minutes:
            note(f"{len(results)} campaigns done, {len(left)} boundaries left: the same command goes on")
            break
        step = max(1, asked.campaigns - number + 1)
        result = campaign(number, left[number % step :: step] if step > 1 else left, work, spec, inputs)
        (work / f"campaign-{number:02}.json").write_text(json.dumps(asdict(result)))
        results.append(result)
        word = "equal" if result.good else "NOT EQUAL"
        note(f"campaign {number}: {word} after {result.drivers} drivers, {result.seconds:.0f} s")
    good = all(result.good for result in results) and not left and len(results) >= asked.campaigns
    return EVALUATION.finish(page(results, boundaries, asked.campaigns), good=good)


if __name__ == "__main__":
    sys.exit(main())
