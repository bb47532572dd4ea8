"""The local engine: each check and each trial in a worker process of its own, forked from a warm server."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nngen.checks.prm import make_prm
from nngen.datasets.dataset import WORKER_FILES, Dataset
from nngen.errors import DataError, UsageError
from nngen.isolation.bubblewrap import HOME
from nngen.isolation.launcher import Launcher, Pipes
from nngen.isolation.level import Isolation
from nngen.isolation.limits import MAX_PROCESSES, Limits
from nngen.isolation.monitor import Ending, watch
from nngen.isolation.protocol import MAX_CHUNK, Frame, FrameReader, Kind
from nngen.training.artifacts import ArtifactRequest
from nngen.training.energy import EnergyMeter
from nngen.training.engine import CheckJob, TrainJob
from nngen.training.environment import describe
from nngen.training.memory_model import GpuMemoryPool, Prediction, Predictor, largest_batch, refusal
from nngen.training.scoring import TrialScorer, VerdictJudge, accuracy, verdict_of_ending
from nngen.types import EpochResult, Outcome, Trial, TrialSpec, Verdict

__all__ = ["LocalEngine"]

_FILE = "candidate.py"
_BYTES_PER_CLASS = 2
_END_S = 3.0
_CPU_S = 10
_YEAR_S = 3.2e7
_SHARE = 0.9
"""Of a card's memory that trials side by side may take."""


