"""Attempts at one training in workers of this machine: with smaller batches where memory does not suffice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from nngen.checks.prm import make_prm
from nngen.datasets.array_files import WORKER_FILES
from nngen.isolation import Job, JobRunner, JsonObject, Limits
from nngen.isolation.limits import MIB
from nngen.training.cards import Card
from nngen.training.engine import RESTORE, SMALLEST_BATCH, TrainJob
from nngen.training.environment import describe
from nngen.training.frames import FrameKind
from nngen.training.orders import TrainOrder, artifact_metadata
from nngen.training.scoring import TrialScorer, verdict_of_result
from nngen.training.state.artifacts import MAX_PART, ArtifactRequest
from nngen.training.state.checkpoints import FolderSink, training_key
from nngen.types import BYTES_PER_CLASS, Outcome, Trial, TrialSpec

WORKER = "nngen.training.worker"
"""Module of the worker's entry points."""

WHOLE = {"cpu": 1 / 24, "cuda": 1 / 8}
"""Share of a trial's limit of memory, or of its card's memory, up to which all images lie on the device."""

_BYTES_PER_LOGIT = 2
_LEAST_S = 0.1  # time limit of a training that goes on when its time is over, so that it ends as it would have ended

_SEEN, _UNSEEN_RETRIES = 0.5, 2
"""Share of the limit that the monitor must have seen in use where a lack of memory is reported; retries where not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """Attempts at one training.

    Attributes:
        runner: Runs the workers.
        job: The training.
        card: Card that it holds.
        make_scorer: Makes the scorer of an attempt.
        compiled: Whether the net is compiled.
    """

    runner: JobRunner
    job: TrainJob
    card: Card
    make_scorer: Callable[[], TrialScorer]
    compiled: bool

    def run(self, batch: int) -> Trial:
        """Train, with half the batch where memory does not suffice, and so on; go on where an earlier run ended."""
        job, folder, key = self.job, self.job.folder, ""
        if folder is not None:
            key = training_key(job.candidate, job.spec, job.dataset.fingerprint, self.runner.versions())
        reached = folder.progress(key, job.spec.epochs) if folder is not None else None
        first, before = batch, reached.before if reached else 0
        batch, tried, seconds = (reached.batch, [*reached.tried], reached.seconds) if reached else (batch, [], 0.0)
        begin = time.monotonic() - seconds
        left_s = max(job.spec.time_limit_s - seconds, _LEAST_S)
        unseen, trial = 0, None
        while True:
            now = replace(job, spec=replace(job.spec, batch=batch, time_limit_s=left_s))
            scorer = self.make_scorer()
            if reached is not None:
                scorer.curve, scorer.validation_predictions = [*reached.curve], reached.validation_predictions
            with self._kept(now, scorer, {"key": key, "tried": [*tried], "before": before}, begin):
                found = self._train(now, scorer, reached.file if reached else None)
            if reached is not None and found.verdict.rule == RESTORE:
                assert folder is not None
                folder.restart(found.verdict.message)
                return self.run(first)
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

    def _train(self, job: TrainJob, scorer: TrialScorer, checkpoint: Path | None) -> Trial:
        """Train with one size of the batch, perhaps from a checkpoint."""
        card = self.card
        spec, dataset, artifacts = job.spec, job.dataset, scorer.artifacts
        if isinstance(artifacts, ArtifactRequest):
            artifacts.clear(spec.memory_mib)
        # Before the run: the candidate may kill the server, which would be started anew for this.
        environment = self._environment(spec)
        files = [dataset.file(part) for part in WORKER_FILES]
        files += [file for file in (job.start, *job.experts, checkpoint) if file is not None]
        names, done = artifacts.names if artifacts else (), len(scorer.curve)
        # Kept weights have them in a file beside them: names of many classes would make the order too long.
        metadata = artifact_metadata(job) if isinstance(artifacts, ArtifactRequest) else None
        whole = WHOLE[spec.device] * (spec.memory_mib if spec.device == "cpu" else card.memory_mib)
        order = TrainOrder.of(
            job, compiled=self.compiled, artifacts=names, done=done, whole_mib=whole, metadata=metadata
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
        result = self.runner.run(
            Job(
                entry_point=f"{WORKER}:train",
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

    def _environment(self, spec: TrialSpec) -> dict[str, str]:
        described = describe(self.runner.versions(), device=self.card.name, threads=spec.threads)
        return described | ({"compiled": "yes"} if self.compiled else {})
