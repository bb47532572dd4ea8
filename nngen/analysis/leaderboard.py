"""Leaderboard: trials of one candidate at one fidelity become one row, ranked by validation accuracy within it.

A column is added in one place, ``Row`` and ``COLUMNS``; the terminal's table and the report are made from it.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import NormalDist, fmean
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from more_itertools import split_before

from nngen.analysis import formatting
from nngen.analysis.ranking.fidelity import fidelity_note
from nngen.analysis.ranking.reliability import Reliability, reliability
from nngen.analysis.statistics import share_interval
from nngen.analysis.suspicion import suspicions
from nngen.archive.records import BriefScore, StoredTrial, TrialScore
from nngen.archive.store import Archive
from nngen.campaign_spec import TABLE
from nngen.text import counted, listed
from nngen.types import BYTES_PER_CLASS, Fidelity, TrialSpec

Scored: TypeAlias = StoredTrial | TrialScore

T = TypeVar("T", bound=StoredTrial | TrialScore | BriefScore)

Group: TypeAlias = tuple[str, Fidelity]
"""Name of a data set, and a fidelity of trials on it."""

_NAMED = 5

_OF_FIDELITY = ("data", "train_size", "epochs", "batch", "lr", "momentum", "augment", "horizon", "class_weights")
"""Fields of a fidelity that each of its rows has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A place on the leaderboard.

    Attributes:
        rank: Rank among the rows of one fidelity, from 1.
        rank_low: Best rank that it may have: only rows that are better by more than the noise stand before it (95 %,
            each pair by itself, by the wider of the noise between seeds and the sampling error of the validation
            images); None where neither is known.
        rank_high: Worst rank that it may have.
        data: Fingerprint of the data set; its name for trials from before fingerprints were kept.
        batch: Batch size that was used: smaller than requested where memory did not suffice.
        seeds: Number of different seeds behind the means.
        validation_accuracy: Mean over the seeds, in [0, 1].
        validation_std: Sample standard deviation over the seeds; None for one seed.
        validation_half: Half the width of the mean's 95 % interval, from the pooled noise between the
            seeds of all rows of the fidelity; None where no row has several seeds.
        images: Number of validation images; None where it is not known.
        validation_low: Lower end of the 95 % interval that so many images allow (Wilson); None without their number.
        validation_high: Upper end of that interval.
        test_accuracy: Mean over the trials with a revealed test accuracy; None without one.
        seconds: Mean wall time of a trial, in seconds.
        suspect: Reason why the accuracy is not comparable with that of others; empty for most.
        train_size: Number of images of the train split that were trained on; None for all.
        augment: Random changes of the training images.
        horizon: Epochs that schedules stretched over where they are more than ``epochs``; None for most.
        class_weights: Weights of the classes in training.
    """

    rank: int
    id: str
    experts: tuple[str, ...]
    dataset: str
    data: str
    shape: str
    epochs: int
    batch: int
    lr: float
    momentum: float
    seeds: int
    validation_accuracy: float
    validation_std: float | None
    validation_half: float | None = None
    images: int | None = None
    validation_low: float | None = None
    validation_high: float | None = None
    rank_low: int | None = None
    rank_high: int | None = None
    test_accuracy: float | None
    seconds: float
    parameters: int | None
    suspect: str = ""
    train_size: int | None = None
    augment: str = "none"
    horizon: int | None = None
    class_weights: str = "none"

    @property
    def interval(self) -> str | None:
        """The 95 % interval that the number of images allows, in words."""
        return None if self.validation_low is None else f"{self.validation_low:.3f} to {self.validation_high:.3f}"

    @property
    def among(self) -> str | None:
        """Ranks that it may have, in words."""
        if self.rank_low is None:
            return None
        return f"{self.rank_low} to {self.rank_high}" if self.rank_low != self.rank_high else str(self.rank_low)

    @property
    def fidelity(self) -> tuple[Any, ...]:
        """Data and settings, which all rows of one fidelity share."""
        return (self.dataset, self.shape, *(getattr(self, name) for name in _OF_FIDELITY))

    def to_dict(self) -> dict[str, Any]:
        """Convert the row to JSON types."""
        return asdict(self) | {"experts": list(self.experts)}


def _always(_: Sequence[Row]) -> bool:
    return True


def _some(name: str) -> Callable[[Sequence[Row]], bool]:
    return lambda rows: any(getattr(row, name) for row in rows)


def _differing(name: str) -> Callable[[Sequence[Row]], bool]:
    return lambda rows: len({getattr(row, name) for row in rows}) > 1


def _versions(rows: Sequence[Row]) -> bool:
    return len({(row.dataset, row.data) for row in rows}) > len({row.dataset for row in rows})


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of the leaderboard's tables."""

    name: str  # attribute of ``Row``; the terminal's heading
    text: Callable[[Row], str]  # formats a row's value
    heading: str | None = None  # heading in the report; None to leave the column out of it
    terminal: bool = True  # whether the terminal's table shows the column
    style: str = "n"  # classes of the report's cells: ``n`` for numbers (right-aligned), ``words``, ``id``
    needed: Callable[[Sequence[Row]], bool] = _always  # tells whether a table of these rows needs the column


