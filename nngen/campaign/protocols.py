"""What a campaign needs of the other rooms, as protocols: tests and new engines plug in here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeAlias, TypeVar

from nngen.archive import StoredTrial
from nngen.types import Candidate, EpochResult, Family, Interface, Plan, Shape, Trial, TrialSpec, Verdict

__all__ = ["Assemble", "CampaignInputs", "Engine", "Silent", "Watcher"]

Data = TypeVar("Data")
DataIn = TypeVar("DataIn", contravariant=True)

Assemble: TypeAlias = Callable[[Plan, Sequence[tuple[Family, Interface]]], Candidate]
"""Writes a plan out; ``nngen.assembly.assemble``."""


class Engine(Protocol[DataIn]):
    """Checks and trains candidates somewhere that is not here; called from several threads at once.

    Where the engine loses what it runs through no fault of the candidate (a machine went away), it
    raises ``EngineLostError``, and the campaign gives it the same work again, a few times.
    """

    @property
    def slots(self) -> int:
        """How many trainings it takes at once, 1 at least; may change while a campaign runs."""
        ...

    def check(
        self, candidate: Candidate, *, shape: Shape, classes: int, device: str, threads: int, memory_mib: int
    ) -> Verdict:
        """Prove that a candidate works; never raises for what the candidate does."""
        ...

    def train(
        self,
        candidate: Candidate,
        spec: TrialSpec,
        dataset: DataIn,
        on_epoch: Callable[[EpochResult], None] | None = None,
    ) -> Trial:
        """Train it and score it; never raises for what the candidate does."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignInputs(Generic[Data]):
    """What is worked on.

    Attributes:
        families: Usable families by name.
        left_out: Families of the asked pool that cannot be used at the shape, with the reason.
        dataset: Handed to the engine as it is.
        data_fingerprint: Of the data set's content.
        classes: Of the data set.
        test_labels: Little-endian uint16, one per test image; read once, at the end.
    """

    families: Mapping[str, tuple[Family, Interface]]
    dataset: Data
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
