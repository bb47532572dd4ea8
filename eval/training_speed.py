"""Training speed of nngen's worker compared with LEMUR's loop, with the same file and images in one run.

LEMUR is nn-dataset 2.1.2, unpacked in a folder and an environment of its own; its MNIST loader reads images of
Fashion-MNIST. Both use the same training images, prediction images, normalization, batch size, seeds, epochs and
threads. The script checks three claims:

1. Loading, without a model: LEMUR's ``DataLoader`` as made by ``check_nn`` (one worker process), compared with nngen's
   worker and a file whose ``learn`` only reads. At least 10 times LEMUR's images per second at 256 px, 5 at 32 px.
2. A whole epoch of a light quartet, ``check_nn`` compared with a trial: not slower, accuracies within the seeds' noise.
3. Time of nngen's epoch by part: at most 3 % outside of the file's own forward, backward and step.

Exit code 1 if a claim fails. The first run prepares the environment (two minutes, network access for pip).

    python eval/training_speed.py --prepare
    python eval/training_speed.py [--train 2000] [--test 500] [--seeds 3] [--threads 2] [--write]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import lemur_roundtrip as lemur
import numpy as np
from _page import Evaluation, note, table
from scipy.stats import t

from nngen.assembly.assemble import assemble
from nngen.datasets import Dataset, load_dataset
from nngen.families.catalogue import load_families
from nngen.families.probe import profiles
from nngen.files import cache_dir
from nngen.isolation import Isolation
from nngen.lemur.fetch import fetch
from nngen.lemur.source import open_lemur
from nngen.plan import Plan
from nngen.training import LocalEngine, TrainJob
from nngen.training.scoring import accuracy
from nngen.types import Candidate, Family, Interface, Shape, Trial, TrialSpec

EVALUATION = Evaluation(__file__, __doc__)
EXPERTS = ("ShuffleNet", "MobileNetV3", "SqueezeNet-1", "ICNet")
SIDE = 32
BATCH = 32
LR = 1e-3
MOMENTUM = 0.9
PASSES = 5
NORM = (0.1307, 0.3081)
"""Mean and standard deviation as LEMUR's MNIST loader has them."""

FASTER = {256: 10.0, 32: 5.0}
OUTSIDE = 0.03
SCALE_S = 1000.0
"""Seconds travel home as shares of this many: what a worker says of its gate's use lies in [0, 1]."""

CARD_PEAK = 165e12
CARD_USE = (0.05, 0.25)
CARD_LAUNCH_S = (5e-6, 15e-6)
CARD_BANDWIDTH = 1.0e12
PREPARE_PASSES = 8

READ = '''
import time

import torch
import torch.nn as nn


def supported_hyperparameters():
    return {"lr", "momentum"}


class Net(nn.Module):
    """Reads every batch and learns nothing; its loss is the seconds that took."""

    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_shape[0]))

    def train_setup(self, prm):
        pass

    def learn(self, train_data):
        begin, seen = time.perf_counter(), 0
        for inputs, labels in train_data:
            seen += len(labels)
        return 0.0, (time.perf_counter() - begin) / seen

    def forward(self, x):
        return self.weight.expand(len(x), -1)
'''

WATCHED = '''

import time as _time

_SPENT = dict.fromkeys(("forward", "backward", "step", "clip", "reading", "learn", "predict"), 0.0)


def _timed(name, work):
    def run(*given, **named):
        begin = _time.perf_counter()
        try:
            return work(*given, **named)
        finally:
            _SPENT[name] += _time.perf_counter() - begin

    return run


class _Read:
    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        following = _timed("reading", iter(self.batches).__next__)
        while True:
            try:
                batch = following()
            except StopIteration:
                return
            yield batch


torch.Tensor.backward = _timed("backward", torch.Tensor.backward)
nn.utils.clip_grad_norm_ = _timed("clip", nn.utils.clip_grad_norm_)


class Net(Net):
    """The same with a stop watch: seconds so far, in place of the gate's use."""

    def blend(self, x):
        return _timed("forward" if self.training else "predict", super().blend)(x)

    def train_setup(self, prm):
        super().train_setup(prm)
        self.optimizer.step = _timed("step", self.optimizer.step)
        self.optimizer.zero_grad = _timed("step", self.optimizer.zero_grad)

    def learn(self, train_data):
        result = _timed("learn", super().learn)(_Read(train_data))
        self.history[-1]["usage"] = [seconds / {scale} for seconds in _SPENT.values()]
        return result
'''

