"""Predicted and measured memory of trials; checks the lower bound of the prediction.

The memory of 12 light and medium quartets is predicted from measurements of their families
(``nngen/families/probe.py``). Then each is trained for two steps, at 32 and at 64 px, in a worker whose resident memory
is sampled. Exit code 1 if a trial used less than its lower bound, because such a trial could be refused wrongly. Takes
three to six minutes on one core.

    python eval/predict_memory.py [--quartets 12] [--batch 64] [--write]
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _page import Evaluation, note, table

from nngen.assembly.assemble import Assembler
from nngen.datasets import Dataset, load_dataset
from nngen.families.catalogue import load_families
from nngen.families.probe import profiles, training_costs
from nngen.isolation import Isolation
from nngen.lemur.fetch import fetch
from nngen.lemur.source import open_lemur
from nngen.plan import Plan
from nngen.training import LocalEngine, TrainJob
from nngen.training.memory_model import Prediction, predict
from nngen.types import Shape, TrialSpec

FAMILIES = (
    "AirNext",
    "AlexNet",
    "DPN68",
    "GoogLeNet",
    "ICNet",
    "MNASNet",
    "MobileNetV2",
    "MobileNetV3",
    "ResNet",
    "ShuffleNet",
    "SqueezeNet-1",
    "VGG",
)
SIDES = [32, 64]
STEPS = 2
COLUMNS = (
    "px",
    "quartet",
    "lower bound",
    "likely",
    "measured",
    "likely / measured",
    "likely s",
    "measured s",
)
EVALUATION = Evaluation(__file__, __doc__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One quartet at one size."""

    experts: tuple[str, ...]
    side: int
    prediction: Prediction
    low_mib: float
    peak_mib: float
    seconds: float


def main(argv: Sequence[str] | None = None) -> int:
    """Predict, train, compare."""
    asked = EVALUATION.arguments(
        argv,
        quartets=12,
        batch=64,
        sides=(SIDES, "heights and widths in pixels"),
        keep=(Path, "folder for the sizes that are done, which are not done again"),
    )
    known = load_families(open_lemur(fetch()))
    quartets = cyclic(tuple(name for name in FAMILIES if name in known), asked.quartets)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, LocalEngine() as engine:
        data = few(Path(folder), STEPS * asked.batch)
        for side in asked.sides:
            kept = asked.keep and asked.keep / f"{side}-{asked.quartets}-{asked.batch}.json"
            if kept and kept.exists():
                rows += [read(line) for line in json.loads(kept.read_text())]
                continue
            new = measure(engine, data, quartets, side, asked.batch, known)
            rows += new
            if kept:
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps([asdict(row) for row in new]))
    return EVALUATION.finish(report(rows), good=not any(row.peak_mib < row.low_mib for row in rows))


def read(line: dict[str, Any]) -> Row:
    """Read a stored row."""
    return Row(**line | {"experts": tuple(line["experts"]), "prediction": Prediction(**line["prediction"])})


def cyclic(names: tuple[str, ...], count: int) -> list[tuple[str, ...]]:
    """Return quartets that use every family equally often: the cyclic shifts of a base block."""
    return [tuple(sorted({names[(start + step) % len(names)] for step in (0, 1, 4, 6)})) for start in range(count)]


def few(folder: Path, images: int) -> Dataset:
    """Return a small subset of Fashion-MNIST for training, and a smaller one for predictions."""
    whole = load_dataset("fashion-mnist")
    arrays = {
        f"{split}-{kind}": getattr(whole, f"{split}_{kind}")[: images if split == "train" else 32]
        for split in ("train", "validation", "test")
        for kind in ("images", "labels")
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return Dataset(
        name=whole.name,
        classes=whole.classes,
        fingerprint="",
        default_shape=whole.default_shape,
        mean=whole.mean,
        std=whole.std,
        folder=folder,
        **{name.replace("-", "_"): array for name, array in arrays.items()},
    )


def measure(engine, data, quartets, side, batch, known) -> list[Row]:  # type: ignore[no-untyped-def]
    """Train each quartet for a few steps; quartets with a family that does not accept this size are left out."""
    shape, assembler, rows = Shape(1, side, side), Assembler(), []
    found = profiles([known[name] for name in FAMILIES if name in known], shape)
    usable = {name: (known[name], item.interface) for name, item in found.items() if item.usable}
    weighed = training_costs(usable.values(), shape)
    spec = TrialSpec(dataset="fashion-mnist", shape=shape, batch=batch, memory_mib=12_288, time_limit_s=300.0)
    for experts in quartets:
        prediction = predict(experts, weighed, spec, len(data.train_images))
        if prediction is None:
            continue
        candidate = assembler.assemble(Plan(experts=experts), [usable[name] for name in experts])
        trial = engine.train(TrainJob(candidate=candidate, spec=spec, dataset=data, isolation=Isolation.PROCESS))
        if not trial.verdict.valid or trial.batches_tried:
            note(f"{', '.join(experts)} at {side} px: {trial.verdict.message or 'batch halved'}")
            continue
        low = prediction.low_mib(batch)
        row = Row(
            experts=experts,
            side=side,
            prediction=prediction,
            low_mib=low,
            peak_mib=trial.peak_mib,
            seconds=trial.curve[0].seconds,
        )
        rows.append(row)
        note(f"{side} {', '.join(experts)}: {low:.0f} {prediction.likely_mib:.0f} {trial.peak_mib:.0f}")
    return rows


def report(rows: list[Row]) -> str:
    """Write the table."""
    about = (
        f"CPU. MiB of resident memory, the peak of {STEPS} steps and the predictions after them, looked at ten times a"
        " second."
    )
    cells = []
    for row in rows:
        likely = row.prediction.likely_mib
        mib = (f"{value:,.0f}" for value in (row.low_mib, likely, row.peak_mib))
        ratio = f"{likely / row.peak_mib:.2f}"
        cells.append(
            (row.side, ", ".join(row.experts), *mib, ratio, f"{row.prediction.seconds:.1f}", f"{row.seconds:.1f}")
        )
    eager = sum(row.peak_mib < row.low_mib for row in rows)
    ratios = [row.prediction.likely_mib / row.peak_mib for row in rows] or [float("nan")]
    bounds = [row.low_mib / row.peak_mib for row in rows] or [float("nan")]
    summary = (
        f"Lower bound above what was measured, so that a refusal could be wrong: **{eager} of {len(rows)}**"
        f" (bound over measured: median {statistics.median(bounds):.2f}, largest {max(bounds):.2f}). Likely over"
        f" measured: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}."
    )
    return EVALUATION.page("Memory of a trial, predicted and measured", about, table(COLUMNS, cells), summary)


if __name__ == "__main__":
    sys.exit(main())
