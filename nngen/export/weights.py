"""Weights of exported models: those that a trial kept, or else those of the trial trained again.

Either way predictions are compared with the stored ones. With equal versions on the same machine, a trial on the CPU
repeats bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np

from nngen.archive.records import StoredTrial
from nngen.assembly.provenance import source_level
from nngen.datasets.dataset import Dataset
from nngen.errors import ExportError, UsageError
from nngen.export.selection import Export, TrainedFiles
from nngen.families.trust import AUTO
from nngen.training.engine import TrainJob
from nngen.training.environment import pick_device
from nngen.training.inference import KeptWeights, PredictJob, predict_logits
from nngen.training.local_engine import LocalEngine
from nngen.training.orders import artifact_metadata
from nngen.training.scoring import accuracy
from nngen.training.state.artifacts import EXAMPLE, ONNX, ArtifactRequest
from nngen.training.state.checkpoints import WEIGHTS
from nngen.types import Candidate

_EXPORT_S = 600.0  # seconds that writing a graph may take besides the time of the trial


def check_installed(names: Collection[str]) -> None:
    """Check that the packages for the requested artifacts are installed.

    Raises:
        UsageError: If a package is missing; the message says how to install it.
    """
    from importlib.util import find_spec

    needed = ["safetensors", *(["onnx", "onnxscript", "onnxruntime"] if ONNX in names else [])]
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise UsageError(f"{', '.join(missing)} missing: pip install '.[export]' in nngen's folder")


def best_trial(trials: Collection[StoredTrial], kept: Collection[int] = ()) -> StoredTrial:
    """Select the best trial on validation of the highest rung; at its fidelity, one with kept weights comes first."""
    best = max(trials, key=lambda trial: (trial.rung, trial.validation_accuracy or 0.0, -trial.id))
    same = [trial for trial in trials if (trial.fidelity, trial.rung) == (best.fidelity, best.rung)]
    return min(same, key=lambda trial: (trial.id not in kept, -(trial.validation_accuracy or 0.0), trial.id))


def with_weights(exports: Sequence[Export], kept: Collection[int] = ()) -> tuple[Export, ...]:
    """Select one trial per model and data set by ``best_trial``; the best on validation comes first."""
    found = []
    for key in dict.fromkeys(export.key for export in exports):
        trials = {export.trial.id: export for export in exports if export.key == key}
        found.append(trials[best_trial([export.trial for export in trials.values()], kept).id])
    return tuple(sorted(found, key=lambda export: -(export.trial.validation_accuracy or 0.0)))


def from_kept(
    export: Export,
    dataset: Dataset,
    engine: LocalEngine,
    names: Sequence[str],
    kept: KeptWeights,
    *,
    test_predictions: bytes,
    isolation: str = AUTO,
) -> TrainedFiles:
    """Take files from the weights that an exported trial kept; arguments and errors as for ``repeat``.

    Raises:
        DataError: If the weights are damaged, or of another file.
    """
    job, artifacts = _job(export, dataset, isolation), ArtifactRequest(tuple(names))
    logits = predict_logits(
        PredictJob(
            source=job.candidate.source,
            kept=kept,
            images=dataset.file("test-images"),
            count=len(dataset.test_images),
            device="cpu" if job.spec.device == "cpu" else pick_device(),
            threads=job.spec.threads,
            time_limit_s=job.spec.time_limit_s,
            memory_mib=job.spec.memory_mib,
            isolation=job.isolation,
            artifacts=artifacts,
            metadata=artifact_metadata(job),
        )
    )
    predicted = np.argmax(logits, axis=1).astype("<u2").tobytes()
    return _opened(export, job, engine, artifacts, predicted, test_predictions, kept=True)


def repeat(
    export: Export,
    dataset: Dataset,
    engine: LocalEngine,
    names: Sequence[str],
    *,
    test_predictions: bytes,
    isolation: str = AUTO,
    on_epoch: Callable[[int], None] = lambda _: None,
) -> TrainedFiles:
    """Train an exported trial again, at a level chosen anew, and return its weights, its graph or both.

    Raises:
        ExportError: If the repetition fails.
    """
    job, artifacts = _job(export, dataset, isolation), ArtifactRequest(tuple(names))
    trial = engine.train(job, lambda epoch: on_epoch(epoch.epoch), artifacts=artifacts)
    if not trial.verdict.valid:
        raise ExportError(f"{job.candidate.id} could not be trained again: {trial.verdict.message}")
    return _opened(export, job, engine, artifacts, trial.test_predictions, test_predictions, kept=False)


def _job(export: Export, dataset: Dataset, isolation: str) -> TrainJob:
    stored, spec = export.candidate, export.trial.spec
    assert spec is not None
    return TrainJob(
        candidate=Candidate(id=stored.id, source=stored.source, canonical=stored.canonical),
        spec=replace(spec, time_limit_s=spec.time_limit_s + _EXPORT_S),
        dataset=dataset,
        isolation=source_level(stored.source, isolation).level,
    )


def _opened(
    export: Export,
    job: TrainJob,
    engine: LocalEngine,
    artifacts: ArtifactRequest,
    predicted: bytes,
    test_predictions: bytes,
    *,
    kept: bool,
) -> TrainedFiles:
    """Check the files that came, in a worker."""
    report, name = engine.open_artifacts(artifacts, job), job.candidate.id
    fault = report.weights or ("" if WEIGHTS in artifacts.files else "none came")
    if WEIGHTS in artifacts.names and fault:
        raise ExportError(f"{name} gave no weights: {fault}")
    reason = report.onnx
    if ONNX in artifacts.names and not {ONNX, EXAMPLE} <= artifacts.files.keys():
        reason = f"torch cannot write it as ONNX: {artifacts.reasons.get(ONNX, 'no graph came')}"
    return TrainedFiles(
        export=export,
        weights=bytes(artifacts.files[WEIGHTS]) if WEIGHTS in artifacts.names else None,
        onnx=bytes(artifacts.files[ONNX]) if ONNX in artifacts.names and not reason else None,
        reason=reason,
        difference=report.difference,
        kept=kept,
        same=predicted == test_predictions,
        test_accuracy=accuracy(predicted, job.dataset.test_labels),
    )
