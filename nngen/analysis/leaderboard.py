"""Leaderboard: trials of one candidate at one fidelity become one row, ranked by validation accuracy within it.

For the commands, the report, the dashboard and notebooks. ``nngen/analysis/ranking`` has the rows, their columns, the
noise that ranks are uncertain by, and the limits that are stated below a leaderboard.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache, partial
from statistics import fmean
from typing import Any, TypeAlias, TypeVar

from nngen.analysis.ranking.reliability import half_width, rank_spans
from nngen.analysis.ranking.rows import OF_FIDELITY, Place, Row
from nngen.analysis.statistics import share_interval
from nngen.analysis.suspicion import suspicions
from nngen.archive.records import BriefScore, StoredTrial, TrialScore
from nngen.archive.store import Archive
from nngen.types import BYTES_PER_CLASS, Fidelity, Score, TrialSpec

Scored: TypeAlias = StoredTrial | TrialScore

T = TypeVar("T", bound=Scored | BriefScore)

Group: TypeAlias = tuple[str, Fidelity]
"""Name of a data set, and a fidelity of trials on it."""

_OWN = frozenset({"validation_accuracy", "suspect", "seconds", "parameters"})
"""Fields of ``Score`` with a meaning of their own in a row; all others that a row shares are means over the seeds."""


def leaderboard(trials: Iterable[Scored], *, images: Callable[[int], int] | None = None) -> tuple[Row, ...]:
    """Rank trained candidates by mean validation accuracy within each fidelity.

    The fidelities of a data set follow each other with the longest training first, then the one with most candidates.

    Args:
        trials: Trials to rank.
        images: Returns the number of validation images of a trial, by the trial's id; asked once per fidelity.
    """
    found = _board(trials, images, sys.maxsize, lambda trial: trial)
    return tuple(row for row in found if isinstance(row, Row))


def brief_leaderboard(archive: Archive, campaign: str | None, top: int) -> tuple[Row | Place, ...]:
    """Rank a campaign's candidates, or all, and build the first ``top`` rows of each fidelity; the others are places.

    No more is read of the other trials than they are ranked by: half the time where there are tens of thousands.
    """
    scores, images = archive.brief_scores(campaign), partial(validation_images, archive)
    return _board(scores, images, top, lambda trial: archive.score(trial.id))


def _board(
    trials: Iterable[T],
    images: Callable[[int], int] | None,
    top: int,
    whole: Callable[[T], Scored],
) -> tuple[Row | Place, ...]:
    """Rank trials; ``whole`` returns what a row shows of a trial."""
    groups: dict[Group, dict[str, dict[int, T]]] = defaultdict(lambda: defaultdict(dict))
    last: tuple[TrialSpec | None, Fidelity | None] = None, None
    for trial in trials:
        spec, fidelity = trial.spec, trial.fidelity
        if spec is None or fidelity is None or trial.candidate_id is None or trial.validation_accuracy is None:
            continue
        # Trials that were read together share both: finding their group by value takes as long as all the rest.
        if spec is not last[0] or fidelity is not last[1]:
            candidates, last = groups[spec.dataset, fidelity], (spec, fidelity)
        kept = candidates[trial.candidate_id]
        # The same seed again is the same work; a revealed test accuracy must not be lost with it.
        if trial.seed not in kept or kept[trial.seed].test_accuracy is None:
            kept[trial.seed] = trial
    rows: list[Row | Place] = []
    for key in sorted(groups, key=lambda key: _order(key, len(groups[key]))):
        rows += _ranked(key, [list(same.values()) for same in groups[key].values()], images, top, whole)
    return tuple(rows)


def validation_images(archive: Archive, trial_id: int) -> int:
    """Return the number of validation images of a trial; 0 where its predictions are not stored."""
    return len(archive.predictions(trial_id, "validation")) // BYTES_PER_CLASS


def _order(key: Group, candidates: int) -> tuple[Any, ...]:
    dataset, fidelity = key
    return dataset, fidelity.data, -(fidelity.train_size or math.inf), -fidelity.epochs, -candidates, str(fidelity)


def _ranked(
    key: Group,
    groups: Sequence[Sequence[T]],
    images: Callable[[int], int] | None,
    top: int,
    whole: Callable[[T], Scored],
) -> Iterator[Row | Place]:
    """Rank the candidates of one fidelity, each given as its trials with different seeds."""
    # Each candidate's accuracies are collected once: there may be tens of thousands of candidates.
    ranked = sorted(map(_scored, groups), key=lambda place: (-place[0], place[-1][0].id))
    reasons = suspicions(trial for *_, same in ranked for trial in same)
    half = half_width([(square, len(same)) for _, square, same in ranked])
    count = images(ranked[0][-1][0].id) if images is not None else 0
    spans = rank_spans([mean for mean, *_ in ranked], [len(same) for *_, same in ranked], half, count)
    dataset, fidelity = key
    same_in_all = {
        "dataset": dataset,
        "shape": str(fidelity.shape),
        "images": count or None,
        **{name: getattr(fidelity, name) for name in OF_FIDELITY},
    }
    for rank, ((mean, square, same), (low, high)) in enumerate(zip(ranked, spans, strict=True), start=1):
        place = Place(
            rank=rank,
            rank_low=low,
            id=same[0].candidate_id or "",
            seeds=len(same),
            validation_accuracy=mean,
            validation_std=math.sqrt(square / (len(same) - 1)) if len(same) > 1 else None,
            suspect=next((reasons[trial.id] for trial in same if trial.id in reasons), "") if reasons else "",
        )
        yield (place if rank > top else _row(place, same_in_all, list(map(whole, same)), half=half, rank_high=high))


def _scored(same: Sequence[T]) -> tuple[float, float, Sequence[T]]:
    """Return the mean accuracy of a candidate, the sum of squares around it, and its trials."""
    accuracies = [trial.validation_accuracy for trial in same if trial.validation_accuracy is not None]
    mean = math.fsum(accuracies) / len(accuracies)  # ``statistics`` takes several times as long for both
    return mean, math.fsum((one - mean) ** 2 for one in accuracies) if len(accuracies) > 1 else 0.0, same


def _row(
    place: Place, same_in_all: Mapping[str, Any], same: Sequence[Scored], *, half: float | None, rank_high: int | None
) -> Row:
    images = same_in_all["images"]
    means: dict[str, Any] = {name: _mean([getattr(trial, name) for trial in same]) for name in _means_of(Row)}
    low, high = share_interval(place.validation_accuracy, images) if images else (None, None)
    return Row(
        **place._asdict(),
        rank_high=rank_high,
        experts=same[0].experts,
        validation_half=None if half is None else half / math.sqrt(place.seeds),
        validation_low=low,
        validation_high=high,
        test_accuracy=_mean([trial.test_accuracy for trial in same]),
        seconds=math.fsum(trial.seconds or 0.0 for trial in same) / place.seeds,
        parameters=same[0].parameters,
        **means,
        **same_in_all,
    )


@cache
def _means_of(row: type[Row]) -> tuple[str, ...]:
    """Return the fields that a row shares with ``Score`` and has as means."""
    measured = {field.name for field in fields(Score)} - _OWN
    return tuple(field.name for field in fields(row) if field.name in measured)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
