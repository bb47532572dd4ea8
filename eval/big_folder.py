"""Folders of images that are larger than memory: time and resident memory of decoding and of training.

Two folders of JPEGs are made and removed by this script. The first, of large images, is decoded in three sizes. On the
second, of images that are stored as they are, a small convolutional net is trained in an isolated worker, which reads
batches from the file, or has all images mapped. Claims:

- decoding, and training that reads batches, need less than ``--memory`` MiB of resident memory in any process;
- the time of both grows as the number of images, to the power of 1.1 at most;
- training that reads batches takes at most a tenth longer than training on mapped images.

With ``--write``, steps that are done are kept in ``eval/results/big_folder.json``; the same command goes on from there.
A try of a minute: ``--decoded 400 --trained 600 --repeats 1``.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import psutil
from _page import RESULTS, Evaluation, note, table
from PIL import Image

CLASSES = 4
GROWTH = (4, 2, 1)
"""Divisors of the number of images, for the growth of times."""

POWER, SLOWER = 1.1, 1.1
SAMPLE_S = 0.1

NET = """\
import torch
from torch import nn


def supported_hyperparameters():
    return {"lr", "momentum"}


class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        self.device = device
        self.features = nn.Sequential(nn.Conv2d(in_shape[1], 8, 7, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(4))
        self.fc = nn.Linear(128, out_shape[0])

    def forward(self, x):
        return self.fc(self.features(x).flatten(1))

    def train_setup(self, prm):
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.parameters(), lr=prm["lr"], momentum=prm["momentum"])

    def learn(self, train_data):
        for images, labels in train_data:
            self.optimizer.zero_grad()
            self.criterion(self(images), labels).backward()
            self.optimizer.step()
"""

LOAD = """\
import json, sys, time
from nngen.datasets import load_dataset
start = time.monotonic()
data = load_dataset(f"folder:{sys.argv[1]}")
arrays = (data.train_images, data.validation_images, data.test_images)
print(json.dumps({"seconds": time.monotonic() - start, "mib": sum(array.nbytes for array in arrays) / 2**20}))
"""

TRAIN = """\
import json, os, sys
from pathlib import Path
from nngen.datasets import load_dataset
from nngen.isolation import Isolation
from nngen.training import LocalEngine, TrainJob
from nngen.training.candidate_files import read_candidate
from nngen.types import TrialSpec
folder, net, limit, size, epochs = sys.argv[1:]
data = load_dataset(f"folder:{folder}")
spec = TrialSpec(
    dataset=data.name, shape=data.shape, train_size=int(size) or None, epochs=int(epochs), batch=32, lr=0.001,
    threads=len(os.sched_getaffinity(0)), memory_mib=int(limit), time_limit_s=1e5,
)
with LocalEngine() as engine:
    job = TrainJob(candidate=read_candidate(Path(net)), spec=spec, dataset=data, isolation=Isolation.PROCESS)
    trial = engine.train(job)
if not trial.verdict.valid:
    sys.exit(trial.verdict.message)
seconds = [point.seconds for point in trial.curve]
print(json.dumps({"seconds": seconds, "images": data.training_images(spec.train_size)}))
"""

EVALUATION = Evaluation(__file__, __doc__)
Step: TypeAlias = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Make the folders, run the steps, and compare them with the claims."""
    given = EVALUATION.arguments(
        argv,
        decoded=(20_000, "images to decode"),
        side=(500, "their side in pixels"),
        trained=(33_000, "images to train on"),
        trained_side=(224, "their side in pixels"),
        repeats=(3, "trainings of two epochs by either path, in turns"),
        memory=(1024, "MiB of resident memory that no process may exceed"),
        work=({"type": Path, "default": None, "help": "folder to work in; by default one that is removed"}),
    )
    with tempfile.TemporaryDirectory(dir=given.work) as name:
        work = Path(name)
        os.environ["NNGEN_CACHE"] = str(work / "cache")
        decoded = [
            step(f"decode {given.decoded // part} of {given.side} px", lambda part=part: decode(work, part))
            for part in GROWTH
        ]
        trained = train(work)
    return report(decoded, trained)


