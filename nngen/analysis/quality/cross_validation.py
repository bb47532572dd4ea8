"""Cross-validation: the accuracies of candidates over the folds of a data set, each fold a campaign of its own."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, variance
from typing import Any

from nngen.archive.store import Archive


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldRow:
    """Accuracies of one candidate over the folds."""

    id: str
    experts: tuple[str, ...]
    # validation accuracy in each fold, the mean over its seeds; None where it was not trained
    accuracies: tuple[float | None, ...]
    mean: float  # mean over the folds in which it was trained
    std: float | None  # sample standard deviation over them; None below two
    # half the width of the mean's 95 % interval; None below two. The variance is corrected for training sets that
    # overlap (Nadeau and Bengio 2003)
    half: float | None

    @property
    def trained(self) -> int:
        """Number of folds in which it was trained."""
        return sum(accuracy is not None for accuracy in self.accuracies)

    def to_dict(self) -> dict[str, Any]:
        """Write the row as JSON types."""
        return asdict(self) | {"experts": list(self.experts), "accuracies": list(self.accuracies)}


def fold_rows(archive: Archive, campaigns: Sequence[str]) -> tuple[FoldRow, ...]:
    """Compare candidates over folds: those that were trained in most folds first, then by their mean accuracy.

    The campaigns are those of the folds, in order; one that does not exist yet has no trials.
    """
    known = {record.name for record in archive.campaigns()}
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    experts: dict[str, tuple[str, ...]] = {}
    for fold, name in enumerate(campaigns):
        for score in archive.scores(name) if name in known else ():
            if score.validation_accuracy is not None:
                found[score.candidate_id][fold].append(score.validation_accuracy)
                experts[score.candidate_id] = score.experts
    rows = [_row(key, experts[key], folds, len(campaigns)) for key, folds in found.items()]
    return tuple(sorted(rows, key=lambda row: (-row.trained, -row.mean, row.id)))


def _row(key: str, experts: tuple[str, ...], folds: dict[int, list[float]], count: int) -> FoldRow:
    from scipy.special import stdtrit

    accuracies = tuple(fmean(folds[fold]) if fold in folds else None for fold in range(count))
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    spread = variance(known) if len(known) > 1 else None
    half = None
    if spread is not None:
        # One image validates for count - 1 that are trained on.
        error = math.sqrt((1 / len(known) + 1 / (count - 1)) * spread)
        half = float(stdtrit(len(known) - 1, 0.975)) * error
    return FoldRow(
        id=key,
        experts=experts,
        accuracies=accuracies,
        mean=fmean(known),
        std=None if spread is None else math.sqrt(spread),
        half=half,
    )
