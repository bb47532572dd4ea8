"""Everything that needs a graphics card, in one command and under five minutes.

    python eval/card.py --write         # on a machine with a card: tests, measurements, the page
    python eval/card.py --device cpu --epochs 2 --train 64 --sides 32 --seeds 2 --no-compiled     # a rehearsal

1. The tests that are marked ``gpu`` pass, and none is skipped.
2. bfloat16 beside float32: one mixture, the same seeds, the worker's own code. Its accuracy is not lower by more than
   the noise; the page states the smallest difference that so many seeds would show.
3. Images per second at each side, not fewer than in a plain PyTorch loop: a ``DataLoader``, float32, the same file.
4. With ``--compiled``: the same rate, and the seconds of the first epoch, in which the network is compiled.
5. Two trials that share the card, beside one.

The mixture is a preset that brings its own experts, so that neither LEMUR nor a network is needed; digits come with
scikit-learn. Exit code 1 if a claim fails; 2, with one line, on a machine without a card. A rehearsal on the CPU judges
neither speed nor accuracy, and writes no page.
"""

from __future__ import annotations

import math
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _page import Evaluation, note, table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import normalize, resize

from nngen.analysis.statistics import difference_interval
from nngen.assembly.assemble import assemble
from nngen.assembly.plan_toml import preset
from nngen.checks.candidate_net import build_net, load_module
from nngen.checks.prm import make_prm
from nngen.datasets import load_dataset
from nngen.errors import UsageError
from nngen.isolation import Isolation
from nngen.training import LocalEngine, TrainJob, pick_device
from nngen.training.frames import FrameKind
from nngen.types import Trial, TrialSpec

sys.path.append(str(Path(__file__).parent.parent / "tests" / "training"))
from card_rehearsal import train_with_card_settings

EVALUATION = Evaluation(__file__, __doc__)
TESTS = Path(__file__).parent.parent / "tests"
PRESET = "moev7"
MOST_S = 300.0
FASTER = 1.0
"""Least ratio of the rate to that of the plain loop."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run every part; return 1 if a claim fails."""
    asked = EVALUATION.arguments(
        argv,
        device=("cuda", "cuda, or cpu for a rehearsal"),
        dataset="digits",
        train=(1024, "training images"),
        epochs=(4, "epochs of each training, two at least"),
        batch=128,
        seeds=(6, "seeds of each precision, two at least"),
        sides=([32, 80, 256], "pixels"),
        loaders=(4, "processes of the plain loop's DataLoader"),
        no_compiled=(False, "leave out --compiled, which needs a C++ compiler"),
    )
    try:
        device = pick_device(asked.device)
    except UsageError as error:
        EVALUATION.error(str(error))
    if device == "cpu" and asked.write:
        EVALUATION.error("the page is for a card: leave out --write")
    if min(asked.epochs, asked.seeds) < 2:
        EVALUATION.error("a rate leaves out the first epoch, and noise needs two seeds: give two or more of each")
    data, begin = load_dataset(asked.dataset), time.monotonic()
    spec = TrialSpec(
        dataset=asked.dataset,
        shape=replace(data.default_shape, height=32, width=32),
        epochs=asked.epochs,
        batch=asked.batch,
        train_size=asked.train,
        lr=3e-3,
        device=device,
        threads=torch.get_num_threads(),
    )
    job = TrainJob(candidate=assemble(preset(PRESET), []), spec=spec, dataset=data, isolation=Isolation.PROCESS)
    tests = marked_tests()
    precisions = {half: [precision(job, seed, half=half) for seed in range(asked.seeds)] for half in (True, False)}
    note("bfloat16 and float32 trained")
    with LocalEngine(slots=2) as engine:
        ours = {side: train(engine, at(job, side)) for side in asked.sides}
        note("rates measured")
        alone, together = ours[asked.sides[0]], shared(engine, at(job, asked.sides[0]))
    plain = {side: plain_loop(at(job, side), asked.loaders) for side in asked.sides}
    note("plain loops measured")
    compiled = None
    if not asked.no_compiled:
        with LocalEngine(compiled=True) as engine:
            compiled = train(engine, at(job, asked.sides[0]))
    seconds = time.monotonic() - begin
    worse = difference_interval(precisions[True], precisions[False])
    claims = {
        "tests marked gpu pass, and none is skipped": tests.get("passed", 0) > 0 and set(tests) == {"passed"},
        "bfloat16 is not less accurate than float32, beyond the noise": worse is not None and worse[1] >= 0,
        **{f"as fast as a plain loop at {side} px": rate(ours[side]) >= FASTER * plain[side] for side in asked.sides},
        "under five minutes": seconds < MOST_S,
    }
    if device == "cpu":
        claims = {"every training is valid": True}  # ``train`` ends the script where one is not
    about = f"{alone.environment['device']}, torch {torch.__version__}; {seconds:.0f} s in all."
    text = EVALUATION.page(
        "A graphics card, measured",
        about + ("" if device == "cuda" else " **A rehearsal on the CPU: no figure here says anything of a card.**"),
        table(("claim", "holds"), [(claim, "yes" if holds else "**no**") for claim, holds in claims.items()]),
        f"Tests marked `gpu`: {', '.join(f'{count} {word}' for word, count in tests.items())}.",
        precision_text(precisions[True], precisions[False]),
        "## Images per second",
        f"Preset {PRESET}, {asked.train:,} training images of {asked.dataset}, batches of {asked.batch}; the validation"
        f" images are predicted in each epoch. Median of epochs 2 to {asked.epochs}; the plain loop has {asked.loaders}"
        " processes that load.",
        table(
            ("side", "plain loop", "nngen", "ratio"),
            [
                (f"{side} px", f"{plain[side]:,.0f}", f"{rate(one):,.0f}", f"{rate(one) / plain[side]:.2f}")
                for side, one in ours.items()
            ],
        ),
        ""
        if compiled is None
        else f"Compiled at {asked.sides[0]} px: {rate(compiled):,.0f} images/s, beside {rate(alone):,.0f};"
        f" first epoch {compiled.curve[0].seconds:.1f} s, beside {alone.curve[0].seconds:.1f} s.",
        f"Two trials at once at {asked.sides[0]} px take {together:.1f} s, one takes {alone.seconds:.1f} s:"
        f" {2 * (alone.seconds or 0.0) / together:.2f} times the work in the same time.",
    )
    return EVALUATION.finish(text, good=all(claims.values()))