PARTS = ("forward", "backward", "step", "clip", "reading", "learn", "predict")

LEMUR_READ = """
import json, sys, time
import torch
torch.set_num_threads(int(sys.argv[3]))
from ab.nn.util.Loader import load_dataset
from ab.nn.util.Util import train_loader_f
asked, found = json.load(open(sys.argv[1])), []
_, _, train, _ = load_dataset("img-classification", "mnist", asked["transform"])
loader = train_loader_f(train, asked["batch"], 1)
for _ in range(asked["passes"]):
    seen, begin = 0, None
    for inputs, labels in loader:
        if begin is None:
            begin = time.perf_counter()
        else:
            seen += len(labels)
    found.append((time.perf_counter() - begin) / seen)
json.dump(found, open(sys.argv[2], "w"))
"""

LEMUR_TRAIN = """
import json, sys, time
import torch
torch.set_num_threads(int(sys.argv[3]))
from ab.nn.api import check_nn
asked = json.load(open(sys.argv[1]))
torch.manual_seed(asked["seed"])
prm, begin = dict(asked["prm"]), time.perf_counter()
asked_of = (asked["code"], "img-classification", "mnist", "acc", prm)
name, accuracy, _, _ = check_nn(*asked_of, save_to_db=False, prefix="MoE4")
json.dump({"accuracy": accuracy, "epochs": prm["duration"] / 1e9, "all": time.perf_counter() - begin},
          open(sys.argv[2], "w"))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Loading times at one size: seconds per image of each pass."""

    side: int
    theirs: tuple[float, ...]
    ours: tuple[float, ...]

    @property
    def ratio(self) -> float:
        return statistics.median(self.theirs) / statistics.median(self.ours)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training of the quartet.

    Attributes:
        accuracy: Accuracy on the prediction images, in [0, 1].
        epochs: Seconds as LEMUR counts them: training and predictions, without building the net. A trial's include the
            end of the worker.
        all: Seconds of the whole call.
    """

    seed: int
    accuracy: float
    epochs: float
    all: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, compare and write the tables."""
    asked = EVALUATION.arguments(
        argv,
        train=(2000, "images to train on"),
        test=(500, "images to predict"),
        epochs=1,
        seeds=3,
        threads=2,
        prepare=(False, "make the environment and stop"),
    )
    work = cache_dir() / "training-speed"
    python, tree = prepare(work)
    data = images(work, tree, asked.train, asked.test)
    candidate = quartet()
    if asked.prepare:
        return 0
    with LocalEngine() as engine:
        engine.warm_up()
        readings = [read(side, engine, data, python, tree, asked.threads) for side in FASTER]
        pairs = [train(seed, candidate, engine, data, python, tree, asked) for seed in range(asked.seeds)]
        parts, watched = watch(candidate, engine, data, asked.threads)
    flops, calls = count(candidate, work)
    claims = judge(readings, pairs, outside(parts, watched))
    text = report(asked, readings, pairs, parts, watched, claims) + expected(readings, flops, calls)
    return EVALUATION.finish(text, good=all(claims.values()))


def prepare(work: Path) -> tuple[Path, Path]:
    """Create LEMUR's environment and unpack it without its records, which are not needed here."""
    work.mkdir(parents=True, exist_ok=True)
    python = lemur.environment(work / "venv")
    tree = lemur.unpack(fetch(), work / "lemur-2.1.2")
    for folder in (tree / "ab" / "nn" / "stat").iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)
            folder.mkdir()
    return python, tree


def images(work: Path, tree: Path, train: int, test: int) -> Dataset:
    """Give both sides the same images; nngen uses the first half of the prediction images for validation."""
    lemur.images(tree / "data" / "MNIST" / "raw", train, test)
    whole = load_dataset("fashion-mnist")
    half = test // 2
    arrays = {
        "train-images": whole.train_images[:train],
        "train-labels": whole.train_labels[:train],
        "validation-images": whole.test_images[:half],
        "validation-labels": whole.test_labels[:half],
        "test-images": whole.test_images[half:test],
        "test-labels": whole.test_labels[half:test],
    }
    folder = work / "ours"
    folder.mkdir(exist_ok=True)
    digest = hashlib.sha256()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
        digest.update(np.ascontiguousarray(array).data)
    return Dataset(
        name="fashion-mnist",
        classes=10,
        fingerprint=digest.hexdigest(),
        default_shape=whole.shape,
        mean=NORM[:1],
        std=NORM[1:],
        folder=folder,
        **{name.replace("-", "_"): array for name, array in arrays.items()},
    )


