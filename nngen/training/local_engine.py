"""The local engine: checks and trains candidates in isolated workers on this machine."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self

from nngen.errors import DataError, UsageError
from nngen.isolation import FrameError, Job, JobRunner, Limits
from nngen.isolation.limits import MIB
from nngen.ranges import check_ranges
from nngen.text import one_line
from nngen.training.attempts import WHOLE, WORKER, Attempts
from nngen.training.cards import Cards
from nngen.training.engine import CheckJob, TrainJob
from nngen.training.environment import energy_meter
from nngen.training.frames import FrameKind, last_line, proof_size
from nngen.training.memory_model import Prediction, Predictor, largest_batch, refusal
from nngen.training.orders import CheckOrder, TrainOrder, artifact_metadata
from nngen.training.scoring import CheckScorer, TrialScorer, accuracy, suspicion, verdict_of_result
from nngen.training.state.artifacts import ArtifactReport, ArtifactRequest, read_report
from nngen.types import EpochResult, Trial, Verdict

_PRELOAD = ("torch", "torchvision", "numpy", "nngen.checks.dynamic", "nngen.training.worker")

_SLOW_S = {"cpu": 2.0, "cuda": 30.0}
"""Seconds of an epoch from which on it is compared with its predictions; a card spends some on choosing algorithms."""


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
        self._cards = Cards(self._runner)

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
        return self._cards.memory_mib

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
            with self._cards.hold(job.device) as card:
                result = self._runner.run(
                    Job(
                        entry_point=f"{WORKER}:check",
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
        with self._cards.hold(spec.device, need) as card, energy_meter(spec.device, card.visible) as energy:
            attempts = Attempts(
                runner=self._runner, job=job, card=card, make_scorer=make_scorer, compiled=self._compiled
            )
            trial = attempts.run(batch)
        if job.folder is not None and trial.verdict.valid:
            order = TrainOrder.of(replace(job, spec=replace(spec, batch=trial.batch or spec.batch)))
            job.folder.describe({"order": order.to_json(), **dataset.preprocessing(spec.shape).to_dict()})
        # Again, since its files are open while it trains: no result may stand under the fingerprint of other data.
        dataset.check_unchanged()
        predicted = prediction.likely_mib if prediction else None
        # Where the caller scores, the labels of the test split are the caller's too.
        suspect = trial.suspect if score else suspicion(trial, dataset)
        return replace(trial, spec=spec, energy_j=energy.joules, predicted_mib=predicted, suspect=suspect)

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

    def _need_mib(self, job: TrainJob, prediction: Prediction | None) -> float | None:
        """Return the memory that a training will likely take of a card; None where it is not known."""
        if self._predict is None or job.spec.device == "cpu":
            return 0.0
        if prediction is None:
            return None
        data = job.dataset
        images = data.training_images(job.spec.train_size) + len(data.validation_images) + len(data.test_images)
        images_mib = images * math.prod(data.train_images.shape[1:]) / MIB
        whole = images_mib <= WHOLE["cuda"] * self.card_mib
        return prediction.likely_mib + (images_mib if whole else 0.0)


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
