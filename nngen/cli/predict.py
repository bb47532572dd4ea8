"""``nngen predict`` and ``nngen ensemble``: classes of image files by one trained candidate, or by several together."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from cyclopts import Parameter

from nngen.analysis.formatting import points, span
from nngen.analysis.quality.gains import paired
from nngen.analysis.statistics import share_interval
from nngen.archive import StoredCandidate, StoredTrial
from nngen.assembly.provenance import source_level
from nngen.cli.options import ArchiveOptions, Count, Flag, IsolationOption, ThreadsOption
from nngen.cli.options.family import note_levels
from nngen.cli.output import emit, note, print_json, print_table, say, suggest
from nngen.cli.progress import progress_bar
from nngen.datasets import Dataset, load_dataset
from nngen.datasets.image_files.decoding import on_all_cores
from nngen.datasets.image_files.folder_tree import walk
from nngen.datasets.image_files.image_file import read_header
from nngen.errors import DataError, SomeFailedError, UsageError
from nngen.export.kept_weights import Outputs, find_outputs, find_weights
from nngen.files import cache_dir, path_kind
from nngen.training import pick_device
from nngen.training.inference import KeptWeights, PredictJob, predict_logits

Shares: TypeAlias = npt.NDArray[np.float64]
"""Probabilities of classes, ``(N, classes)``."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions:
    """Machine that predicts, and form of the predictions.

    Attributes:
        top: Number of classes per image, the most probable first.
        csv_rows: Print comma-separated values.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: CPU threads; all cores by default.
    """

    top: Count = 1
    csv_rows: Annotated[Flag, Parameter(name="--csv")] = False
    device: str = "auto"
    threads: ThreadsOption | None = None
    isolation: IsolationOption = "auto"

    def shares(self, source: str, kept: KeptWeights, images: Path, count: int) -> Shares:
        """Compute probabilities in an isolated worker; ``images`` is a file of ``(N, C, H, W)`` uint8."""
        job = PredictJob(
            source=source,
            kept=kept,
            images=images,
            count=count,
            device=pick_device(self.device),
            threads=self.threads or os.cpu_count() or 1,
            isolation=source_level(source, self.isolation).level,
        )
        return _softmax(predict_logits(job))


def predict(
    candidate: Annotated[str, Parameter(name="ID|CAMPAIGN")],
    images: Annotated[list[Path], Parameter(negative="")],
    /,
    *,
    options: PredictOptions = PredictOptions(),
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Predict the classes of images with the weights that a campaign kept: those of its, or a candidate's, best trial.

    Images are brought to the form of the training's images: turned as their EXIF data says, scaled and cut to their
    size, with as many channels. The network runs in an isolated worker. The exit code is 3 if some images cannot be
    read.

    Args:
        candidate: Id of the candidate, or the start of one; or the name of a campaign, for its best candidate.
        images: Image files, or folders that are searched for some.

    Examples:
        nngen predict MoE4-1a2b photo.jpg
        nngen predict small photos --top 3
        nngen predict 1a2b photos --csv
    """
    with output.read() as store:
        found, _, kept = find_weights(store, candidate)
    suggest("show", found.id[:13], *output.place)
    _classify([(found, kept)], images, options, json=output.json)


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
            _classify([(found, kept) for found, _, kept in models], images, options, json=output.json)
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


def _classify(
    models: Sequence[tuple[StoredCandidate, KeptWeights]], paths: Sequence[Path], options: PredictOptions, *, json: bool
) -> None:
    """Print the classes of images by the mean of the models' probabilities.

    Raises:
        UsageError: If no image is named.
        DataError: If no image can be read, or a model cannot predict.
        SomeFailedError: If some images cannot be read.
    """
    if options.csv_rows and json:
        raise UsageError("--csv and --json: choose one")
    files = _find_images(paths)
    note_levels((source_level(found.source, options.isolation) for found, _ in models), "files")
    total: Shares | None = None
    good = files
    # Not in the system's folder for temporary files, which may be in memory.
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="predict-", dir=cache_dir()) as folder:
        array = Path(folder) / "images.npy"
        for found, kept in models:
            with progress_bar("reading images") as report:
                faults = kept.decode(good, array, report)
            for fault in faults.values():
                note(fault)
            good = [file for file in good if file not in faults]
            if not good:
                raise DataError(f"none of {len(files)} images can be read")
            shares = options.shares(found.source, kept, array, len(good))
            total = shares if total is None else total + shares
    assert total is not None
    names, rows = models[0][1].preprocessing.class_names, []
    for file, row in zip(good, total / len(models), strict=True):
        best = np.argsort(-row, kind="stable")[: options.top]
        rows.append((str(file), [(names[place], float(row[place])) for place in best]))
    _print(rows, csv_rows=options.csv_rows, json=json)
    if len(good) < len(files):
        raise SomeFailedError(f"{len(files) - len(good)} of {len(files)} images cannot be read")


def _softmax(logits: npt.NDArray[np.floating[Any]]) -> Shares:
    """Return the probabilities of logits, ``(N, classes)``."""
    values = np.asarray(logits, np.float64)
    shares: Shares = np.exp(values - values.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    return shares


def _find_images(paths: Sequence[Path]) -> list[Path]:
    """List the files that were named, and the images in folders that were named."""
    files: list[Path] = []
    for path in paths:
        kind = path_kind(path)
        if kind is None:
            raise UsageError(f"no file or folder {path}")
        if kind == "file":
            files.append(path)
            continue
        inside = walk(path)[0]
        before = len(files)
        with progress_bar("looking for images") as report:
            for done, (file, found) in enumerate(zip(inside, on_all_cores(_is_image, inside), strict=True), 1):
                report(done, len(inside))
                files += [file] if found else []
        if len(files) == before:
            raise UsageError(f"{path} has no image")
    return files


def _is_image(file: Path) -> bool:
    try:
        return read_header(file) is not None
    except DataError:  # an image that cannot be read, which is reported with the results
        return True


def _print(rows: list[tuple[str, list[tuple[str, float]]]], *, csv_rows: bool, json: bool) -> None:
    if json:
        print_json(
            [
                {"image": image, "classes": [{"class": name, "probability": share} for name, share in best]}
                for image, best in rows
            ]
        )
        return
    table = [{"image": image} | _columns(best) for image, best in rows]
    if not csv_rows:
        print_table(table)
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    emit(text.getvalue())


def _columns(best: list[tuple[str, float]]) -> dict[str, Any]:
    """Return the classes of an image as columns; the second and later ones are numbered."""
    columns: dict[str, Any] = {}
    for place, (name, share) in enumerate(best, 1):
        suffix = f"_{place}" if place > 1 else ""
        columns |= {f"class{suffix}": name, f"probability{suffix}": share}
    return columns


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
        return _softmax(outputs)
    assert dataset is not None
    return options.shares(found.source, outputs, dataset.file("validation-images"), len(dataset.validation_labels))


def _report(
    members: Sequence[tuple[StoredCandidate, StoredTrial, object]], shares: Sequence[Shares], labels: Any, *, json: bool
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
        f"on {len(labels):,} validation images the mean gains {points(gain.mean)} points{interval} over"
        f" {str(rows[best]['id'])[:13]}, the best of them on these images"
    )
