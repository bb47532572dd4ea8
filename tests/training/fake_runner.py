"""A runner of jobs that gives the frames of a script instead of starting workers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from nngen.isolation import ExitReason, Frame, Isolation, Job, JobResult, Limits
from nngen.isolation.protocol import MESSAGE
from nngen.testing.fakes import fake_dataset
from nngen.training.cards import Card
from nngen.training.engine import TrainJob
from nngen.training.environment import describe
from nngen.training.frames import FrameKind
from nngen.types import Candidate, EpochResult, Outcome, Shape, Trial, TrialSpec, Verdict

READY = {"event": "ready", "parameters": 650}
EPOCH = {"event": "epoch", "samples": 10}
DONE = JobResult(
    reason=ExitReason.DONE,
    limits=Limits(time_limit_s=1.0, memory_mib=1),
    status=0,
    seconds=2.5,
    peak_mib=300.0,
    output=b"",
)


def frame(item: Mapping[str, Any] | tuple[int, bytes]) -> Frame:
    return Frame(*item) if isinstance(item, tuple) else Frame(MESSAGE, json.dumps(item).encode())


def classes(kind: FrameKind, images: int) -> tuple[int, bytes]:
    """Return a frame of predictions: class 1 for the first image, 0 for each other."""
    return kind, (np.arange(images) == 0).astype("<u2").tobytes()


def training(epochs: int = 1) -> list[Any]:
    """Return the frames of a training on the fake data set."""
    one = [EPOCH, classes(FrameKind.VALIDATION, 40)]
    return [READY, *one * epochs, classes(FrameKind.TEST, 50)]


@dataclass
class FakeRunner:
    """Gives the frames of one script for each job, a second apart, and its result."""

    scripts: list[tuple[Sequence[Any], JobResult]] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    messages: Sequence[Any] = ()
    answer: Callable[[Job], Any] | None = None
    now: float = 1000.0

    def monotonic(self) -> float:
        """Return the time, which passes as jobs take it."""
        return self.now

    def versions(self) -> dict[str, str]:
        self.events.append("versions")
        return {"torch": "2"}

    def close(self) -> None:
        self.events.append("close")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, job: Job, take: Callable[[Frame, float], bool]) -> JobResult:
        self.jobs.append(job)
        frames, result = self.scripts.pop(0)
        for seconds, item in enumerate(frames, 1):
            if item == "answer":
                assert self.answer is not None
                item = self.answer(job)
            if take(frame(item), float(seconds)):
                break
        self.now += result.seconds
        return result

    def collect(self, job: Job) -> tuple[Sequence[Any], JobResult]:
        self.jobs.append(job)
        if self.answer is not None:
            self.answer(job)
        return self.messages, DONE


SPEC = TrialSpec(dataset="fake", shape=Shape(1, 8, 8), threads=2, time_limit_s=60.0, memory_mib=1200)
WORK = TrainJob(
    candidate=Candidate(id="one", source="x = 1\n", canonical=""),
    spec=SPEC,
    dataset=fake_dataset(),
    isolation=Isolation.SANDBOX,
)
FILES = [Path("fake") / f"{part}.npy" for part in ("train-images", "train-labels", "validation-images", "test-images")]
FRAMES = {FrameKind.VALIDATION: range(80, 81), FrameKind.TEST: range(100, 101)}
CARDS = (Card(name="Small", memory_mib=80.0, visible="3"), Card(name="Large", memory_mib=800.0, visible="GPU-a"))
FULL = replace(DONE, reason=ExitReason.MEMORY, seconds=10.0, peak_mib=600.0)
LATE = replace(DONE, reason=ExitReason.TIME, seconds=40.0)


def with_spec(**changes: Any) -> TrainJob:
    return replace(WORK, spec=replace(SPEC, **changes))


def a_trial(**changes: Any) -> Trial:
    """Return the trial of ``training()``."""
    point = EpochResult(epoch=1, validation_accuracy=3 / 40, seconds=2.0, samples=10)
    fields: dict[str, Any] = {
        "candidate_id": "one",
        "spec": SPEC,
        "verdict": Verdict(outcome=Outcome.VALID),
        "validation_accuracy": 3 / 40,
        "curve": (point,),
        "validation_predictions": classes(FrameKind.VALIDATION, 40)[1],
        "test_predictions": classes(FrameKind.TEST, 50)[1],
        "parameters": 650,
        "seconds": 2.5,
        "peak_mib": 300.0,
        "batch": 64,
        "prm": {"lr": 1e-3, "momentum": 0.9, "dropout": 0.2, "pretrained": 0, "batch": 64, "epoch": 1}
        | {"transform": "norm_8"},
        "data_fingerprint": "d1",
        "isolation": "sandbox",
        "environment": describe({"torch": "2"}, device="cpu", threads=2),
    }
    return Trial(**(fields | changes))
