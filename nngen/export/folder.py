"""Export into a folder: a checkout of nn-dataset, merged by LEMUR's rules, or one model for the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nngen.errors import ExportError
from nngen.export.journal import Staging, staging
from nngen.export.model_card import card, config, requirements
from nngen.export.selection import Export, TrainedFiles
from nngen.files import package_folder
from nngen.lemur.layout import RESULTS, SOURCES, TRANSFORMS, LemurVersion, entry, merge_entries, nn_id, write_entries
from nngen.lemur.transforms import OWN
from nngen.text import one_line

CARDS, WEIGHTS = "cards", "weights"
"""Folders that nngen adds beside LEMUR's; ``weights/MODEL/DATASET`` holds one training."""

CONFIG, SAFETENSORS, GRAPH, PROGRAM = "config.json", "model.safetensors", "model.onnx", "classify.py"
"""Files of a training."""

SOURCE, CARD, PACKAGES = "model.py", "README.md", "requirements.txt"
"""Source, model card and names of packages in a folder for the Hugging Face hub."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Result of exporting one trial."""

    export: Export
    new: bool  # whether the target lacked this result before
    place: str  # file or table of the result


def export_to_folder(
    root: Path, exports: Sequence[Export], version: LemurVersion, trained: Sequence[TrainedFiles] = ()
) -> tuple[Written, ...]:
    """Write sources, transforms, results and cards, all of them or (killed before the end) none.

    Returns:
        One item per trial, in the order given.

    Raises:
        ExportError: If the folder cannot be written, has a different source under a model's name, or has
            unreadable results.
    """
    with staging(root) as target:
        settled = [_settle(target, export) for export in exports]
        for export in settled:
            _put_source(target, export)
        written = [_put_result(target, export, version) for export in settled]
        for export in settled:
            together = [other for other in settled if other.candidate.id == export.candidate.id]
            own = [one for one in trained if one.export.candidate.id == export.candidate.id]
            target.put(f"{CARDS}/{export.candidate.id}.md", card(together, own).encode())
        for one in trained:
            folder = "/".join((WEIGHTS, *one.export.key))
            up = "../" * (folder.count("/") + 1)
            _put_training(target, one, folder=f"{folder}/", source=f"{up}{SOURCES}/{one.export.candidate.id}.py")
    return tuple(written)


def export_to_hub_folder(root: Path, files: TrainedFiles) -> tuple[str, ...]:
    """Write a trained model as a folder for the Hugging Face hub, in place of an earlier export, whole or not at all.

    Returns:
        Names of the files of the export.

    Raises:
        ExportError: If the folder cannot be written, or contains another model than an export of nngen.
    """
    with staging(root) as target:
        there = target.read(CONFIG)
        if there is not None and not _is_own(there):
            raise ExportError(f"{root / CONFIG} is not of an export of nngen: name another folder with --out")
        if files.onnx is None and target.read(GRAPH, 0) is not None:
            raise ExportError(f"{root / GRAPH} is of an earlier export: remove it, or replace it with --onnx")
        target.put(SOURCE, files.export.candidate.source.encode())
        names = _put_training(target, files, folder="", source=SOURCE)
        packages = requirements(files.export.candidate.source)
        target.put(PACKAGES, "".join(f"{name}\n" for name in packages).encode())
        target.put(CARD, card([files.export], [files], hub=True).encode())
    return (CARD, SOURCE, PACKAGES, *names)


def _put_training(target: Staging, files: TrainedFiles, *, folder: str, source: str) -> list[str]:
    """Stage the files of one training in a folder, and return their names; ``source`` is relative to that folder."""
    content = {SAFETENSORS: files.weights, GRAPH: files.onnx}
    known = {name: data for name, data in content.items() if data is not None}
    if known:
        known[PROGRAM] = (package_folder("templates") / PROGRAM).read_bytes()
        known[CONFIG] = config(files, source).encode()
    for name, data in known.items():
        target.put(f"{folder}{name}", data)
    return list(known)


def _is_own(content: bytes) -> bool:
    """Return whether a ``config.json`` is one that ``config`` wrote."""
    try:
        there = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(there, dict) and {"model", "source", "class_names"} <= there.keys()


def _settle(target: Staging, export: Export) -> Export:
    """Replace the transform by nngen's own where the target's LEMUR lacks the matching one.

    A folder without any transforms is meant to be merged into LEMUR, so LEMUR's transforms count as present.
    """
    if export.transform.source is not None:
        return export
    files = {file.stem for file in (target.root / TRANSFORMS).glob("*.py") if not file.stem.startswith(("_", OWN))}
    return export if not files or export.transform.name in files else export.standing_in()


def _put_source(target: Staging, export: Export) -> None:
    path = f"{SOURCES}/{export.candidate.id}.py"
    there = target.read(path)
    if there is not None and there != export.candidate.source.encode():
        same = nn_id(there.decode("utf-8", "replace")) == nn_id(export.candidate.source)
        what = "a source that differs in white space only" if same else "a different source"
        raise ExportError(f"{target.root / path} is {what}: move it away, or export to another folder")
    target.put(path, export.candidate.source.encode())
    if export.transform.source is not None:
        target.put(f"{TRANSFORMS}/{export.transform.name}.py", export.transform.source.encode())


def _put_result(target: Staging, export: Export, version: LemurVersion) -> Written:
    path = f"{RESULTS}/{'_'.join(export.results)}/{export.score.epoch}.json"
    there = target.read(path)
    try:
        known = [] if there is None else json.loads(there)
        merged = merge_entries(
            export.results, export.score.epoch, known, [entry(export.results, export.score, version)]
        )
        content = write_entries(merged).encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = one_line(str(error), 100)
        raise ExportError(f"{target.root / path} does not hold LEMUR's results ({reason}): move it away") from error
    new = len(merged) > len(known)
    if new:
        target.put(path, content)
    return Written(export=export, new=new, place=path)