class LocalEngine:
    """Runs candidates on this machine. Safe to use from several threads at once.

    The first call starts the server, which loads torch once; every job after that is a fork of it.
    Leaving the ``with`` block ends whatever still runs.

    Args:
        slots: How many trainings it is to be given at once; it does not refuse more.
        predict: Says what a trial will take. What cannot fit is refused then, a batch that cannot is halved before it
            is tried, and on a card trials wait until there is room for them.
        compiled: Whether nets are compiled before they are trained. It takes minutes: for trials of many epochs on a
            card, with a compiler beside it.
    """

    def __init__(self, slots: int = 1, *, predict: Predictor | None = None, compiled: bool = False) -> None:
        self.slots = slots
        self._compiled = compiled
        self._predict = predict
        self._room: GpuMemoryPool | None = None
        self._lock = threading.Lock()
        self._launcher = Launcher()
        self._jobs = _Jobs()
        self._card: tuple[str, float] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what runs and send the server away."""
        self._jobs.end()
        self._launcher.close()

    def warm_up(self) -> None:
        """Start the server now, so that the first job does not wait for torch.

        Raises:
            NngenError: If it cannot start.
        """
        self._launcher.versions()

    def check(self, job: CheckJob) -> Verdict:
        """Run every static and dynamic rule over a candidate; see ``Engine.check``."""
        order = {
            "kind": "check",
            "shape": str(job.shape),
            "classes": job.classes,
            "hyperparameters": dict(job.hyperparameters),
            "device": job.device,
            "threads": job.threads,
            "seed": 0,
            "isolation": job.isolation.value,
        }
        limits = Limits(time_limit_s=job.time_limit_s, memory_mib=job.memory_mib)
        judge = VerdictJudge()
        ending = self._run(job.candidate.source, order, limits, judge.take)
        return judge.verdict or verdict_of_ending(ending, limits, _FILE)

    def train(
        self,
        job: TrainJob,
        on_epoch: Callable[[EpochResult], None] | None = None,
        *,
        score: Callable[[bytes], float] | None = None,
        artifacts: ArtifactRequest | None = None,
    ) -> Trial:
        """Train a candidate and compute its accuracy here, where the labels are; see ``Engine.train``.

        Where memory does not suffice once the net is built, the batch is halved and it is tried again, down to 2 and
        within the one time limit; see ``Trial.batch`` and ``Trial.batches_tried``.

        Args:
            job: The candidate and how to train it.
            on_epoch: Called in this thread after each epoch; from the first on again where the batch was halved.
            score: Computes the accuracy of validation predictions; by default, from the data set's labels.
            artifacts: Files to take from the trained net; it is filled.
        """
        spec = job.spec
        _check_spec(spec, job.dataset)
        images = len(job.dataset.train_images)
        prediction = self._predict(job.candidate, spec, images) if self._predict is not None else None
        limit = spec.memory_mib if spec.device == "cpu" else self._about_card()[1]
        if prediction is not None and (verdict := refusal(prediction, limit)) is not None:
            return Trial(
                candidate_id=job.candidate.id,
                spec=spec,
                verdict=verdict,
                predicted_mib=prediction.likely_mib,
                data_fingerprint=job.dataset.fingerprint,
            )
        first = spec if prediction is None else replace(spec, batch=largest_batch(prediction, spec.batch, limit))
        score = score or (lambda body: accuracy(body, job.dataset.validation_labels))
        with self._place(spec.device, prediction):
            trial = self._train(replace(job, spec=first), on_epoch, score, artifacts)
        return replace(trial, spec=spec, predicted_mib=None if prediction is None else prediction.likely_mib)

    @contextmanager
    def _place(self, device: str, prediction: Prediction | None) -> Iterator[None]:
        """Hold a place on the card; on a CPU each worker has its own memory and its own threads."""
        if device == "cpu" or self._predict is None:
            yield
            return
        with self._lock:
            self._room = self._room or GpuMemoryPool(_SHARE * self._about_card()[1])
        with self._room.hold(None if prediction is None else prediction.likely_mib):
            yield

    def _train(
        self,
        job: TrainJob,
        on_epoch: Callable[[EpochResult], None] | None,
        score: Callable[[bytes], float],
        artifacts: ArtifactRequest | None,
    ) -> Trial:
        """Train, with smaller and smaller batches where memory does not suffice."""
        begin = time.monotonic()
        tried = [job.spec.batch]
        with EnergyMeter(job.spec.device) as meter:
            trial = self._attempt(job, on_epoch, score, artifacts)
            while (smaller := _smaller(trial, job.spec.time_limit_s - (time.monotonic() - begin))) is not None:
                if artifacts is not None:
                    artifacts.forget()
                again = self._attempt(replace(job, spec=smaller), on_epoch, score, artifacts)
                tried.append(smaller.batch)
                if again.verdict.outcome is Outcome.TIMEOUT:
                    # What was left of the time was too short: that it does not fit is what is known.
                    break
                trial = again
        verdict = trial.verdict
        if len(tried) == 1:
            return replace(trial, energy_j=meter.joules)
        if not verdict.valid:
            message = f"{verdict.message} (batches of {', '.join(map(str, tried))} were tried)"
            verdict = replace(verdict, message=message)
        return replace(
            trial,
            verdict=verdict,
            seconds=time.monotonic() - begin,
            batches_tried=tuple(tried),
            energy_j=meter.joules,
        )

    def _attempt(
        self,
        job: TrainJob,
        on_epoch: Callable[[EpochResult], None] | None,
        score: Callable[[bytes], float],
        artifacts: ArtifactRequest | None,
    ) -> Trial:
        """Train at one size of the batch."""
        spec, dataset = job.spec, job.dataset
        judge = TrialScorer(epochs=spec.epochs, classes=dataset.classes, score=score, on_epoch=on_epoch)
        limits = Limits(time_limit_s=spec.time_limit_s, memory_mib=spec.memory_mib)
        order = {**_training_job(spec, dataset), "isolation": job.isolation.value, "compiled": self._compiled}
        environment = self._environment(spec)
        sizes = {
            Kind.VALIDATION: _BYTES_PER_CLASS * len(dataset.validation_images),
            Kind.TEST: _BYTES_PER_CLASS * len(dataset.test_images),
        }
        take: Callable[[Frame, float], bool] = judge.take
        if artifacts is not None:
            order["keep"], sizes[Kind.FILE], take = list(artifacts.names), MAX_CHUNK, artifacts.before(judge.take)
        files = [dataset.file(part) for part in WORKER_FILES]
        ending = self._run(job.candidate.source, order, limits, take, sizes, files)
        verdict = judge.verdict or verdict_of_ending(ending, limits, _FILE)
        return Trial(
            candidate_id=job.candidate.id,
            spec=spec,
            verdict=verdict,
            validation_accuracy=judge.curve[-1].validation_accuracy if verdict.valid else None,
            curve=tuple(judge.curve),
            validation_predictions=judge.validation_predictions if verdict.valid else b"",
            test_predictions=judge.test_predictions,
            parameters=judge.parameters,
            seconds=ending.seconds,
            peak_mib=ending.peak_mib,
            batch=spec.batch,
            prm=make_prm(order["hyperparameters"], shape=spec.shape, flip=order["flip"]),
            data_fingerprint=dataset.fingerprint,
            isolation=job.isolation.value,
            environment=environment,
        )

    def _run(
        self,
        source: str,
        job: dict[str, Any],
        limits: Limits,
        take: Callable[[Frame, float], bool],
        sizes: Mapping[Kind, int] | None = None,
        files: Sequence[Path] = (),
    ) -> Ending:
        """Run one job in a scratch folder that is gone afterwards."""
        folder = Path(tempfile.mkdtemp(prefix="nngen-worker-"))
        try:
            path = folder / _FILE
            path.write_bytes(source.encode("utf-8", "surrogatepass"))
            job = {**job, "folder": str(folder), "file": _FILE, "memory_mib": limits.memory_mib}
            # More than all cores give within the limit: the judge's clock comes first, unless the judge sleeps.
            job["cpu_s"] = math.ceil(min(limits.time_limit_s, _YEAR_S) * (os.cpu_count() or 1)) + _CPU_S
            if job["isolation"] == Isolation.SANDBOX:
                path.chmod(0o444)
                job |= {"folder": str(HOME), "processes": MAX_PROCESSES + 2 * (os.cpu_count() or 1)}
                pipes = self._launcher.launch_in_sandbox(job, path, files)
            else:
                pipes = self._launcher.launch(job, files)
            with self._jobs.running(pipes):
                return watch(pipes, limits, FrameReader(sizes or {}), take)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _environment(self, spec: TrialSpec) -> dict[str, str]:
        device = spec.device if spec.device == "cpu" else self._about_card()[0]
        return {
            **describe(self._launcher.versions(), device=device, threads=spec.threads),
            **({"compiled": "yes"} if self._compiled else {}),
        }

    def _about_card(self) -> tuple[str, float]:
        """Ask a worker of our own for the card's name and MiB, so that this process never touches CUDA."""
        if self._card is None:
            said: list[dict[str, Any]] = []

            def take(frame: Frame, _seconds: float) -> bool:
                said.append(frame.message())
                return True

            job = {"kind": "device", "device": "cuda", "threads": 1, "seed": 0, "isolation": Isolation.PROCESS.value}
            self._run("", job, Limits(time_limit_s=60.0, memory_mib=12_288), take)
            self._card = (str(said[0]["name"]), float(said[0]["mib"])) if said else ("cuda", math.inf)
        return self._card


