"""Trained weights of what is exported: the trial is repeated, and its predictions tell whether these are its weights.

A trial keeps predictions, not weights: a campaign's would fill any disk. On the machine and with the versions
that trained it, a trial on the CPU repeats to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nngen.errors import ExportError, UsageError
from nngen.export.selection import Export
from nngen.isolation.level import Isolation
from nngen.training.artifacts import EXAMPLE, ONNX, WEIGHTS, ArtifactRequest
from nngen.training.engine import TrainJob
from nngen.training.scoring import accuracy
from nngen.types import Candidate

if TYPE_CHECKING:
    from nngen.datasets.dataset import Dataset
    from nngen.training.local_engine import LocalEngine

__all__ = ["Repetition", "check_installed", "repeat", "to_repeat"]

_NEAR = 1e-3
"""Largest difference of a logit between ONNX and torch, relative to the largest logit; float32 in another order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """A trial trained once more for its weights.

    Attributes:
        weights: A state dictionary as safetensors; None if not asked for.
        onnx: The graph, for any number of images; None if not asked for or not to be had.
        reason: Why there is no graph; empty otherwise.
        difference: Largest difference between the graph's logits and torch's, relative to the largest logit.
        same: Whether it predicts what the trial predicted, image by image.
        test_accuracy: Of the repetition; that of the trial if ``same``.
    """

    weights: bytes | None
    onnx: bytes | None
    reason: str
    difference: float | None
    same: bool
    test_accuracy: float


def check_installed(names: Collection[str]) -> None:
    """See that what is asked for can be written.

    Raises:
        UsageError: If a package is missing; the message says how to install it.
    """
    from importlib.util import find_spec

    needed = ["safetensors", *(["onnx", "onnxscript", "onnxruntime"] if ONNX in names else [])]
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise UsageError(f"{', '.join(missing)} missing: pip install 'nngen-moe[export]'")


def to_repeat(exports: Sequence[Export]) -> tuple[Export, ...]:
    """Choose one trial per model: its best on validation, the first of equals."""
    best: dict[str, Export] = {}
    for export in exports:
        known = best.get(export.candidate.id)
        if known is None or (export.trial.validation_accuracy or 0) > (known.trial.validation_accuracy or 0):
            best[export.candidate.id] = export
    return tuple(best.values())


def repeat(
    export: Export,
    dataset: Dataset,
    engine: LocalEngine,
    names: Sequence[str],
    *,
    test_predictions: bytes,
    on_epoch: Callable[[int], None] = lambda _: None,
) -> Repetition:
    """Train an exported trial once more, at its own level of isolation, and take its weights.

    Args:
        export: What to repeat.
        dataset: The one it was trained on.
        engine: Where to train.
        names: ``WEIGHTS``, ``ONNX`` or both.
        test_predictions: What the trial predicted.
        on_epoch: Called with the number of each epoch that is done.

    Raises:
        ExportError: If the repetition fails.
    """
    spec = export.trial.spec
    assert spec is not None
    level = Isolation(export.trial.isolation or Isolation.SANDBOX)
    keeping = ArtifactRequest(tuple(names))
    candidate = Candidate(id=export.candidate.id, source=export.candidate.source, canonical=export.candidate.canonical)
    job = TrainJob(
        candidate=candidate,
        # Writing a graph takes time that the trial did not need.
        spec=replace(spec, time_limit_s=spec.time_limit_s + 600),
        dataset=dataset,
        isolation=Isolation.PROCESS if level is Isolation.NONE else level,
    )
    trial = engine.train(job, lambda epoch: on_epoch(epoch.epoch), artifacts=keeping)
    if not trial.verdict.valid:
        raise ExportError(f"{candidate.id} could not be trained again: {trial.verdict.message}")
    onnx, reason, difference = _checked(keeping) if ONNX in names else (None, "", None)
    return Repetition(
        weights=_weights(candidate.id, keeping) if WEIGHTS in names else None,
        onnx=onnx,
        reason=reason,
        difference=difference,
        same=trial.test_predictions == test_predictions,
        test_accuracy=accuracy(trial.test_predictions, dataset.test_labels),
    )


def _weights(name: str, keeping: ArtifactRequest) -> bytes:
    from safetensors import SafetensorError, deserialize

    content = bytes(keeping.files.get(WEIGHTS, b""))
    try:
        deserialize(content)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise ExportError(f"{name} gave no weights: {error}") from error
    return content


def _checked(keeping: ArtifactRequest) -> tuple[bytes | None, str, float | None]:
    """Run the graph beside torch's own logits."""
    if ONNX in keeping.reasons or EXAMPLE not in keeping.files:
        return None, f"torch cannot write it as ONNX: {keeping.reasons.get(ONNX, 'no graph came')}", None
    import onnxruntime
    from safetensors.numpy import load

    graph = bytes(keeping.files[ONNX])
    try:
        example = load(bytes(keeping.files[EXAMPLE]))
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        # One image less than it was written with: the number must be free.
        found = session.run(None, {session.get_inputs()[0].name: example["images"][1:]})[0]
    except Exception as error:  # the runtime has no exceptions of its own; what it cannot run is not exported
        return None, f"onnxruntime cannot run it: {str(error).partition(chr(10))[0][:200]}", None
    wanted = example["logits"][1:]
    difference = float(np.abs(found - wanted).max() / max(float(np.abs(wanted).max()), 1e-12))
    if not difference <= _NEAR:
        return (
            None,
            f"onnxruntime's logits differ by {difference:.1e} of the largest (a net that draws at random?)",
            None,
        )
    return graph, "", difference
