"""Round trip of exported results through LEMUR itself: nn-dataset 2.1.2 in an environment of its own.

1. Create a virtual environment with LEMUR's dependencies; torch is that of the environment that runs this script.
2. Unpack the wheel into a separate folder, with some Fashion-MNIST images under the names that its MNIST loader reads.
3. Run a campaign of 20 light quartets on these images, one short epoch each, and export it into that folder.
4. LEMUR builds its database from all files, including the exported ones; ``ab.nn.api.data`` reads them back, and code,
   accuracy, epoch, duration, transform and hyperparameters are compared.
5. ``ab.nn.api.check_nn`` trains three of them; nngen trains the same files on the same images with four seeds.
6. The importer of nn-dataset 2.2.11 reads an export for 2.2.11, without network; its wheel has no metrics, so those of
   2.1.2 are used.

Each step is stored under the cache folder and not repeated. Takes about 15 minutes on 2 cores and 2 GB of disk.

    python eval/lemur_roundtrip.py [--size 20] [--check 3] [--train 1200] [--test 500] [--threads 1] [--write]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import time
import venv
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _page import Evaluation, kept, note, table
from scipy.stats import t

from nngen.archive import Archive
from nngen.campaign.replay import load_official
from nngen.datasets import Dataset, load_dataset
from nngen.export.database import export_to_database
from nngen.export.folder import export_to_folder
from nngen.export.selection import Export, gather, select
from nngen.files import cache_dir
from nngen.isolation import Isolation
from nngen.lemur.fetch import fetch
from nngen.lemur.layout import LemurVersion
from nngen.lemur.transforms import read_transform
from nngen.training import LocalEngine, TrainJob
from nngen.types import Candidate

EVALUATION = Evaluation(__file__, __doc__)
LIGHT = "AirNext,DPN68,ICNet,MNASNet,MobileNetV3,ShuffleNet,SqueezeNet-1"
NEEDS = [
    "radon~=6.0.1",
    "pylint~=3.3.3",
    "flake8~=7.1.1",
    "flake8-json~=24.4.0",
    "optuna",
    "onnx",
    "pandas",
    "tqdm",
    "transformers",
    "scikit-learn",
    "scipy",
    "zstandard",
]
NEWER = "2.2.11"
NOT_PRM = ("duration_seconds", "metric_acc", "task", "dataset", "metric", "model")
"""Keys of a file of 2.2.11 that its importer takes for hyperparameters."""

LR = 1e-3
SEEDS = 4
BATCH = 32
"""Small, so that few images still make steps enough to learn."""

READ = """
import json, sys
from ab.nn.util.db.Read import data
rows = []
for name in json.load(open(sys.argv[1])):
    rows += [{k: row[k] for k in ("nn", "nn_code", "nn_id", "accuracy", "epoch", "duration", "prm", "task", "dataset",
              "metric")} for row in data(nn=name)]
