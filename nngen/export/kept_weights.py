"""Weights and logits that a campaign kept, found by its name or by the id of their candidate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from nngen.analysis.quality.metrics import Logits, kept_logits
from nngen.archive.records import StoredCandidate, StoredTrial
from nngen.archive.store import Archive
from nngen.errors import UsageError
from nngen.text import counted, listed
from nngen.training.inference import KeptWeights
from nngen.training.state.checkpoints import WEIGHTS

Outputs: TypeAlias = Logits | KeptWeights
"""What tells the outputs of a model on the validation images."""


def kept_file(archive: Archive, trial: StoredTrial) -> Path | None:
    """Return the file of a trial's weights; None where none are kept."""
    folder = _folder(archive, trial)
    file = folder / f"{WEIGHTS}.safetensors" if folder else None
    return file if file is not None and file.is_file() else None


def family_weights(
    archive: Archive, campaign: str, epochs: int, families: Sequence[str]
) -> dict[str, tuple[Path, ...]]:
    """Find the kept weights of families that a campaign trained alone: one file for each seed, the first seed first.

    Raises:
        UsageError: If a family has none; the message names all of these.
    """
    found: dict[str, list[Path]] = {family: [] for family in families}
    for trial in sorted(archive.trials(campaign, curves=False), key=lambda trial: (trial.replicate, trial.id)):
        asked = trial.trained and not trial.suspect and trial.spec is not None and trial.spec.epochs == epochs
        if asked and trial.experts[0] in found and (file := kept_file(archive, trial)) is not None:
            found[trial.experts[0]].append(file)
    if missing := [family for family in families if not found[family]]:
        raise UsageError(
            f"campaign {campaign} kept no weights of {listed(missing, 4)} after {counted(epochs, 'epoch')}: train the"
            " families again under another name, with --keep-weights all"
        )
    return {family: tuple(files) for family, files in found.items()}


def find_weights(archive: Archive, name: str) -> tuple[StoredCandidate, StoredTrial, KeptWeights]:
    """Find kept weights: those of a campaign's best trial, or of a candidate's best trial, on validation.

    Raises:
        UsageError: If it is the name of neither, or no weights of it are kept.
        DataError: If the weights, or what says how they are used, are missing or damaged.
    """
    name, trained = _trained(archive, name)
    for trial in trained:
        folder = _folder(archive, trial)
        if folder is not None and folder.is_dir():
            assert trial.candidate_id is not None
            return archive.candidate(trial.candidate_id), trial, KeptWeights.read(folder)
    what = f"its {len(trained)} trials kept none" if trained else "it was not trained"
    raise UsageError(
        f"weights of {name} are not in {archive.weights}: {what}; campaigns keep those of their best trial, more with"
        " --keep-weights, and an export with weights trains a trial again"
    )


def find_outputs(archive: Archive, name: str) -> tuple[StoredCandidate, StoredTrial, Outputs]:
    """Find what tells a model's outputs on the validation images: its logits, or else its weights.

    Raises:
        UsageError: If it is the name of neither, or neither logits nor weights of it are kept.
        DataError: If the weights, or what says how they are used, are missing or damaged.
    """
    _, trained = _trained(archive, name)
    for trial in trained:
        predicted = np.frombuffer(archive.predictions(trial.id, "validation"), "<u2")
        logits = kept_logits(archive, trial, predicted)
        if logits is not None:
            assert trial.candidate_id is not None
            return archive.candidate(trial.candidate_id), trial, logits
    return find_weights(archive, name)


def _trained(archive: Archive, name: str) -> tuple[str, list[StoredTrial]]:
    """Return the name in full, and the trained trials of a campaign or of a candidate, the best first."""
    if any(record.name == name for record in archive.campaigns()):
        found = archive.trials(name, curves=False)
    else:
        name = archive.candidate(name).id
        found = archive.trials(candidate_id=name, curves=False)
    trained = [trial for trial in found if trial.trained]
    return name, sorted(trained, key=lambda trial: (-trial.rung, -(trial.validation_accuracy or 0.0)))


def _folder(archive: Archive, trial: StoredTrial) -> Path | None:
    """Return the folder of the trial that a result comes from, which may be another campaign's."""
    return archive.weights and archive.weights / f"trial-{trial.copied_from or trial.id}"
