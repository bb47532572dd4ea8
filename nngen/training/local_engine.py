"""The local engine: checks and trains candidates in isolated workers on this machine."""

from __future__ import annotations

import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Self

from nngen.checks.prm import make_prm
from nngen.datasets.array_files import WORKER_FILES
from nngen.errors import DataError, UsageError
from nngen.isolation import FrameError, Job, JobRunner, JsonObject, Limits
from nngen.isolation.limits import MIB
from nngen.ranges import check_ranges
from nngen.text import one_line
from nngen.training.engine import RESTORE, CheckJob, TrainJob
from nngen.training.environment import Card, describe, energy_meter, visible_cards
from nngen.training.frames import FrameKind, last_line, proof_size
from nngen.training.memory_model import SMALLEST_BATCH, GpuMemoryPool, Prediction, Predictor, largest_batch, refusal
from nngen.training.orders import CheckOrder, TrainOrder, artifact_metadata
from nngen.training.scoring import CheckScorer, TrialScorer, accuracy, suspicion, verdict_of_result
from nngen.training.state.artifacts import MAX_PART, ArtifactReport, ArtifactRequest, read_report
from nngen.training.state.checkpoints import FolderSink, training_key
from nngen.types import BYTES_PER_CLASS, EpochResult, Outcome, Trial, TrialSpec, Verdict

_PRELOAD = ("torch", "torchvision", "numpy", "nngen.checks.dynamic", "nngen.training.worker")
_WORKER = "nngen.training.worker"
_BYTES_PER_LOGIT = 2
_CARD_LIMITS = Limits(time_limit_s=60.0, memory_mib=12_288)
_SHARE = 0.9  # share of a card's memory that trials side by side may take

_WHOLE = {"cpu": 1 / 24, "cuda": 1 / 8}
"""Share of a trial's limit of memory, or of its card's memory, up to which all images lie on the device."""

_NO_CARD = Card(name="cpu", memory_mib=math.inf, visible="")

_SLOW_S = {"cpu": 2.0, "cuda": 30.0}
"""Seconds of an epoch from which on it is compared with its predictions; a card spends some on choosing algorithms."""

_LEAST_S = 0.1  # time limit of a training that goes on when its time is over, so that it ends as it would have ended

_SEEN, _UNSEEN_RETRIES = 0.5, 2
"""Share of the limit that the monitor must have seen in use where a lack of memory is reported; retries where not."""


