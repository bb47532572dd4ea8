"""``nngen ensemble``: the mean of several models' probabilities, on the validation images or on image files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter

from nngen.analysis.formatting import points, span
from nngen.analysis.gains import paired
from nngen.analysis.statistics import share_interval
from nngen.archive import StoredCandidate, StoredTrial
from nngen.assembly.provenance import source_level
from nngen.cli.options import ArchiveOptions
from nngen.cli.options.family import note_levels
from nngen.cli.output import print_json, print_table, say, suggest
from nngen.cli.predict import PredictOptions, Shares, classify, softmax
from nngen.datasets import Dataset, load_dataset
from nngen.errors import DataError, UsageError
from nngen.export.kept_weights import Outputs, find_outputs, find_weights
from nngen.training.inference import KeptWeights


def ensemble(
    candidates: Annotated[list[str], Parameter(name="ID|CAMPAIGN", negative="")],
    /,
    *,
    images: Annotated[tuple[Path, ...], Parameter(negative="", show_default=False)] = (),
    options: PredictOptions = PredictOptions(),
    data_root: Path | None = None,
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Average the probabilities of several models that were trained on the same data.

    Prints the accuracy of each model and of the mean on the validation images, from the logits that their trials kept,
    or else computed with their weights. With --images, classifies images by the mean instead.

    Args:
        candidates: Ids of candidates, or the starts of some; the name of a campaign stands for its best candidate.
        images: Image file, or folder that is searched for some; may be given several times.
        data_root: Folder that torchvision's files are read from.

    Examples:
        nngen ensemble MoE4-1a2b MoE4-3c4d
        nngen ensemble small other --images photos --top 3
    """
    if options.csv_rows and not images:
        raise UsageError("--csv is for --images")
    with output.read() as store:
        if images:
            models = [find_weights(store, name) for name in candidates]
            _check_members(models)
            suggest("ensemble", *candidates, *output.place)
            classify([(found, kept) for found, _, kept in models], images, options, json=output.json)
            return
        members = [find_outputs(store, name) for name in candidates]
        _check_members(members)
        labels = np.frombuffer(store.validation_labels(members[0][1].data_fingerprint), "<u2").astype(np.int64)
    computed = [found for found, _, outputs in members if isinstance(outputs, KeptWeights)]
    note_levels((source_level(found.source, options.isolation) for found in computed), "files")
    dataset = _dataset(members[0][1], data_root) if computed or not len(labels) else None
    labels = labels if dataset is None else dataset.validation_labels
    shares = [_shares(found, outputs, dataset, options) for found, _, outputs in members]
    _report(members, shares, labels, json=output.json)
    suggest("ensemble", *candidates, "--images", "FOLDER", *output.place)


def _check_members(members: Sequence[tuple[StoredCandidate, StoredTrial, object]]) -> None:
    """Check that an ensemble of these makes sense.

    Raises:
        UsageError: If there are fewer than two, one is named twice, or they were trained on different data.
    """
    if len(members) < 2:
        raise UsageError("an ensemble has two models at least: name further ids")
    name, count = Counter(found.id for found, _, _ in members).most_common(1)[0]
    if count > 1:
        raise UsageError(f"{name} is named {count} times: name each model once")
    (first, trial, _), *others = members
    for found, other, _ in others:
        if other.data_fingerprint != trial.data_fingerprint:
            data = [one.spec.dataset if one.spec else "other data" for one in (trial, other)]
            raise UsageError(
                f"{first.id} was trained on {data[0]} and {found.id} on {data[1]}, with other images or classes: an "
                "ensemble needs models of the same data"
            )


def _dataset(trial: StoredTrial, data_root: Path | None) -> Dataset:
    assert trial.spec is not None
    dataset = load_dataset(trial.spec.dataset, data_root=data_root, shape=trial.spec.shape)
    if dataset.fingerprint != trial.data_fingerprint:
        raise DataError(f"{dataset.name} is not the data that the models were trained on: its fingerprint differs")
    return dataset


def _shares(found: StoredCandidate, outputs: Outputs, dataset: Dataset | None, options: PredictOptions) -> Shares:
    """Return a model's probabilities on the validation images."""
    if not isinstance(outputs, KeptWeights):
        return softmax(outputs)
    assert dataset is not None
    return options.shares(found.source, outputs, dataset.file("validation-images"), len(dataset.validation_labels))


def _report(
    members: Sequence[tuple[StoredCandidate, StoredTrial, object]],
    shares: Sequence[Shares],
    labels: Any,
    *,
    json: bool,
) -> None:
    """Print the accuracies of the members and of their mean, and the mean's gain over the best of them."""
    hits = [one.argmax(1) == labels for one in (*shares, np.mean(shares, axis=0))]
    rows = []
    for place, right in enumerate(hits):
        low, high = share_interval(float(right.mean()), len(labels))
        found = members[place][0] if place < len(members) else None
        rows.append(
            {
                "id": found.id if found else f"mean of {len(members)}",
                "experts": list(found.experts) if found else [],
                "validation_accuracy": float(right.mean()),
                "low": low,
                "high": high,
            }
        )
    best = max(range(len(members)), key=lambda place: float(hits[place].mean()))
    gain = paired(hits[-1].astype(np.float64), hits[best].astype(np.float64))
    if json:
        mean = {name: rows[-1][name] for name in ("validation_accuracy", "low", "high")}
        over = {"best": rows[best]["id"], "over_best": asdict(gain)}
        print_json({"members": rows[:-1], "mean": mean, **over, "images": len(labels)})
        return
    print_table([row | {"id": str(row["id"])[:13]} for row in rows])
    interval = f" ({span(gain)})" if gain.low is not None else ""
    say(
        f"on {len(labels):,} validation images the mean is {points(gain.mean)} points{interval} above"
        f" {str(rows[best]['id'])[:13]}, the best of them on these images"
    )