def quartet() -> Candidate:
    """Assemble the light quartet."""
    known = load_families(open_lemur(fetch()))
    measured = profiles([known[name] for name in EXPERTS], Shape(1, SIDE, SIDE))
    experts: list[tuple[Family, Interface]] = []
    for name in EXPERTS:
        interface = measured[name].interface
        assert interface is not None
        experts.append((known[name], interface))
    return assemble(Plan(experts=EXPERTS), experts)


def spec(side: int, threads: int, *, seed: int = 0, epochs: int = 1, batch: int = BATCH) -> TrialSpec:
    """Return the specification of a trial."""
    return TrialSpec(
        dataset="fashion-mnist",
        shape=Shape(1, side, side),
        epochs=epochs,
        batch=batch,
        lr=LR,
        momentum=MOMENTUM,
        seed=seed,
        threads=threads,
    )


def valid(trial: Trial) -> Trial:
    """Return a trial if it is valid."""
    if not trial.verdict.valid:
        raise SystemExit(f"our trial failed: {trial.verdict.message}")
    return trial


def read(side: int, engine: LocalEngine, data: Dataset, python: Path, tree: Path, threads: int) -> Reading:
    """Read every batch without using it."""
    note(f"reading at {side} px")
    question = {"transform": f"norm_{side}", "batch": BATCH, "passes": PASSES}
    theirs = lemur.run(python, tree, LEMUR_READ, question, threads)
    reader = Candidate(id="0" * 32, source=READ, canonical="")
    trial = valid(
        engine.train(
            TrainJob(
                candidate=reader, spec=spec(side, threads, epochs=PASSES), dataset=data, isolation=Isolation.PROCESS
            )
        )
    )
    ours = tuple(point.train_loss for point in trial.curve if point.train_loss is not None)
    return Reading(side=side, theirs=tuple(theirs), ours=ours)


def train(
    seed: int,
    candidate: Candidate,
    engine: LocalEngine,
    data: Dataset,
    python: Path,
    tree: Path,
    asked: argparse.Namespace,
) -> tuple[Run, Run]:
    """Train the quartet on both sides in alternating order; return LEMUR's runs, then nngen's."""

    def theirs() -> Run:
        note(f"seed {seed}: LEMUR")
        prm = {"lr": LR, "momentum": MOMENTUM, "batch": BATCH, "epoch": asked.epochs, "transform": f"norm_{SIDE}"}
        question = {"code": candidate.source, "prm": prm, "seed": seed}
        return Run(seed=seed, **lemur.run(python, tree, LEMUR_TRAIN, question, asked.threads))

    def ours() -> Run:
        note(f"seed {seed}: ours")
        begin = time.perf_counter()
        epochs: list[float] = []
        trial = valid(
            engine.train(
                TrainJob(
                    candidate=candidate,
                    spec=spec(SIDE, asked.threads, seed=seed, epochs=asked.epochs),
                    dataset=data,
                    isolation=Isolation.PROCESS,
                ),
                lambda _: epochs.append(time.perf_counter()),
            )
        )
        end = time.perf_counter()
        seconds = sum(point.seconds for point in trial.curve) + end - epochs[-1]
        predicted = trial.validation_predictions + trial.test_predictions
        right = accuracy(predicted, np.concatenate([data.validation_labels, data.test_labels]))
        return Run(seed=seed, accuracy=right, epochs=seconds, all=end - begin)

    order: list[Callable[[], Run]] = [theirs, ours] if seed % 2 == 0 else [ours, theirs]
    done = {side.__name__: side() for side in order}
    return done["theirs"], done["ours"]


def watch(candidate: Candidate, engine: LocalEngine, data: Dataset, threads: int) -> tuple[dict[str, float], float]:
    """Train a file with timers; return the seconds of the second epoch by part and by the parent's clock.

    A file reports after training and before predicting, so the predictions of the second epoch are reported by the
    third.
    """
    note("where an epoch goes")
    source = candidate.source + WATCHED.replace("{scale}", str(SCALE_S))
    watched = Candidate(id=candidate.id, source=source, canonical="")
    curve = valid(
        engine.train(
            TrainJob(candidate=watched, spec=spec(SIDE, threads, epochs=3), dataset=data, isolation=Isolation.PROCESS)
        )
    ).curve
    first, second, third = (
        {part: share * SCALE_S for part, share in zip(PARTS, point.usage, strict=True)} for point in curve
    )
    parts = {part: second[part] - first[part] for part in PARTS} | {"predict": third["predict"] - second["predict"]}
    return parts, curve[1].seconds


