"""A model card in Markdown: what a model is made of, how it was trained, what it reached, what that is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nngen.archive import StoredTrial
from nngen.export.selection import Export
from nngen.export.weights import Repetition
from nngen.lemur.layout import nn_id

__all__ = ["LOADERS", "card"]

LOADERS = frozenset({"celeba-gender", "cifar-10", "cifar-100", "imagenette", "mnist", "places365", "svhn"})
"""Image classification data sets that nn-dataset 2.1.2 can load."""


def card(exports: Sequence[Export], repetition: Repetition | None = None) -> str:
    """Write the card of one model from its exported trials (at least one; all of the same model), and its weights."""
    first = exports[0]
    parts = [
        f"# {first.candidate.id}",
        _what(first),
        "## Results",
        _table(exports),
        "Accuracies are shares of right answers: on the validation split, by which models were chosen, and on the test"
        " split, computed once from predictions whose labels the training never saw. "
        f"LEMUR's `accuracy` is the one on the test split. {_reach(first)}",
        "## Hyperparameters",
        _pairs(first.score.prm),
        "## Environment",
        _pairs(_environment(first.trial)),
        "## Use",
        _use(first),
        _weights(first, repetition),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(export: Export) -> str:
    candidate = export.candidate
    made_of = ", ".join(candidate.experts)
    lines = [
        f"A mixture of {len(candidate.experts)} experts assembled by nngen from LEMUR's families {made_of}."
        if candidate.experts
        else "A model checked and trained by nngen.",
        "",
        f"- LEMUR's id: `{nn_id(candidate.source)}`",
        f"- Canonical hash: `{candidate.canonical}`",
    ]
    if export.trial.parameters is not None:
        lines.append(f"- Parameters: {export.trial.parameters:,}")
    if candidate.plan is not None:
        gate = candidate.plan.gate
        lines.append(
            f"- Gate: {gate.depth} convolutions from {gate.width} channels, temperature {gate.temperature},"
            f" noise {gate.noise}"
        )
    return "\n".join(lines)


def _table(exports: Sequence[Export]) -> str:
    head = "| data set | shape | epochs | seed | validation | test | training, s |\n|---|---|---|---|---|---|---|"
    rows = []
    for export in exports:
        spec = export.trial.spec
        assert spec is not None
        rows.append(
            f"| {export.results.dataset} | {spec.shape} | {spec.epochs} | {spec.seed}"
            f" | {export.trial.validation_accuracy:.4f} | {export.score.accuracy:.4f}"
            f" | {export.score.duration_ns / 1e9:.1f} |"
        )
    return "\n".join([head, *rows])


def _reach(export: Export) -> str:
    dataset = export.results.dataset
    if dataset in LOADERS:
        return f"The images were prepared as LEMUR's transform `{export.transform.name}` does."
    return f"LEMUR 2.1.2 has no loader for {dataset}: it keeps these results, but cannot repeat the training."


def _environment(trial: StoredTrial) -> dict[str, Any]:
    """Describe versions, hardware and what was measured of the training."""
    measured = {
        "batch": trial.batch,
        "batches_tried": ", ".join(map(str, trial.batches_tried)) or None,
        "energy_j": trial.energy_j,
        "isolation": trial.isolation or None,
        "predicted_mib": None if trial.predicted_mib is None else round(trial.predicted_mib),
    }
    return {**trial.environment, **{name: value for name, value in measured.items() if value is not None}}


def _pairs(values: Mapping[str, Any]) -> str:
    return "\n".join(f"- {key}: {value}" for key, value in sorted(values.items()))


def _use(export: Export) -> str:
    spec = export.trial.spec
    assert spec is not None
    shape = spec.shape
    prm = ", ".join(f'"{key}": {value!r}' for key, value in export.score.prm.items())
    return "\n".join(
        [
            "```python",
            "net = Net(",
            f"    (1, {shape.channels}, {shape.height}, {shape.width}),",
            f"    ({export.classes},),",
            f"    {{{prm}}},",
            '    torch.device("cpu"),',
            ")",
            "```",
        ]
    )


def _weights(export: Export, repetition: Repetition | None) -> str:
    if repetition is None:
        return "The file holds the architecture and its training; trained weights are not part of this export."
    name = export.candidate.id
    lines = []
    if repetition.weights is not None:
        lines.append(f'Weights: `net.load_state_dict(safetensors.torch.load_file("weights/{name}.safetensors"))`.')
    if repetition.onnx is not None:
        lines.append(f"Graph: `onnx/{name}.onnx`; onnxruntime's logits are torch's within {repetition.difference:.1e}.")
    elif repetition.reason:
        lines.append(f"No ONNX graph: {repetition.reason}.")
    whose = (
        "predicts every test image as the trial did"
        if repetition.same
        else f"does not predict all that the trial did (another machine?); its own test accuracy is"
        f" {repetition.test_accuracy:.4f}"
    )
    lines.append(f"They come from a repetition of the trial that {whose}. Images go in as the transform prepares them.")
    return "\n".join(lines)