COLUMNS = (
    Column(name="rank", heading="rank", text=lambda row: str(row.rank)),
    Column(name="among", heading="among ranks", text=lambda row: row.among or "-", needed=_some("among")),
    Column(name="experts", heading="experts", text=lambda row: ", ".join(row.experts), style="words"),
    Column(name="dataset", text=lambda row: row.dataset, style="words"),
    Column(name="validation_accuracy", heading="validation", text=lambda row: f"{row.validation_accuracy:.4f}"),
    Column(name="interval", heading="95 % by images", text=lambda row: row.interval or "-", needed=_some("interval")),
    Column(name="images", heading="images", text=lambda row: formatting.count(row.images), terminal=False),
    Column(
        name="validation_half",
        heading="± 95 % by seeds",
        text=lambda row: formatting.accuracy(row.validation_half),
        terminal=False,
    ),
    Column(name="suspect", heading="suspect", text=lambda row: row.suspect, style="words", needed=_some("suspect")),
    Column(name="seeds", heading="seeds", text=lambda row: str(row.seeds)),
    Column(name="test_accuracy", heading="test", text=lambda row: formatting.accuracy(row.test_accuracy)),
    Column(name="data", heading="data", text=lambda row: row.data[:8], style="id", needed=_versions),
    Column(name="shape", heading="shape", text=lambda row: row.shape, style="id", needed=_differing("shape")),
    Column(name="epochs", heading="epochs", text=lambda row: str(row.epochs)),
    Column(
        name="horizon",
        heading="of epochs",
        text=lambda row: str(row.horizon or row.epochs),
        style="id",
        needed=_some("horizon"),
    ),
    Column(
        name="train_size",
        heading="training images",
        text=lambda row: "all" if row.train_size is None else formatting.count(row.train_size),
        needed=_some("train_size"),
    ),
    Column(name="batch", heading="batch", text=lambda row: str(row.batch)),
    Column(name="lr", heading="rate", text=lambda row: f"{row.lr:g}", style="id", needed=_differing("lr")),
    Column(
        name="momentum",
        heading="momentum",
        text=lambda row: f"{row.momentum:g}",
        style="id",
        needed=_differing("momentum"),
    ),
    Column(
        name="augment",
        heading="augmentation",
        text=lambda row: row.augment,
        style="words",
        needed=_differing("augment"),
    ),
    Column(
        name="class_weights",
        heading="class weights",
        text=lambda row: row.class_weights,
        style="words",
        needed=_differing("class_weights"),
    ),
    Column(name="seconds", heading="seconds", text=lambda row: f"{row.seconds:.1f}"),
    Column(name="parameters", heading="parameters", text=lambda row: formatting.count(row.parameters)),
    Column(name="id", heading="id", text=lambda row: row.id[:13], style="id"),
)
"""Columns in the order of both tables; JSON has every field of ``Row``."""


def columns_of(rows: Sequence[Row]) -> list[Column]:
    """Return the columns that a table of these rows needs."""
    return [column for column in COLUMNS if column.needed(rows)]


class Place(NamedTuple):
    """The part of a row that the limits of a leaderboard are found from; cheap to build by the tens of thousands."""

    rank: int
    rank_low: int | None
    id: str
    seeds: int
    validation_accuracy: float
    validation_std: float | None
    suspect: str


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
    for key in sorted(groups, key=lambda key: _place(key, len(groups[key]))):
        rows += _ranked(key, [list(same.values()) for same in groups[key].values()], images, top, whole)
    return tuple(rows)


def validation_images(archive: Archive, trial_id: int) -> int:
    """Return the number of validation images of a trial; 0 where its predictions are not stored."""
    return len(archive.predictions(trial_id, "validation")) // BYTES_PER_CLASS


def limits(rows: Sequence[Row | Place]) -> tuple[str, ...]:
    """State what a leaderboard cannot tell: replays, ties at the top, noise, rankings that longer trainings change."""
    noise = (f"{describe_fidelity(best)}: {found.sentence}" for best, found in reliabilities(rows))
    first = [best for best, _ in _by_fidelity(rows)]
    epochs = (fidelity_note(row.dataset, row.epochs) for row in first)
    tables = dict.fromkeys(row.dataset for row in first if row.dataset.startswith(TABLE))
    replayed = (f"the accuracies on {name} are replayed from a recorded table, not trained" for name in tables)
    return (*replayed, *ties(rows), *noise, *filter(None, dict.fromkeys(epochs)))


