"""``nngen predict``: classes of image files by a trained candidate."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter

from nngen.assembly.provenance import source_level
from nngen.cli.options import ArchiveOptions, Count, Flag, IsolationOption
from nngen.cli.options.family import note_levels
from nngen.cli.output import emit, note, print_json, print_table
from nngen.cli.progress import progress_bar
from nngen.datasets.folder_tree import walk
from nngen.datasets.image_file import read_header
from nngen.errors import DataError, SomeFailedError, UsageError
from nngen.export.kept_weights import find_weights
from nngen.files import cache_dir, path_kind
from nngen.training import pick_device
from nngen.training.inference import PredictJob, predict_logits


def predict(
    candidate: Annotated[str, Parameter(name="ID|CAMPAIGN")],
    images: Annotated[list[Path], Parameter(negative="")],
    /,
    *,
    top: Count = 1,
    csv_rows: Annotated[Flag, Parameter(name="--csv")] = False,
    device: str = "auto",
    threads: int | None = None,
    isolation: IsolationOption = "auto",
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Predict the classes of images with the weights that a campaign kept: those of its, or a candidate's, best trial.

    Images are brought to the form of the training's images: turned as their EXIF data says, scaled and cut to their
    size, with as many channels. The network runs in an isolated worker. The exit code is 3 if some images cannot be
    read.

    Args:
        candidate: Id of the candidate, or the start of one; or the name of a campaign, for its best candidate.
        images: Image files, or folders that are searched for some.
        top: Number of classes per image, the most probable first.
        csv_rows: Print comma-separated values.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: CPU threads; all cores by default.

    Examples:
        nngen predict MoE4-1a2b photo.jpg
        nngen predict small photos --top 3
        nngen predict 1a2b photos --csv
    """
    if csv_rows and output.json:
        raise UsageError("--csv and --json: choose one")
    with output.read() as store:
        found, _, kept = find_weights(store, candidate)
    files = _find_images(images)
    level = source_level(found.source, isolation)
    note_levels([level], "files")
    names = kept.preprocessing.class_names
    # Not in the system's folder for temporary files, which may be in memory.
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="predict-", dir=cache_dir()) as folder:
        array = Path(folder) / "images.npy"
        with progress_bar("reading images") as report:
            faults = kept.decode(files, array, report)
        for fault in faults.values():
            note(fault)
        good = [file for file in files if file not in faults]
        if not good:
            raise DataError(f"none of {len(files)} images can be read")
        logits = predict_logits(
            PredictJob(
                source=found.source,
                kept=kept,
                images=array,
                count=len(good),
                device=pick_device(device),
                threads=threads or os.cpu_count() or 1,
                isolation=level.level,
            )
        ).astype(np.float64)
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    rows = []
    for file, row in zip(good, shares, strict=True):
        best = np.argsort(-row, kind="stable")[:top]
        rows.append((str(file), [(names[place], float(row[place])) for place in best]))
    _print(rows, csv_rows=csv_rows, json=output.json)
    if faults:
        raise SomeFailedError(f"{len(faults)} of {len(files)} images cannot be read")


def _find_images(paths: list[Path]) -> list[Path]:
    """List the files that were named, and the images in folders that were named."""
    files: list[Path] = []
    for path in paths:
        kind = path_kind(path)
        if kind is None:
            raise UsageError(f"no file or folder {path}")
        inside = [path] if kind == "file" else [file for file in walk(path)[0] if _is_image(file)]
        if not inside:
            raise UsageError(f"{path} has no image")
        files += inside
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