def decode(work: Path, part: int) -> Step:
    """Make the images of a part of the first folder, and decode it."""
    given, folder = EVALUATION.given, work / "decoded"
    draw(folder, given.decoded // part, given.side)
    found = run(LOAD, folder)
    if part == GROWTH[-1]:
        shutil.rmtree(folder)
    shutil.rmtree(work / "cache")
    return {"images": given.decoded // part} | found


def train(work: Path) -> dict[str, list[Step]]:
    """Train on the second folder: in two sizes by reading batches, then on all by reading and mapped in turns."""
    given, folder, net = EVALUATION.given, work / "trained", work / "net.py"
    net.write_text(NET)

    def trial(limit: int, size: int = 0) -> Step:
        if not folder.exists():
            draw(folder, given.trained, given.trained_side)
            note(f"decoded once in {run(LOAD, folder)['seconds']:.0f} s")
        return run(TRAIN, folder, net, limit, size, 2)

    name = f"{given.trained} of {given.trained_side} px"
    # Of a limit this large, a share that holds all images lies in memory.
    mapped = 32 * max(1024, 3 * given.trained * given.trained_side**2 // 2**20)
    found: dict[str, list[Step]] = {"read": [], "mapped": [], "grown": []}
    for part in GROWTH[:-1]:
        size = given.trained // 2 // part
        found["grown"].append(step(f"train {size} {name}", lambda size=size: trial(given.memory, size)))
    for number in range(given.repeats):
        for path, limit in (("read", given.memory), ("mapped", mapped)):
            found[path].append(step(f"train {path} {name} ({number})", lambda limit=limit: trial(limit)))
    return found


def step(name: str, work: Callable[[], Step]) -> Step:
    """Return the result of a step; with ``--write`` it is kept, or was kept by an earlier run."""
    file = RESULTS / "big_folder.json"
    known = json.loads(file.read_text()) if EVALUATION.given.write and file.exists() else {}
    if name not in known:
        known[name] = work()
        note(f"{name}: {known[name]}")
        if EVALUATION.given.write:
            file.write_text(json.dumps(known, indent=1))
    return dict(known[name])


def draw(folder: Path, count: int, side: int) -> None:
    """Write JPEGs up to a number: coarse noise with fine noise on it, which fill as many bytes as photographs."""
    for label in range(CLASSES):
        (folder / f"class {label}").mkdir(parents=True, exist_ok=True)

    def write(number: int) -> None:
        path = folder / f"class {number % CLASSES}" / f"{number:06d}.jpg"
        if not path.exists():
            random = np.random.default_rng(number)
            coarse = Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8)).resize((side, side))
            fine = random.normal(0, 6, (side, side, 1)) + 20 * (number % CLASSES) - 30
            Image.fromarray(np.clip(np.asarray(coarse) + fine, 0, 255).astype(np.uint8)).save(path, quality=85)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(write, range(count)))


def run(code: str, *arguments: object) -> Step:
    """Run code in a process of its own; return what it prints, and the memory of its processes in MiB.

    ``process_mib`` is the largest resident memory of one process at a time, ``together_mib`` that of all: the sum of
    their proportional shares, in which pages that several processes share count once.
    """
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    most, together = 0.0, 0.0
    while process.poll() is None:
        shares = [share for one in family(process.pid) if (share := memory(one)) is not None]
        most = max(most, *(resident for resident, _ in shares), 0.0)
        together = max(together, sum(share for _, share in shares))
        time.sleep(SAMPLE_S)
    assert process.stdout is not None
    if process.returncode:
        raise SystemExit("a step failed; its reason is above")
    return json.loads(process.stdout.read()) | {"process_mib": round(most), "together_mib": round(together)}


def family(number: int) -> list[psutil.Process]:
    """Return a process with all below it."""
    try:
        process = psutil.Process(number)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def memory(process: psutil.Process) -> tuple[float, float] | None:
    """Return resident memory and proportional share of a process in MiB; None once it has ended."""
    try:
        found = process.memory_full_info()
        return found.rss / 2**20, found.pss / 2**20
    except psutil.Error:
        return None


def report(decoded: list[Step], trained: dict[str, list[Step]]) -> int:
    """Print the page and return the exit code."""
    given = EVALUATION.given
    rate = {
        path: statistics.median(one["images"] / seconds for one in trained[path] for seconds in one["seconds"])
        for path in ("read", "mapped")
    }
    grown = [(one["images"], min(one["seconds"])) for one in [*trained["grown"], trained["read"][0]]]
    powers = {
        "decoding": power([(one["images"], one["seconds"]) for one in decoded]),
        "training": power(grown),
    }
    bounded = [*decoded, *trained["grown"], *trained["read"]]
    most = max(one["process_mib"] for one in bounded)
    claims = {
        f"largest resident memory of a process: {most:,} MiB, at most {given.memory:,}": most <= given.memory,
        **{
            f"{name} grows as the number of images to the power of {value:.2f}, at most {POWER}": value <= POWER
            for name, value in powers.items()
        },
        f"reading batches: {rate['read']:.0f} images/s, mapped: {rate['mapped']:.0f}; at most a tenth slower": rate[
            "read"
        ]
        * SLOWER
        >= rate["mapped"],
    }
    rows = [
        (f"decode {one['images']:,}", f"{one['seconds']:.1f}", f"{one['images'] / one['seconds']:.0f}", *memories(one))
        for one in decoded
    ]
    for name, steps in (("read, fewer", trained["grown"]), ("read", trained["read"]), ("mapped", trained["mapped"])):
        for one in steps:
            best = min(one["seconds"])
            rows.append(
                (f"train {one['images']:,}, {name}", f"{best:.1f}", f"{one['images'] / best:.0f}", *memories(one))
            )
    columns = ("step", "seconds", "images/s", "MiB, largest process", "MiB, together")
    text = EVALUATION.page(
        "Folders of images larger than memory",
        f"Cores: {len(os.sched_getaffinity(0))}. {given.decoded:,} JPEGs of {given.side} px are decoded to"
        f" {decoded[-1]['mib']:,.0f} MiB. Seconds of a training are those of its faster epoch with the predictions of"
        " the validation images. Memory is sampled ten times a second over the command, its fork server and its"
        " workers; together, pages that several share count once.",
        table(columns, rows, right=columns[1:]),
        [f"- {'holds' if good else 'FAILS'}: {claim}" for claim, good in claims.items()],
    )
    return EVALUATION.finish(text, good=all(claims.values()))


def memories(one: Step) -> tuple[str, str]:
    """Return the cells of a step's memory."""
    return f"{one['process_mib']:,}", f"{one['together_mib']:,}"


def power(points: Sequence[tuple[float, float]]) -> float:
    """Return the exponent with which the second value grows from the first point to the last."""
    (few, short), *_, (many, long) = points
    return math.log(long / short) / math.log(many / few)


if __name__ == "__main__":
    raise SystemExit(main())