json.dump(rows, open(sys.argv[2], "w"))
"""

API = """
import json, sys
from ab.nn.api import data
frame = data(nn=json.load(open(sys.argv[1]))[0])
json.dump([len(frame), sorted(frame.columns)], open(sys.argv[2], "w"))
"""

CHECK = """
import json, sys, time
import torch
torch.set_num_threads(int(sys.argv[3]))
from ab.nn.api import check_nn
asked, found = json.load(open(sys.argv[1])), []
for one in asked:
    begin = time.time()
    name, accuracy, per_time, score = check_nn(
        one["code"], "img-classification", "mnist", "acc", dict(one["prm"]), prefix="MoE4")
    found.append({"name": name, "accuracy": accuracy, "score": score, "seconds": time.time() - begin})
    json.dump(found, open(sys.argv[2], "w"))
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the remaining steps, compare, and write the tables."""
    train = (1200, "images of Fashion-MNIST to train on")
    asked = EVALUATION.arguments(argv, size=20, check=3, train=train, test=500, threads=1)
    work = cache_dir() / f"roundtrip-{asked.size}-{asked.train}"
    work.mkdir(parents=True, exist_ok=True)
    clock = work / "clock.json"
    python = timed(clock, "environment", lambda: environment(work / "venv"))
    tree = timed(clock, "LEMUR unpacked", lambda: unpack(fetch(), work / "lemur-2.1.2"))
    images(tree / "data" / "MNIST" / "raw", asked.train, asked.test)
    archive = work / "nngen.db"
    timed(clock, "campaign", lambda: campaign(archive, tree, asked.size, asked.threads))
    exports = timed(clock, "export", lambda: export(archive, tree))
    read = timed(clock, "LEMUR's database built and read", lambda: read_back(python, tree, exports))
    again = export_to_database(tree / "db" / "ab.nn.db", exports, LemurVersion.V2_1_2)
    some = exports[: asked.check]
    checked = timed(clock, "check_nn", lambda: check_nn(python, tree, some, asked.threads))
    ours = timed(clock, "the same here", lambda: seeds(tree, some, asked.threads))
    newer = timed(clock, f"{NEWER}'s importer", lambda: read_newer(python, work, exports))
    text = report(asked, exports, read, sum(line.new for line in again), checked, ours, newer, seconds(clock))
    spans = predicted(ours)
    strange = [row for row, span in zip(checked, spans, strict=True) if not within(row["accuracy"], span)]
    good = len(equal(exports, read)) == len(exports) and len(checked) >= asked.check and not strange
    return EVALUATION.finish(text, good=good)


def timed(clock: Path, what: str, work: Any) -> Any:
    """Run a step, and store the most seconds it ever took, because later runs skip it."""
    note(f"{what} ...")
    begin = time.monotonic()
    result = work()
    known = seconds(clock)
    known[what] = max(time.monotonic() - begin, known.get(what, 0.0))
    clock.write_text(json.dumps(known))
    return result


def seconds(clock: Path) -> dict[str, float]:
    """Read the seconds of the steps."""
    return dict(json.loads(clock.read_text())) if clock.exists() else {}


def environment(folder: Path) -> Path:
    """Create LEMUR's environment; it uses torch and torchvision (5.5 GB) of this one."""
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        site = next((folder / "lib").glob("python*/site-packages"))
        (site / "nngen_torch.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", *NEEDS], check=True)
        (folder / "ready").touch()
    return python


def unpack(wheel: Path, folder: Path) -> Path:
    """Unpack LEMUR; a README.md beside ``ab`` marks the folder as its root."""
    if not (folder / "README.md").exists():
        shutil.rmtree(folder, ignore_errors=True)
        with zipfile.ZipFile(wheel) as file:
            file.extractall(folder)
        (folder / "README.md").write_text("The root of LEMUR, for a round trip.\n")
    return folder


def images(folder: Path, train: int, test: int) -> None:
    """Write the first images of Fashion-MNIST as MNIST's four files."""
    data = load_dataset("fashion-mnist")
    folder.mkdir(parents=True, exist_ok=True)
    for split, pixels, labels in (
        ("train", data.train_images[:train, 0], data.train_labels[:train]),
        ("t10k", data.test_images[:test, 0], data.test_labels[:test]),
    ):
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
            (folder / f"{split}-{kind}-ubyte").write_bytes(head + np.ascontiguousarray(array, np.uint8).tobytes())


