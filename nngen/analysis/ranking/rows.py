"""Rows of the leaderboard, for the tables, figures and pages that show them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, TypeVar

from more_itertools import split_before

from nngen.text import counted

OF_FIDELITY = ("data", "train_size", "epochs", "batch", "lr", "momentum", "augment", "horizon", "class_weights")
"""Fields of a fidelity that each of its rows has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A place on the leaderboard.

    A field that is named as one of ``Score`` and not described otherwise is the mean over the seeds that have it; a new
    one has None as its default.

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
        return (self.dataset, self.shape, *(getattr(self, name) for name in OF_FIDELITY))

    def to_dict(self) -> dict[str, Any]:
        """Convert the row to JSON types."""
        return asdict(self) | {"experts": list(self.experts)}


class Place(NamedTuple):
    """The part of a row that the limits of a leaderboard are found from; cheap to build by the tens of thousands."""

    rank: int
    rank_low: int | None
    id: str
    seeds: int
    validation_accuracy: float
    validation_std: float | None
    suspect: str


AnyRow = TypeVar("AnyRow", bound=Row | Place)


def by_fidelity(rows: Iterable[AnyRow]) -> list[list[AnyRow]]:
    """Return the rows of each fidelity, in the order of the leaderboard."""
    return list(split_before(rows, lambda row: row.rank == 1))


def describe_fidelity(row: Row) -> str:
    """Name the fidelity of a row, as far as people choose it."""
    epochs = counted(row.epochs, "epoch") + (f" of {row.horizon}" if row.horizon else "")
    part = f" ({row.train_size:,} images)" if row.train_size else ""
    changed = "" if row.augment == "none" else f", augmented by {row.augment}"
    changed += "" if row.class_weights == "none" else f", class weights {row.class_weights}"
    return f"{row.dataset}{part} at {row.shape}, {epochs}, batch {row.batch}, rate {row.lr:g}{changed}"