class _Jobs:
    """What runs now, so that it can be ended from another thread."""

    def __init__(self) -> None:
        self._pipes: list[Pipes] = []
        self._change = threading.Condition()
        self._ended = False

    @contextmanager
    def running(self, pipes: Pipes) -> Iterator[None]:
        with self._change:
            self._pipes.append(pipes)
            if self._ended:
                pipes.kill()
        try:
            yield
        finally:
            with self._change:
                # By identity: pipes that were closed are equal to one another.
                self._pipes = [other for other in self._pipes if other is not pipes]
                self._change.notify_all()

    def end(self) -> None:
        """Kill every job and wait a little, so that its folder is gone too."""
        with self._change:
            self._ended = True
            for pipes in self._pipes:
                pipes.kill()
            self._change.wait_for(lambda: not self._pipes, timeout=_END_S)


def _smaller(trial: Trial, left_s: float) -> TrialSpec | None:
    """Say how to try again what had too little memory; None where a smaller batch would not help, or cannot be."""
    batch = trial.spec.batch // 2
    # A net that could not even be built needs as much memory at any batch.
    if trial.verdict.outcome is not Outcome.MEMORY or trial.parameters is None or batch < 2 or left_s <= 0:
        return None
    return replace(trial.spec, batch=batch, time_limit_s=left_s)


def _check_spec(spec: TrialSpec, dataset: Dataset) -> None:
    stored = dataset.shape.channels
    if stored not in (1, spec.shape.channels):
        raise DataError(
            f"{dataset.name} has {stored} channels and cannot become {spec.shape}:"
            f" take --shape {stored}x{spec.shape.height}x{spec.shape.width}"
        )
    if spec.epochs < 1 or spec.batch < 2:
        raise UsageError(f"{spec.epochs} epochs of batches of {spec.batch}: at least 1 epoch and 2 samples are needed")


def _training_job(spec: TrialSpec, dataset: Dataset) -> dict[str, Any]:
    chosen = {"lr": spec.lr, "momentum": spec.momentum, "batch": spec.batch, "epoch": spec.epochs}
    return {
        "kind": "train",
        "shape": str(spec.shape),
        "classes": dataset.classes,
        "hyperparameters": {**spec.hyperparameters, **chosen},
        "epochs": spec.epochs,
        "batch": spec.batch,
        "flip": dataset.natural,
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "device": spec.device,
        "threads": spec.threads,
        "seed": spec.seed,
    }