class LocalEngine:
    """Checks and trains on this machine. Safe to use from several threads at once.

    The first call starts a fork server, which loads torch once; every job after that is a fork of it. Leaving the
    ``with`` block ends whatever still runs.

    Args:
        slots: Number of trainings at once that callers should give it; it does not refuse more.
        predict: Predicts the memory of a training. What cannot fit is refused then, a batch that cannot is halved
            before it is tried, and on a card trainings wait until there is room for them.
        compiled: Whether nets are compiled before they are trained. It takes minutes and needs a C++ compiler: for
            trainings of many epochs on a card.
    """

    def __init__(self, slots: int = 1, *, predict: Predictor | None = None, compiled: bool = False) -> None:
        self.slots = slots
        self._compiled = compiled
        self._predict = predict
        self._runner = JobRunner(_PRELOAD)
        self._lock = threading.Lock()
        self._pool: GpuMemoryPool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End whatever runs, and the fork server."""
        self._runner.close()

    def warm_up(self) -> None:
        """Start the fork server now, so that the first job does not wait for torch.

        Raises:
            NngenError: If it cannot start.
        """
        self._runner.versions()

    @property
    def card_mib(self) -> float:
        """Memory of the card in MiB, asked from a worker; infinite where there is none."""
        return max((card.memory_mib for card in self._cards), default=math.inf)

    def check(self, job: CheckJob) -> Verdict:
        """Run every static and dynamic rule over a candidate; see ``Engine.check``."""
        check_ranges(job)
        job.shape.check_images()
        order = CheckOrder(
            shape=job.shape,
            classes=job.classes,
            hyperparameters=job.hyperparameters,
            device=job.device,
            threads=job.threads,
        )
        size = proof_size(job.classes)
        question, ask = os.pipe()
        scorer = CheckScorer(classes=job.classes, lines=last_line(job.candidate.source), ask=partial(os.write, ask))
        try:
            with self._place(job.device) as card:
                result = self._runner.run(
                    Job(
                        entry_point=f"{_WORKER}:check",
                        arguments=order.to_json(),
                        limits=Limits(time_limit_s=job.time_limit_s, memory_mib=job.memory_mib),
                        isolation=job.isolation,
                        source=job.candidate.source,
                        inputs=[question],
                        frames={FrameKind.PROOF: range(size, size + 1)},
                        cuda=job.device != "cpu",
                        card=card.visible,
                    ),
                    scorer.take,
                )
        finally:
            os.close(question)
            os.close(ask)
        return scorer.verdict or verdict_of_result(result, scorer.lines)

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
        within the one time limit; see ``Trial.batch`` and ``Trial.batches_tried``. Validation predictions are
        scored by ``score``, by default with the data set's labels; ``artifacts`` is filled.
        """
        spec, dataset = job.spec, job.dataset
        _check_spec(job)
        dataset.check_unchanged()
        images = dataset.training_images(spec.train_size)
        prediction = self._predict(job.candidate, spec, images) if self._predict else None
        batch = spec.batch
        if prediction is not None:
            limit = spec.memory_mib if spec.device == "cpu" else self.card_mib
            if (verdict := refusal(prediction, limit)) is not None:
                return Trial(
                    candidate_id=job.candidate.id,
                    spec=spec,
                    verdict=verdict,
                    predicted_mib=prediction.likely_mib,
                    data_fingerprint=dataset.fingerprint,
                )
            batch = largest_batch(prediction, spec.batch, limit)
        make_scorer = partial(
            TrialScorer,
            epochs=spec.epochs,
            classes=dataset.classes,
            lines=last_line(job.candidate.source),
            images=images,
            # A compiled net is compiled in its first epoch.
            slow_s=math.inf if self._compiled else _SLOW_S[spec.device],
            score=score or (lambda body: accuracy(body, dataset.validation_labels)),
            on_epoch=on_epoch,
            artifacts=artifacts,
            logits=job.logits,
        )
        need = self._need_mib(job, prediction)
        with self._place(spec.device, need) as card, energy_meter(spec.device, card.visible) as energy:
            trial = self._halving(job, batch, make_scorer, card)
        if job.folder is not None and trial.verdict.valid:
            order = TrainOrder.of(replace(job, spec=replace(spec, batch=trial.batch or spec.batch)))
            job.folder.describe({"order": order.to_json(), **dataset.preprocessing(spec.shape).to_dict()})
        # Again, since its files are open while it trains: no result may stand under the fingerprint of other data.
        dataset.check_unchanged()
        predicted = prediction.likely_mib if prediction else None
        # Where the caller scores, the labels of the test split are the caller's too.
        suspect = trial.suspect if score else suspicion(trial, dataset)
        return replace(trial, spec=spec, energy_j=energy.joules, predicted_mib=predicted, suspect=suspect)

    def _halving(self, job: TrainJob, batch: int, make_scorer: Callable[[], TrialScorer], card: Card) -> Trial:
        """Train, with smaller and smaller batches where memory does not suffice; go on where an earlier run ended."""
        folder, key = job.folder, ""
        if folder is not None:
            key = training_key(job.candidate, job.spec, job.dataset.fingerprint, self._runner.versions())
        reached = folder.progress(key, job.spec.epochs) if folder is not None else None
        first, before = batch, reached.before if reached else 0
        batch, tried, seconds = (reached.batch, [*reached.tried], reached.seconds) if reached else (batch, [], 0.0)
        begin = time.monotonic() - seconds
        left_s = max(job.spec.time_limit_s - seconds, _LEAST_S)
        unseen, trial = 0, None
        while True:
            now = replace(job, spec=replace(job.spec, batch=batch, time_limit_s=left_s))
            scorer = make_scorer()
            if reached is not None:
                scorer.curve, scorer.validation_predictions = [*reached.curve], reached.validation_predictions
            with self._kept(now, scorer, {"key": key, "tried": [*tried], "before": before}, begin):
                found = self._attempt(now, scorer, reached.file if reached else None, card)
            if reached is not None and found.verdict.rule == RESTORE:
                assert folder is not None
                folder.restart(found.verdict.message)
                return self._halving(job, first, make_scorer, card)
            reached = None
            tried.append(batch)
            seconds += found.seconds
            # A later attempt may end for want of time: known is then only that the batch before did not fit.
            if trial is None or found.verdict.outcome is not Outcome.TIMEOUT:
                trial = found
            batch //= 2
            left_s = job.spec.time_limit_s - (time.monotonic() - begin)
            # A net that could not even be built needs as much memory at any batch.
            hopeless = found.parameters is None or batch < SMALLEST_BATCH or left_s <= 0
            # A candidate may say so of itself, and would buy tries. Of a card's memory its word is all there is.
            unseen += job.spec.device == "cpu" and found.peak_mib < _SEEN * job.spec.memory_mib
            hopeless = hopeless or unseen > _UNSEEN_RETRIES
            if found.verdict.outcome is not Outcome.MEMORY or hopeless:
                break
            before = 0
            if folder is not None:
                folder.restart()
        trial = replace(trial, seconds=seconds, epochs_before=before or None)
        if len(tried) == 1:
            return trial
        verdict = trial.verdict
        if not verdict.valid:
            message = f"{verdict.message} (batches of {', '.join(map(str, tried))} were tried)"
            verdict = replace(verdict, message=message)
        return replace(trial, verdict=verdict, batches_tried=tuple(tried))

    def open_artifacts(self, artifacts: ArtifactRequest, job: TrainJob) -> ArtifactReport:
        """Open the files that a training sent, in a worker at its isolation level and with its limits.

        Raises:
            UsageError: If a sandbox is required and bubblewrap is missing.
            NngenError: If no worker can be started.
        """
        with tempfile.TemporaryDirectory(prefix="nngen-artifacts-") as folder:
            paths = {name: Path(folder) / name for name in artifacts.files}
            for name, path in paths.items():
                path.write_bytes(artifacts.files[name])
            opening = Job(
                entry_point="nngen.training.state.artifacts:open_artifacts",
                arguments={"names": list(paths), "metadata": artifact_metadata(job)},
                limits=Limits(time_limit_s=job.spec.time_limit_s, memory_mib=job.spec.memory_mib),
                isolation=job.isolation,
                files=list(paths.values()),
            )
            messages, result = self._runner.collect(opening)
        try:
            (message,) = messages
            return read_report(message)
        except (ValueError, FrameError):
            fault = f"they could not be opened: {one_line(result.describe())}"
            return ArtifactReport(weights=fault, onnx=fault)

    @contextmanager
    def _kept(self, job: TrainJob, scorer: TrialScorer, known: JsonObject, begin: float) -> Iterator[None]:
        """Store what a training sends in its trial's folder, and its progress with it."""
        folder, spec = job.folder, job.spec
        if folder is None or scorer.artifacts is not None:
            yield
            return

        def progress() -> JsonObject:
            return {**known, **scorer.progress(), "batch": spec.batch, "seconds": time.monotonic() - begin}

        names, limit = folder.names(spec), spec.memory_mib * MIB
        sink = scorer.artifacts = FolderSink(folder=folder, names=names, limit=limit, progress=progress)
        try:
            yield
        finally:
            sink.close()

    def _need_mib(self, job: TrainJob, prediction: Prediction | None) -> float | None:
        """Return the memory that a training will likely take of a card; None where it is not known."""
        if self._predict is None or job.spec.device == "cpu":
            return 0.0
        if prediction is None:
            return None
        data = job.dataset
        images = data.training_images(job.spec.train_size) + len(data.validation_images) + len(data.test_images)
        images_mib = images * math.prod(data.train_images.shape[1:]) / MIB
        whole = images_mib <= _WHOLE["cuda"] * self.card_mib
        return prediction.likely_mib + (images_mib if whole else 0.0)

    @contextmanager
    def _place(self, device: str, need_mib: float | None = 0.0) -> Iterator[Card]:
        """Hold a place on a card; on a CPU each worker has its own limit of memory and its own threads."""
        if device == "cpu":
            yield _NO_CARD
            return
        # One pool for all threads: they share the cards.
        with self._lock:
            self._pool = self._pool or GpuMemoryPool(_SHARE * card.memory_mib for card in self._cards)
        with self._pool.hold(need_mib) as place:
            yield self._cards[place]

    def _attempt(self, job: TrainJob, scorer: TrialScorer, checkpoint: Path | None, card: Card) -> Trial:
        """Train with one size of the batch, perhaps from a checkpoint."""
        spec, dataset, artifacts = job.spec, job.dataset, scorer.artifacts
        if isinstance(artifacts, ArtifactRequest):
            artifacts.clear(spec.memory_mib)
        # Before the run: the candidate may kill the server, which would be started anew for this.
        environment = self._environment(spec, card)
        files = [dataset.file(part) for part in WORKER_FILES]
        files += [file for file in (job.start, *job.experts, checkpoint) if file is not None]
        names, done = artifacts.names if artifacts else (), len(scorer.curve)
        # Kept weights have them in a file beside them: names of many classes would make the order too long.
        metadata = artifact_metadata(job) if isinstance(artifacts, ArtifactRequest) else None
        whole = _WHOLE[spec.device] * (spec.memory_mib if spec.device == "cpu" else card.memory_mib)
        order = TrainOrder.of(
            job, compiled=self._compiled, artifacts=names, done=done, whole_mib=whole, metadata=metadata
        )
        # Predictions have a known length, so that a frame of another one is refused unread.
        frames: dict[int, range] = {}
        for kind, images in ((FrameKind.VALIDATION, dataset.validation_images), (FrameKind.TEST, dataset.test_images)):
            size = BYTES_PER_CLASS * len(images)
            frames[kind] = range(size, size + 1)
        if job.logits:
            size = _BYTES_PER_LOGIT * dataset.classes * len(dataset.validation_images)
            frames[FrameKind.LOGITS] = range(size, size + 1)
        if artifacts is not None:
            frames[FrameKind.FILE] = range(MAX_PART + 1)
        result = self._runner.run(
            Job(
                entry_point=f"{_WORKER}:train",
                arguments=order.to_json(),
                limits=Limits(time_limit_s=spec.time_limit_s, memory_mib=spec.memory_mib),
                isolation=job.isolation,
                source=job.candidate.source,
                files=files,
                frames=frames,
                cuda=spec.device != "cpu",
                card=card.visible,
            ),
            scorer.take,
        )
        verdict = scorer.verdict or verdict_of_result(result, scorer.lines)
        return Trial(
            candidate_id=job.candidate.id,
            spec=spec,
            verdict=verdict,
            validation_accuracy=scorer.curve[-1].validation_accuracy if verdict.valid else None,
            curve=tuple(scorer.curve),
            validation_predictions=scorer.validation_predictions if verdict.valid else b"",
            test_predictions=scorer.test_predictions,
            validation_logits=scorer.validation_logits if verdict.valid else b"",
            parameters=scorer.parameters,
            seconds=result.seconds,
            peak_mib=result.peak_mib,
            batch=spec.batch,
            prm=make_prm(order.hyperparameters, shape=spec.shape, augment=order.augment),
            data_fingerprint=dataset.fingerprint,
            isolation=job.isolation.value,
            suspect=scorer.suspect,
            environment=environment | ({"started_from": scorer.started} if scorer.started else {}),
        )

    def _environment(self, spec: TrialSpec, card: Card) -> dict[str, str]:
        described = describe(self._runner.versions(), device=card.name, threads=spec.threads)
        return described | ({"compiled": "yes"} if self._compiled else {})

    @cached_property
    def _cards(self) -> tuple[Card, ...]:
        """The cards of this machine, asked from a worker, so that this process never touches CUDA."""
        job = Job(entry_point=f"{_WORKER}:describe_cards", arguments={}, limits=_CARD_LIMITS, cuda=True)
        messages, _ = self._runner.collect(job)
        found = zip(messages, visible_cards(len(messages)), strict=True)
        cards = [
            Card(name=str(card["name"]), memory_mib=float(card["mib"]), visible=visible) for card, visible in found
        ]
        return tuple(cards) or (Card(name="cuda", memory_mib=math.inf, visible=""),)


def _check_spec(job: TrainJob) -> None:
    spec, dataset = job.spec, job.dataset
    if spec.start and job.start is None and not job.experts:
        raise UsageError(
            "the training starts from kept weights, which only nngen train --from and nngen surrogate gates hand over"
        )
    stored = dataset.shape.channels
    if stored not in (1, spec.shape.channels):
        raise DataError(
            f"{dataset.name} has {stored} channels and cannot become {spec.shape}:"
            f" use --shape {stored}x{spec.shape.height}x{spec.shape.width}"
        )
    check_ranges(spec)
    spec.shape.check_images()