def marked_tests() -> dict[str, int]:
    """Run the tests that are marked ``gpu``; return their number by outcome."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", str(TESTS / "training")]
    done = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-300:]
    note(f"tests: {last}")
    found = {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)", last)}
    return found or {"errors": 1}


def at(job: TrainJob, side: int) -> TrainJob:
    """Return the job with images of a side."""
    return replace(job, spec=replace(job.spec, shape=replace(job.spec.shape, height=side, width=side)))


def train(engine: LocalEngine, job: TrainJob) -> Trial:
    """Train; end the script where the trial is not valid."""
    trial = engine.train(job)
    if not trial.verdict.valid:
        raise SystemExit(f"{job.spec.shape}: {trial.verdict.outcome.value}: {trial.verdict.message}")
    return trial


def rate(trial: Trial) -> float:
    """Return training images per second: the median of all epochs but the first."""
    return statistics.median((point.samples or 0) / point.seconds for point in trial.curve[1:])


def precision(job: TrainJob, seed: int, *, half: bool) -> float:
    """Train in this process by the worker's code, in bfloat16 or in float32; return the validation accuracy."""
    seeded, labels = replace(job, spec=replace(job.spec, seed=seed)), job.dataset.validation_labels
    with tempfile.TemporaryDirectory() as folder:
        sent = train_with_card_settings(seeded, len(job.dataset.train_labels), Path(folder), half=half)
    classes = np.frombuffer(sent.bodies[FrameKind.VALIDATION], "<u2")
    return float((classes == labels).mean())


def precision_text(half: Sequence[float], whole: Sequence[float]) -> str:
    """Describe both accuracies, their difference and the smallest one that would be seen."""
    low, high = difference_interval(half, whole) or (math.nan, math.nan)
    return (
        f"Validation accuracy over {len(half)} seeds: bfloat16 {statistics.fmean(half):.4f}, float32"
        f" {statistics.fmean(whole):.4f}; difference {(low + high) / 2:+.4f} ({low:+.4f} to {high:+.4f}, 95 %). A loss"
        f" of less than {(high - low) / 2:.4f} would not be seen."
    )


def shared(engine: LocalEngine, job: TrainJob) -> float:
    """Return the seconds that two trials take at once."""
    begin = time.monotonic()
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(partial(train, engine), [replace(job, spec=replace(job.spec, seed=seed)) for seed in (1, 2)]))
    return time.monotonic() - begin


class Images(Dataset[tuple[Tensor, int]]):
    """Training images one by one, prepared as most scripts do it."""

    def __init__(self, job: TrainJob) -> None:
        self.job = job

    def __len__(self) -> int:
        return self.job.spec.train_size or len(self.job.dataset.train_labels)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        data, shape = self.job.dataset, self.job.spec.shape
        image = torch.from_numpy(data.train_images[place].astype(np.float32) / 255)
        image = resize(image, [shape.height, shape.width], antialias=False)
        return normalize(image, list(data.mean), list(data.std)), int(data.train_labels[place])


@dataclass(frozen=True, slots=True)
class OnDevice:
    """Batches of a loader, moved to a device."""

    loader: DataLoader[tuple[Tensor, int]]
    device: torch.device

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.loader:
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)


def plain_loop(job: TrainJob, loaders: int) -> float:
    """Train the file in a plain loop in float32; return images per second, as ``rate`` does."""
    spec, data, device = job.spec, job.dataset, torch.device(job.spec.device)
    images, seconds = Images(job), []
    loader = DataLoader(
        images,
        batch_size=spec.batch,
        shuffle=True,
        num_workers=loaders,
        persistent_workers=loaders > 0,
        pin_memory=device.type == "cuda",
    )
    prm = make_prm(
        {"lr": spec.lr, "momentum": spec.momentum, "batch": spec.batch, "epoch": spec.epochs}, shape=spec.shape
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "candidate.py"
        path.write_text(job.candidate.source)
        net = build_net(load_module(path), path, shape=spec.shape, classes=data.classes, prm=dict(prm), device=device)
    net.train_setup(prm)
    shown = torch.from_numpy(data.validation_images.astype(np.float32) / 255)
    for _ in range(spec.epochs):
        begin = time.monotonic()
        net.train()
        net.learn(OnDevice(loader, device))
        net.eval()
        with torch.no_grad():
            for part in shown.split(spec.batch):
                prepared = normalize(
                    resize(part, [spec.shape.height, spec.shape.width], antialias=False), data.mean, data.std
                )
                net(prepared.to(device)).argmax(1).cpu()
        seconds.append(time.monotonic() - begin)
    return statistics.median(len(images) / one for one in seconds[1:])


if __name__ == "__main__":
    sys.exit(main())
