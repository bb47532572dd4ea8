"""The local engine: each check and each trial in a worker process of its own, forked from a warm server."""

from __future__ import annotations

import json
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
from nngen.training.environment import describe
from nngen.training.memory_model import GpuMemoryPool, Prediction, Predictor, largest_batch, refusal
from nngen.training.scoring import TrialScorer, VerdictJudge, accuracy, verdict_of_ending
from nngen.types import Candidate, EpochResult, Hyperparameters, Outcome, Shape, Trial, TrialSpec, Verdict

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

    def check(
        self,
        candidate: Candidate,
        *,
        shape: Shape,
        classes: int = 10,
        hyperparameters: Hyperparameters | None = None,
        device: str = "cpu",
        threads: int = 1,
        wall_s: float = 60.0,
        memory_mib: int = 12_288,
        isolation: Isolation = Isolation.PROCESS,
    ) -> Verdict:
        """Run every static and dynamic rule over a candidate.

        Args:
            candidate: Only its source is looked at.
            shape: Of the images, without the batch.
            classes: Number of classes.
            hyperparameters: Values for ``prm`` other than the defaults.
            device: ``cpu`` or ``cuda``.
            threads: CPU threads of the worker.
            wall_s: Limit on this process's clock.
            memory_mib: Limit on resident memory over the worker's process tree.
            isolation: How far it is kept away.

        Raises:
            UsageError: If a sandbox is asked for and there can be none; nothing is run then.
            NngenError: If no worker can be started.
        """
        job = {
            "kind": "check",
            "shape": str(shape),
            "classes": classes,
            "hyperparameters": dict(hyperparameters or {}),
            "device": device,
            "threads": threads,
            "seed": 0,
            "isolation": isolation.value,
        }
        limits = Limits(wall_s=wall_s, memory_mib=memory_mib)
        judge = VerdictJudge()
        ending = self._run(candidate.source, job, limits, judge.take)
        return judge.verdict or verdict_of_ending(ending, limits, _FILE)

    def train(
        self,
        candidate: Candidate,
        spec: TrialSpec,
        dataset: Dataset,
        on_epoch: Callable[[EpochResult], None] | None = None,
        *,
        isolation: Isolation = Isolation.PROCESS,
        score: Callable[[bytes], float] | None = None,
        keep: ArtifactRequest | None = None,
    ) -> Trial:
        """Train a candidate and score it here, where the labels are.

        Where memory does not suffice once the net is built, the batch is halved and it is tried again, down to 2 and
        within the one limit of time. The environment says what ``batch`` was used and what ``batches_tried``.

        Args:
            candidate: Only its id and its source are looked at.
            spec: How to train; ``spec.device`` is ``cpu`` or ``cuda``.
            dataset: Where the images come from; its labels of validation and test stay in this process.
            on_epoch: Called after each epoch, in this thread; from the first on again where the batch was halved.
            isolation: How far it is kept away.
            score: Gives the accuracy of validation predictions; by default, from the data set's labels.
            keep: What the trained net is to hand over; it is filled.

        Returns:
            The trial; its verdict says what went wrong, if something did.

        Raises:
            DataError: If the images cannot be brought to ``spec.shape``.
            UsageError: If there is nothing to train: no epoch, or batches of one. If a sandbox is asked for
                and there can be none; nothing is run then.
            NngenError: If no worker can be started.
        """
        _check_spec(spec, dataset)
        prediction = self._predict(candidate, spec, len(dataset.train_images)) if self._predict is not None else None
        limit = spec.memory_mib if spec.device == "cpu" else self._about_card()[1]
        if prediction is not None and (verdict := refusal(prediction, limit)) is not None:
            return Trial(candidate_id=candidate.id, spec=spec, verdict=verdict)
        first = spec if prediction is None else replace(spec, batch=largest_batch(prediction, spec.batch, limit))
        with self._place(spec.device, prediction):
            trial = self._train(candidate, first, dataset, on_epoch, isolation, score, keep)
        environment = dict(trial.environment)
        if prediction is not None:
            environment["predicted_mib"] = f"{prediction.likely_mib:.0f}"
        return replace(trial, spec=spec, environment=environment)

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
        candidate: Candidate,
        spec: TrialSpec,
        dataset: Dataset,
        on_epoch: Callable[[EpochResult], None] | None,
        isolation: Isolation,
        score: Callable[[bytes], float] | None,
        keep: ArtifactRequest | None,
    ) -> Trial:
        """Train, with smaller and smaller batches where memory does not suffice."""
        begin = time.monotonic()
        tried = [spec.batch]
        with EnergyMeter(spec.device) as meter:
            trial = self._attempt(candidate, spec, dataset, on_epoch, isolation, score, keep)
            while (smaller := _smaller(trial, spec.wall_s - (time.monotonic() - begin))) is not None:
                if keep is not None:
                    keep.forget()
                again = self._attempt(candidate, smaller, dataset, on_epoch, isolation, score, keep)
                tried.append(smaller.batch)
                if again.verdict.outcome is Outcome.TIMEOUT:
                    # What was left of the time was too short: that it does not fit is what is known.
                    break
                trial = again
        seconds = time.monotonic() - begin if len(tried) > 1 else trial.seconds
        return _told(replace(trial, seconds=seconds), tried, meter.joules)

    def _attempt(
        self,
        candidate: Candidate,
        spec: TrialSpec,
        dataset: Dataset,
        on_epoch: Callable[[EpochResult], None] | None,
        isolation: Isolation,
        score: Callable[[bytes], float] | None,
        keep: ArtifactRequest | None,
    ) -> Trial:
        """Train at one size of the batch."""
        judge = TrialScorer(
            epochs=spec.epochs,
            classes=dataset.classes,
            score=score or (lambda body: accuracy(body, dataset.validation_labels)),
            on_epoch=on_epoch,
        )
        limits = Limits(wall_s=spec.wall_s, memory_mib=spec.memory_mib)
        job = {**_training_job(spec, dataset), "isolation": isolation.value, "compiled": self._compiled}
        environment = self._environment(spec, dataset, job)
        sizes = {
            Kind.VALIDATION: _BYTES_PER_CLASS * len(dataset.validation_images),
            Kind.TEST: _BYTES_PER_CLASS * len(dataset.test_images),
        }
        take: Callable[[Frame, float], bool] = judge.take
        if keep is not None:
            job["keep"], sizes[Kind.FILE], take = list(keep.names), MAX_CHUNK, keep.before(judge.take)
        files = [dataset.file(part) for part in WORKER_FILES]
        ending = self._run(candidate.source, job, limits, take, sizes, files)
        verdict = judge.verdict or verdict_of_ending(ending, limits, _FILE)
        return Trial(
            candidate_id=candidate.id,
            spec=spec,
            verdict=verdict,
            validation_accuracy=judge.curve[-1].validation_accuracy if verdict.valid else None,
            curve=tuple(judge.curve),
            validation_predictions=judge.validation_predictions if verdict.valid else b"",
            test_predictions=judge.test_predictions,
            parameters=judge.parameters,
            seconds=ending.seconds,
            peak_mib=ending.peak_mib,
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
            job["cpu_s"] = math.ceil(min(limits.wall_s, _YEAR_S) * (os.cpu_count() or 1)) + _CPU_S
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

    def _environment(self, spec: TrialSpec, dataset: Dataset, job: Mapping[str, Any]) -> dict[str, str]:
        prm = make_prm(job["hyperparameters"], shape=spec.shape, flip=job["flip"])
        device = spec.device if spec.device == "cpu" else self._about_card()[0]
        return {
            **describe(self._launcher.versions(), device=device, threads=spec.threads),
            "isolation": str(job["isolation"]),
            **({"compiled": "yes"} if self._compiled else {}),
            "data": dataset.fingerprint,
            "prm": json.dumps(prm, sort_keys=True),
        }

    def _about_card(self) -> tuple[str, float]:
        """Ask a worker of our own for the card's name and MiB, so that this process never touches CUDA."""
        if self._card is None:
            said: list[dict[str, Any]] = []

            def take(frame: Frame, _seconds: float) -> bool:
                said.append(frame.message())
                return True

            job = {"kind": "device", "device": "cuda", "threads": 1, "seed": 0, "isolation": Isolation.PROCESS.value}
            self._run("", job, Limits(wall_s=60.0, memory_mib=12_288), take)
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
    return replace(trial.spec, batch=batch, wall_s=left_s)


def _told(trial: Trial, tried: Sequence[int], joules: float | None) -> Trial:
    """Write into a trial what became of the batch, and the energy where it was counted."""
    prm = json.loads(trial.environment["prm"])
    environment = {**trial.environment, "batch": str(prm["batch"])}
    verdict = trial.verdict
    if len(tried) > 1:
        environment["batches_tried"] = ", ".join(map(str, tried))
    if len(tried) > 1 and not verdict.valid:
        verdict = replace(verdict, message=f"{verdict.message} (batches of {environment['batches_tried']} were tried)")
    if joules is not None:
        environment["energy_j"] = f"{joules:.3f}"
    return replace(trial, verdict=verdict, environment=environment)


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