def nngen(*tokens: object) -> str:
    """Run a command of nngen as a user would."""
    command = [sys.executable, "-m", "nngen", *map(str, tokens)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def campaign(archive: Path, tree: Path, size: int, threads: int) -> None:
    """Run or resume the campaign."""
    asked = ["--size", size, "--families", LIGHT, "--sampler", "stratified", "--dataset", "mnist", "--epochs", 1]
    asked += ["--shape", "1x32x32", "--seed", 0, "--lr", LR, "--batch", BATCH, "--threads", threads, "--device", "cpu"]
    nngen("campaign", "run", "roundtrip", *asked, "--data-root", tree / "data", "--archive", archive)


def export(archive: Path, tree: Path) -> tuple[Export, ...]:
    """Export all valid trials into LEMUR's tree."""
    with Archive.open(archive) as store:
        data = load_dataset("mnist", data_root=tree / "data")
        exports = gather(store, select(store, campaign="roundtrip"), lambda *_: data)
    export_to_folder(tree, exports, LemurVersion.V2_1_2)
    return exports


def run(python: Path, tree: Path, code: str, question: object, *more: object) -> Any:
    """Run code in LEMUR's tree and environment; input and output are JSON files."""
    folder = tree.parent
    asked, answer = folder / "question.json", folder / "answer.json"
    asked.write_text(json.dumps(question))
    answer.unlink(missing_ok=True)
    bare = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    env = {**bare, "PATH": f"{python.parent}:{bare['PATH']}", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    with (folder / "lemur.log").open("a") as log:
        subprocess.run(
            [python, "-c", code, asked, answer, *map(str, more)], cwd=tree, env=env, check=True, stdout=log, stderr=log
        )
    return json.loads(answer.read_text())


def read_back(python: Path, tree: Path, exports: Sequence[Export]) -> list[dict[str, Any]]:
    """Let LEMUR build its database if it has none, and read the exported models from it."""
    names = sorted({one.candidate.id for one in exports})
    rows, columns = run(python, tree, API, names)
    if rows < 1 or "nn_code" not in columns:
        raise SystemExit(f"ab.nn.api.data gave {rows} rows with {columns}")
    found: list[dict[str, Any]] = run(python, tree, READ, names)
    return found


def equal(exports: Sequence[Export], read: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of exports that LEMUR returned unchanged."""
    same = []
    for one in exports:
        score = one.score
        wanted = {
            "nn": one.candidate.id,
            "nn_code": one.candidate.source,
            "nn_id": one.candidate.id.rpartition("-")[2],
            "accuracy": score.accuracy,
            "epoch": score.epoch,
            "duration": score.duration_ns,
            "task": one.results.task,
            "dataset": one.results.dataset,
            "metric": one.results.metric,
        }
        for row in read:
            prm = {key: value for key, value in row["prm"].items() if key not in NOT_PRM}
            if all(row[key] == value for key, value in wanted.items()) and prm == dict(score.prm):
                same.append(one.candidate.id)
                break
    return same


def check_nn(python: Path, tree: Path, exports: Sequence[Export], threads: int) -> list[dict[str, Any]]:
    """Train some of the exports with LEMUR's ``check_nn``."""
    question = [{"code": one.candidate.source, "prm": dict(one.score.prm)} for one in exports]
    return kept(tree.parent / "checked.json", lambda: run(python, tree, CHECK, question, threads))


def seeds(tree: Path, exports: Sequence[Export], threads: int) -> list[list[float]]:
    """Train the same files here as LEMUR does, on all training images under its transform; return test accuracies."""
    data = load_official("mnist", data_root=tree / "data")
    found = []
    with LocalEngine() as engine:
        for one in exports:
            file = tree.parent / f"same-{one.candidate.id}.json"
            jobs = [_as_lemur(one, data, seed, threads) for seed in range(SEEDS)]
            found.append(kept(file, lambda jobs=jobs: [engine.train(job).validation_accuracy for job in jobs]))
    return found


def _as_lemur(one: Export, data: Dataset, seed: int, threads: int) -> TrainJob:
    """Return the training of an exported file on the official splits; validation is the official test split."""
    transform = read_transform(one.transform.name, "mnist")
    assert one.trial.spec is not None
    return TrainJob(
        candidate=Candidate(id=one.candidate.id, source=one.candidate.source, canonical=""),
        spec=replace(one.trial.spec, dataset=data.name, train_size=None, seed=seed, threads=threads, device="cpu"),
        dataset=replace(data, mean=transform.mean, std=transform.std),
        isolation=Isolation.PROCESS,
    )


def noise(rows: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return the standard deviation between seeds, pooled over models, and Student's t of its degrees of freedom.

    Four seeds would hardly know their own noise.
    """
    freedom = sum(len(values) - 1 for values in rows)
    squares = sum((len(values) - 1) * statistics.variance(values) for values in rows)
    return math.sqrt(squares / freedom), float(t.ppf(0.975, freedom))


def predicted(rows: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Return the 95 % prediction interval of another seed of each model, by the pooled noise."""
    spread, factor = noise(rows)
    halves = [factor * spread * math.sqrt(1 + 1 / len(values)) for values in rows]
    means = [statistics.mean(values) for values in rows]
    return [(max(mean - half, 0.0), min(mean + half, 1.0)) for mean, half in zip(means, halves, strict=True)]


def difference(checked: Sequence[Mapping[str, Any]], rows: Sequence[Sequence[float]]) -> str:
    """Return the mean difference between LEMUR's accuracies and ours, with its 95 % interval by the pooled noise."""
    spread, factor = noise(rows)
    mean = statistics.mean(row["accuracy"] - statistics.mean(values) for row, values in zip(checked, rows, strict=True))
    half = factor * spread * math.sqrt(sum(1 + 1 / len(values) for values in rows)) / len(rows)
    return f"{mean:+.3f} on average ({mean - half:+.3f} to {mean + half:+.3f})"


def within(value: float, interval: tuple[float, float]) -> bool:
    """Return whether a value lies in an interval."""
    return interval[0] <= value <= interval[1]


def read_newer(python: Path, work: Path, exports: Sequence[Export]) -> list[dict[str, Any]]:
    """Export for 2.2.11 into its tree, and let its importer build a database from it, offline."""
    wheels = work / "wheels"
    if not list(wheels.glob("*.whl")):
        download = ["download", "--quiet", "--no-deps", "-d", wheels, f"nn-dataset=={NEWER}"]
        subprocess.run([sys.executable, "-m", "pip", *download], check=True)
    tree = unpack(next(wheels.glob("*.whl")), work / f"lemur-{NEWER}")
    # The wheel of 2.2.11 lacks its metrics; its importer needs acc.py beside the results that name it.
    shutil.copytree(work / "lemur-2.1.2" / "ab" / "nn" / "metric", tree / "ab" / "nn" / "metric", dirs_exist_ok=True)
    export_to_folder(tree, exports, LemurVersion.V2_2_11)
    shutil.rmtree(tree / "db", ignore_errors=True)
    found: list[dict[str, Any]] = run(python, tree, READ, sorted({one.candidate.id for one in exports}))
    return found


def report(
    asked: argparse.Namespace,
    exports: Sequence[Export],
    read: Sequence[Mapping[str, Any]],
    again: int,
    checked: Sequence[Mapping[str, Any]],
    seeded: Sequence[Sequence[float]],
    newer: Sequence[Mapping[str, Any]],
    clock: Mapping[str, float],
) -> str:
    """Write the table."""
    same, same_newer = equal(exports, read), equal(exports, newer)
    about = (
        f"nn-dataset 2.1.2 in its own environment; MNIST's files hold the first {asked.train:,} training and"
        f" {asked.test:,} test images of Fashion-MNIST; one epoch at 32 px."
    )
    results = [
        (
            "read back by `ab.nn.api.data` of 2.1.2: code, accuracy, epoch, duration, hyperparameters equal",
            f"**{len(same)} of {len(exports)}**",
        ),
        ("exported once more, into the database LEMUR built: new rows", again),
        (
            f"read back from the database that {NEWER}'s importer built, offline, with the metrics of 2.1.2",
            f"{len(same_newer)} of {len(exports)}",
        ),
        ("trained by `ab.nn.api.check_nn` itself: accepted", f"{len(checked)} of {asked.check}"),
    ]
    trained, spans = [], predicted(seeded)
    for row, values, (low, high) in zip(checked, seeded, spans, strict=True):
        each = ", ".join(f"{value:.3f}" for value in values)
        spread = f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f} ({each})"
        interval = f"{low:.3f} to {high:.3f}" + ("" if within(row["accuracy"], (low, high)) else ", **missed**")
        figures = (f"{row['score']:.2f}", f"{row['seconds']:.0f}")
        trained.append((row["name"][:13], f"{row['accuracy']:.3f}", spread, interval, *figures))
    exported = [
        (
            one.candidate.id[:13],
            ", ".join(one.candidate.experts),
            f"{one.trial.validation_accuracy:.3f}",
            f"{one.score.accuracy:.3f}",
            f"{one.score.duration_ns / 1e9:.1f}",
        )
        for one in exports
    ]
    columns = ("model", "LEMUR", "ours", "95 % prediction interval of another seed", "code score", "seconds")
    return EVALUATION.page(
        "The round trip through LEMUR itself",
        about,
        table(("what", "result"), results),
        "## Trained by LEMUR",
        f"Accuracy on the same test images after one epoch on the same training images; ours with {SEEDS} seeds, whose"
        f" noise is pooled. LEMUR's less ours: {difference(checked, seeded)}.",
        table(columns, trained),
        "## What was exported",
        table(("model", "experts", "validation", "test", "s"), exported),
        "## Seconds",
        [f"- {what}: {took:.0f}" for what, took in clock.items() if took >= 0.5],
    )


if __name__ == "__main__":
    sys.exit(main())
