"""What a campaign needs of the other rooms, as protocols: tests and new engines plug in here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from nngen.archive import StoredTrial
from nngen.datasets.dataset import Dataset
from nngen.plan import Plan
from nngen.types import Candidate, EpochResult, Family, Interface

__all__ = ["Assemble", "CampaignInputs", "Silent", "Watcher"]

Assemble: TypeAlias = Callable[[Plan, Sequence[tuple[Family, Interface]]], Candidate]
"""Writes a plan out; ``nngen.assembly.assemble``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignInputs:
    """What is worked on.

    Attributes:
        families: Usable families by name.
        left_out: Families of the asked pool that cannot be used at the shape, with the reason.
        dataset: The data set, as each training job carries it.
        data_fingerprint: Of the data set's content.
        classes: Of the data set.
        test_labels: Little-endian uint16, one per test image; read once, at the end.
    """

    families: Mapping[str, tuple[Family, Interface]]
    dataset: Dataset
    data_fingerprint: str
    classes: int
    test_labels: bytes
    left_out: Mapping[str, str] = field(default_factory=dict)


class Watcher(Protocol):
    """Is told what happens while a campaign runs; changes nothing."""

    def note(self, line: str) -> None:
        """Something to know about the campaign as a whole."""
        ...

    def begin(self, name: str, done: int, total: int) -> None: ...

    def stage(self, trial: StoredTrial, stage: str) -> None:
        """A trial is being assembled, checked or trained."""
        ...

    def epoch(self, trial: StoredTrial, result: EpochResult) -> None: ...

    def requeued(self, trial: StoredTrial) -> None:
        """A trial was put back."""
        ...

    def finished(self, trial: StoredTrial) -> None: ...


class Silent:
    """A watcher that says nothing."""

    def note(self, line: str) -> None: ...

    def begin(self, name: str, done: int, total: int) -> None: ...

    def stage(self, trial: StoredTrial, stage: str) -> None: ...

    def epoch(self, trial: StoredTrial, result: EpochResult) -> None: ...

    def requeued(self, trial: StoredTrial) -> None: ...

    def finished(self, trial: StoredTrial) -> None: ...
