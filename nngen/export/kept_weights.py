"""Weights that a campaign kept, found by the id of their candidate."""

from __future__ import annotations

from pathlib import Path

from nngen.archive.records import StoredCandidate, StoredTrial
from nngen.archive.store import Archive
from nngen.errors import UsageError
from nngen.training.inference import KeptWeights


def find_weights(archive: Archive, prefix: str) -> tuple[StoredCandidate, StoredTrial, KeptWeights]:
    """Find the kept weights of a candidate, those of its best trial on validation.

    Args:
        archive: The archive.
        prefix: Id of the candidate, or the start of one.

    Raises:
        UsageError: If no candidate has the id, or no weights of it are kept.
        DataError: If the weights, or what says how they are used, are missing or damaged.
    """
    candidate = archive.candidate(prefix)
    root = archive.weights or Path()
    trained = [trial for trial in archive.trials(candidate_id=candidate.id, curves=False) if trial.trained]
    for trial in sorted(trained, key=lambda trial: -(trial.validation_accuracy or 0.0)):
        folder = root / f"trial-{trial.copied_from or trial.id}"
        if folder.is_dir():
            return candidate, trial, KeptWeights.read(folder)
    what = f"its {len(trained)} trials kept none" if trained else "it was not trained"
    raise UsageError(
        f"weights of {candidate.id} are not in {root}: {what}; campaigns keep those of their best trial, more with"
        " --keep-weights, and an export with weights trains a trial again"
    )