def count(candidate: Candidate, work: Path) -> tuple[float, int]:
    """Count a step's floating-point operations per image, and its operator calls."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode

    from nngen.checks.candidate_net import load_module
    from nngen.checks.prm import make_prm

    class Calls(TorchDispatchMode):
        number = 0

        def __torch_dispatch__(self, function, types, given=(), named=None):  # type: ignore[no-untyped-def]
            # Views launch no kernel, so they do not count.
            self.number += not (function.is_view or function._schema.name == "aten::detach")
            return function(*given, **(named or {}))

    path = work / "quartet.py"
    path.write_text(candidate.source)
    torch.manual_seed(0)
    prm = make_prm({"batch": BATCH}, shape=Shape(1, SIDE, SIDE))
    net = load_module(path).Net((1, 1, SIDE, SIDE), (10,), prm, torch.device("cpu"))
    net.train_setup(prm)
    batch = [(torch.randn(BATCH, 1, SIDE, SIDE), torch.arange(BATCH) % 10)]
    with FlopCounterMode(display=False) as flops:
        net.learn(batch)
    with Calls() as calls:
        net.learn(batch)
    return flops.get_total_flops() / BATCH, calls.number


def outside(parts: dict[str, float], seconds: float) -> float:
    """Return the share of an epoch outside of the file's forward, backward, clipping and step."""
    own = sum(parts[part] for part in ("forward", "backward", "step", "clip", "predict"))
    return 1 - own / seconds


def judge(readings: Sequence[Reading], pairs: Sequence[tuple[Run, Run]], share: float) -> dict[str, bool]:
    """Compare the measurements with the claims."""
    claims = {
        f"loader at {reading.side} px at least {FASTER[reading.side]:.0f} times as fast": reading.ratio
        >= FASTER[reading.side]
        for reading in readings
    }
    claims["epoch never slower"] = all(ours.epochs <= theirs.epochs for theirs, ours in pairs)
    difference, noise = compared(pairs)
    claims["accuracies within the noise of the seeds"] = abs(difference) <= noise
    claims[f"at most {OUTSIDE:.0%} of an epoch outside of the model"] = share <= OUTSIDE
    return claims


def compared(pairs: Sequence[tuple[Run, Run]]) -> tuple[float, float]:
    """Return the mean difference of accuracies, nngen minus LEMUR, and its 95 % margin (Student's t)."""
    theirs, ours = ([run.accuracy for run in side] for side in zip(*pairs, strict=True))
    difference = statistics.mean(ours) - statistics.mean(theirs)
    if len(pairs) < 2:
        return difference, float("inf")
    pooled = (statistics.variance(theirs) + statistics.variance(ours)) / 2
    chance = float(t.ppf(0.975, 2 * len(pairs) - 2))
    return difference, chance * (2 * pooled / len(pairs)) ** 0.5


