"""Weights of exported models: the trial is repeated, and its predictions are compared with the stored ones.

A trial stores predictions and no weights, which would need too much disk space in a campaign. With equal versions
on the same machine, a trial on the CPU repeats bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from nngen.assembly.provenance import source_level
from nngen.datasets.dataset import Dataset
from nngen.errors import ExportError, UsageError
from nngen.export.selection import Export, Repetition
from nngen.families.trust import AUTO
from nngen.training.engine import TrainJob
from nngen.training.local_engine import LocalEngine
from nngen.training.scoring import accuracy
from nngen.training.state.artifacts import EXAMPLE, ONNX, ArtifactRequest
from nngen.training.state.checkpoints import WEIGHTS
from nngen.types import Candidate


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


def to_repeat(exports: Sequence[Export]) -> tuple[Export, ...]:
    """Select one trial per model and data set: the best on validation, the first of equals."""
    best: dict[tuple[str, str], Export] = {}
    for export in sorted(exports, key=lambda export: -(export.trial.validation_accuracy or 0)):
        best.setdefault(export.key, export)
    return tuple(best.values())


def repeat(
    export: Export,
    dataset: Dataset,
    engine: LocalEngine,
    names: Sequence[str],
    *,
    test_predictions: bytes,
    isolation: str = AUTO,
    on_epoch: Callable[[int], None] = lambda _: None,
) -> Repetition:
    """Train an exported trial again and return its weights.

    Args:
        export: Trial to repeat.
        dataset: Data set that it was trained on.
        engine: Engine to train with.
        names: ``WEIGHTS``, ``ONNX`` or both.
        test_predictions: Stored test predictions of the trial.
        isolation: ``auto``, or a level that the user asked for; the trial's own level does not count.
        on_epoch: Called with the number of each finished epoch.

    Raises:
        ExportError: If the repetition fails.
    """
    spec = export.trial.spec
    assert spec is not None
    artifacts = ArtifactRequest(tuple(names))
    candidate = Candidate(id=export.candidate.id, source=export.candidate.source, canonical=export.candidate.canonical)
    job = TrainJob(
        candidate=candidate,
        # Exporting a graph takes time that the trial did not need.
        spec=replace(spec, time_limit_s=spec.time_limit_s + 600),
        dataset=dataset,
        isolation=source_level(candidate.source, isolation).level,
    )
    trial = engine.train(job, lambda epoch: on_epoch(epoch.epoch), artifacts=artifacts)
    if not trial.verdict.valid:
        raise ExportError(f"{candidate.id} could not be trained again: {trial.verdict.message}")
    report = engine.open_artifacts(artifacts, job)
    if WEIGHTS in names and (fault := report.weights or ("" if WEIGHTS in artifacts.files else "none came")):
        raise ExportError(f"{candidate.id} gave no weights: {fault}")
    reason = report.onnx
    if ONNX in names and not {ONNX, EXAMPLE} <= artifacts.files.keys():
        reason = f"torch cannot write it as ONNX: {artifacts.reasons.get(ONNX, 'no graph came')}"
    return Repetition(
        export=export,
        weights=bytes(artifacts.files[WEIGHTS]) if WEIGHTS in names else None,
        onnx=bytes(artifacts.files[ONNX]) if ONNX in names and not reason else None,
        reason=reason,
        difference=report.difference,
        same=trial.test_predictions == test_predictions,
        test_accuracy=accuracy(trial.test_predictions, dataset.test_labels),
    )