def describe_fidelity(row: Row) -> str:
    """Name the fidelity of a row, as far as people choose it."""
    epochs = counted(row.epochs, "epoch") + (f" of {row.horizon}" if row.horizon else "")
    part = f" ({row.train_size:,} images)" if row.train_size else ""
    changed = "" if row.augment == "none" else f", augmented by {row.augment}"
    changed += "" if row.class_weights == "none" else f", class weights {row.class_weights}"
    return f"{row.dataset}{part} at {row.shape}, {epochs}, batch {row.batch}, rate {row.lr:g}{changed}"


def ties(rows: Sequence[Row | Place]) -> tuple[str, ...]:
    """Name, for each fidelity, the rows that cannot be told from its best one, in one clause each."""
    found = []
    for best, same in _by_fidelity(rows):
        tied = [row.id[:13] for row in same[1:] if row.rank_low == 1]
        if tied:
            more = f"{len(tied)} more cannot be told from the best (95 %)"
            found.append(f"{describe_fidelity(best)}: {more}: {listed(tied, _NAMED)}")
    return tuple(found)


def reliabilities(rows: Sequence[Row | Place]) -> list[tuple[Row, Reliability]]:
    """Return the best row of each fidelity with three candidates, and the reliability of its unsuspected accuracies."""
    found = []
    for best, same in _by_fidelity(rows):
        fair = [row for row in same if not row.suspect]
        within = math.fsum((row.seeds - 1) * (row.validation_std or 0.0) ** 2 for row in fair)
        means, seeds = [row.validation_accuracy for row in fair], [row.seeds for row in fair]
        if (estimate := reliability(means, seeds, within, best.images)) is not None:
            found.append((best, estimate))
    return found


def _by_fidelity(rows: Sequence[Row | Place]) -> Iterator[tuple[Row, list[Row | Place]]]:
    """Yield the best row of each fidelity, and all of it in their order."""
    for same in split_before(rows, lambda row: row.rank == 1):
        if isinstance(best := same[0], Row):
            yield best, same


def _place(key: Group, candidates: int) -> tuple[Any, ...]:
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
    half = _half_width([(square, len(same)) for _, square, same in ranked])
    count = images(ranked[0][-1][0].id) if images is not None else 0
    spans = _rank_spans([mean for mean, *_ in ranked], [len(same) for *_, same in ranked], half, count)
    dataset, fidelity = key
    same_in_all = {
        "dataset": dataset,
        "shape": str(fidelity.shape),
        "images": count or None,
        **{name: getattr(fidelity, name) for name in _OF_FIDELITY},
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


def _rank_spans(
    means: Sequence[float], seeds: Sequence[int], half: float | None, images: int
) -> list[tuple[int | None, int | None]]:
    """Return the best and the worst rank that each candidate may have, by the noise of one pair at a time.

    The means are sorted, best first; ``half`` is half the width of one seed's 95 % interval, where it is known.
    """
    if half is None and not images:
        return [(None, None)] * len(means)
    values, counts = np.array(means), np.array(seeds, dtype=float)
    sampling = (
        NormalDist().inv_cdf(0.975) * np.sqrt(2 * values * (1 - values) / images) if images else np.zeros(len(values))
    )
    better, worse = (np.zeros(len(values), dtype=int) for _ in range(2))
    # Others with equally many seeds have one threshold for each candidate, and are counted by a search.
    for number in np.unique(counts):
        others = values[counts == number][::-1]  # ascending
        threshold = np.maximum(sampling, (half or 0.0) * np.sqrt(1 / counts + 1 / number))
        better += len(others) - np.searchsorted(others, values + threshold, side="right")
        worse += np.searchsorted(others, values - threshold, side="left")
    return list(zip((1 + better).tolist(), (len(values) - worse).tolist(), strict=True))


def _half_width(places: Iterable[tuple[float, int]]) -> float | None:
    """Return half the width of one seed's 95 % interval; None where all candidates have one seed.

    It comes from the pooled variance between seeds: a row of two seeds would hardly know its own noise.

    Args:
        places: Sum of the squares around the mean and number of seeds of each candidate.
    """
    from scipy.special import stdtrit

    squares, freedom = 0.0, 0
    for square, seeds in places:
        squares += square
        freedom += seeds - 1
    return float(stdtrit(freedom, 0.975)) * math.sqrt(squares / freedom) if freedom else None


def _row(
    place: Place, same_in_all: Mapping[str, Any], same: Sequence[Scored], *, half: float | None, rank_high: int | None
) -> Row:
    images = same_in_all["images"]
    tested = [trial.test_accuracy for trial in same if trial.test_accuracy is not None]
    low, high = share_interval(place.validation_accuracy, images) if images else (None, None)
    return Row(
        **place._asdict(),
        rank_high=rank_high,
        experts=same[0].experts,
        validation_half=None if half is None else half / math.sqrt(place.seeds),
        validation_low=low,
        validation_high=high,
        test_accuracy=fmean(tested) if tested else None,
        seconds=math.fsum(trial.seconds or 0.0 for trial in same) / place.seeds,
        parameters=same[0].parameters,
        **same_in_all,
    )
