"""Weights that a campaign kept, found by its name or by the id of their candidate."""

from __future__ import annotations

from pathlib import Path

from nngen.archive.records import StoredCandidate, StoredTrial
from nngen.archive.store import Archive
from nngen.errors import UsageError
from nngen.training.inference import KeptWeights
from nngen.training.state.checkpoints import WEIGHTS


def kept_file(archive: Archive, trial: StoredTrial) -> Path | None:
    """Return the file of a trial's weights; None where none are kept."""
    folder = _folder(archive, trial)
    file = folder / f"{WEIGHTS}.safetensors" if folder else None
    return file if file is not None and file.is_file() else None


def find_weights(archive: Archive, name: str) -> tuple[StoredCandidate, StoredTrial, KeptWeights]:
    """Find kept weights: those of a campaign's best trial, or of a candidate's best trial, on validation.

    Args:
        archive: The archive.
        name: Name of a campaign, or id of a candidate, or the start of one.

    Raises:
        UsageError: If it is the name of neither, or no weights of it are kept.
        DataError: If the weights, or what says how they are used, are missing or damaged.
    """
    if any(record.name == name for record in archive.campaigns()):
        found = archive.trials(name, curves=False)
    else:
        name = archive.candidate(name).id
        found = archive.trials(candidate_id=name, curves=False)
    trained = [trial for trial in found if trial.trained]
    for trial in sorted(trained, key=lambda trial: (-trial.rung, -(trial.validation_accuracy or 0.0))):
        folder = _folder(archive, trial)
        if folder is not None and folder.is_dir():
            assert trial.candidate_id is not None
            return archive.candidate(trial.candidate_id), trial, KeptWeights.read(folder)
    what = f"its {len(trained)} trials kept none" if trained else "it was not trained"
    raise UsageError(
        f"weights of {name} are not in {archive.weights}: {what}; campaigns keep those of their best trial, more with"
        " --keep-weights, and an export with weights trains a trial again"
    )


def _folder(archive: Archive, trial: StoredTrial) -> Path | None:
    """Return the folder of the trial that a result comes from, which may be another campaign's."""
    return archive.weights and archive.weights / f"trial-{trial.copied_from or trial.id}"