def report(
    asked: argparse.Namespace,
    readings: Sequence[Reading],
    pairs: Sequence[tuple[Run, Run]],
    parts: dict[str, float],
    watched: float,
    claims: dict[str, bool],
) -> str:
    """Write the tables."""
    versions = f"{platform.machine()}, {os.cpu_count()} cores, {asked.threads} threads"
    about = (
        f"{versions}, no GPU. LEMUR is nn-dataset 2.1.2 and its `check_nn`. Both sides train the same file, a mixture"
        f" of {', '.join(EXPERTS)}, on the same {asked.train:,} images of Fashion-MNIST in batches of {BATCH},"
        f" lr {LR:g}, and predict the same {asked.test:,} test images."
    )
    loader = []
    for reading in readings:
        rates = [sorted(1 / value for value in side) for side in (reading.theirs, reading.ours)]
        shown = [f"{statistics.median(side):,.0f} ({side[0]:,.0f} to {side[-1]:,.0f})" for side in rates]
        loader.append((f"{reading.side} px", *shown, f"**{reading.ratio:.1f}**"))
    runs = []
    for theirs, ours in pairs:
        seconds = [f"{run.epochs:.1f} ({run.all:.1f})" for run in (theirs, ours)]
        accuracies = [f"{run.accuracy:.3f}" for run in (theirs, ours)]
        runs.append((theirs.seed, *seconds, f"{theirs.epochs / ours.epochs:.2f}", *accuracies))
    middle = [statistics.median(run.epochs for run in side) for side in zip(*pairs, strict=True)]
    runs.append(("median", *(f"{value:.1f}" for value in middle), f"**{middle[0] / middle[1]:.2f}**", "", ""))
    difference, noise = compared(pairs)
    body = parts["learn"] - sum(parts[part] for part in ("forward", "backward", "step", "clip", "reading"))
    shares = {
        "forward pass of the experts and the gate": parts["forward"],
        "backward pass": parts["backward"],
        "optimizer's step": parts["step"],
        "clipping the gradient, part of the step": parts["clip"],
        "forward pass of the predictions": parts["predict"],
        "reading: resize, normalise, shuffle": parts["reading"],
        "the rest of the file's `learn`: mixup, loss, tallies": body,
        "the rest of the worker: images of the predictions, messages": watched - parts["learn"] - parts["predict"],
    }
    return EVALUATION.page(
        "The speed of training, beside LEMUR's own loop",
        about,
        table(("claim", "holds"), [(claim, "yes" if holds else "**no**") for claim, holds in claims.items()]),
        "## The loader alone",
        f"Images a second with no model; median of {PASSES} passes (slowest to fastest). LEMUR's loader has one worker"
        " process, as `check_nn` starts it, and the time until its first batch is left out.",
        table(("size", "LEMUR", "ours", "ratio"), loader),
        f"## The whole trial at {SIDE} px",
        "LEMUR's seconds are its own `duration`: training and predicting, once the net is built. Ours are the same, by"
        " the engine's clock, and the end of the worker. In brackets from the call to its answer: LEMUR's code score,"
        " our worker's start.",
        table(("seed", "LEMUR, s", "ours, s", "ratio", "LEMUR's accuracy", "ours"), runs),
        f"Mean accuracy of ours less LEMUR's: {difference:+.3f}; means of {len(pairs)} seeds differ by up to"
        f" {noise:.3f} by chance (95 %, t-test).",
        "## Where our epoch goes",
        f"The second epoch of three, {watched:.2f} s by the engine's clock, by a stop watch in the file.",
        table(
            ("part", "s", "share"),
            [(name, f"{value:.3f}", f"{value / watched:.2%}") for name, value in shares.items()],
        ),
        f"Outside of forward, backward and step: **{outside(parts, watched):.2%}**.",
    )


def expected(readings: Sequence[Reading], flops: float, calls: int) -> str:
    """Return an estimate for a GPU of 24 GiB, computed from the counts and marked as an estimate."""
    work = flops * BATCH / CARD_PEAK
    slow, fast = (
        max(work / use, calls * launch) for use, launch in zip(CARD_USE, reversed(CARD_LAUNCH_S), strict=True)
    )
    bytes_read = 4 * SIDE * SIDE * BATCH * PREPARE_PASSES / CARD_BANDWIDTH
    theirs = {reading.side: BATCH * statistics.median(reading.theirs) for reading in readings}
    lines = [
        "",
        "## An estimate for a card of 24 GiB",
        "",
        f"**Not measured.** Counted here: {flops / 1e6:,.0f} MFLOP an image for forward and backward, {calls:,}"
        f" calls of the device a step of {BATCH}. Assumed: a peak of {CARD_PEAK / 1e12:.0f} TFLOP/s in bfloat16, of"
        f" which {CARD_USE[0]:.0%} to {CARD_USE[1]:.0%} is reached,"
        f" {CARD_LAUNCH_S[0] * 1e6:.0f} to {CARD_LAUNCH_S[1] * 1e6:.0f} µs a call from Python,"
        f" {CARD_BANDWIDTH / 1e12:.0f} TB/s of memory, {PREPARE_PASSES} passes over a batch to make it.",
        "",
        f"- A step of {BATCH} images at {SIDE} px takes max(FLOP / (use x peak), calls x launch):"
        f" {1000 * fast:.1f} to {1000 * slow:.1f} ms, of which arithmetic"
        f" {1000 * work / CARD_USE[1]:.2f} to {1000 * work / CARD_USE[0]:.2f} ms.",
        f"- Making the batch there takes bytes x passes / bandwidth = {1e6 * bytes_read:.1f} µs, besides about ten"
        " calls.",
        *(
            f"- LEMUR's loader, with one worker process of a core as fast as these, takes {1000 * value:.0f} ms for the"
            f" same batch at {side} px, whatever the card."
            for side, value in sorted(theirs.items())
        ),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
