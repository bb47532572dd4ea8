"""The contract of every archive, as text; ``nngen.testing.archive_contract`` is the same contract as a test class.

Who may change what
    - One driver per campaign writes; any number of readers read at the same time. A second live
      driver is refused by ``lock`` with ``ArchiveError``.
    - Families, plans, candidates, verdicts, curves, predictions, reveals and events are facts:
      added once, never changed, never removed. Adding an equal fact again changes nothing.
    - A trial goes ``ready -> running -> done``. ``requeue`` and ``requeue_trial`` return running trials
      to ``ready``; only the driver that holds the lock calls them. Nothing leaves ``done``.
    - A test accuracy is revealed at most once per trial.

What lasts
    - Each call is one transaction. When it has returned, its work survives SIGKILL of the process
      and loss of power; when it has not, either all of it is stored or nothing.
    - A trial becomes ``done`` together with its curve, its predictions and its event.

What raises
    - ``ArchiveError``: the file cannot be read or written; a transition is forbidden; a candidate's
      id is taken by another program (LEMUR's id is blind to white space); a second driver.
    - ``UsageError``: no campaign or candidate has the name asked for (the message lists the
      nearest names), a prefix fits several candidates, a campaign's name is taken.

Order
    Everything is returned in the order in which it was added, whatever the clock says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from nngen.archive.records import CampaignRecord, Event, NewTrial, Promotion, StoredCandidate, StoredTrial
from nngen.archive.states import TrialState
from nngen.plan import Plan
from nngen.types import Candidate, Family, Shape, Trial, TrialSpec, Verdict

__all__ = ["Store"]


class Store(Protocol):
    """Operations of an archive; the contract is the text of this module."""

    def add_family(self, family: Family) -> None: ...

    def add_candidate(self, candidate: Candidate, fingerprints: Mapping[str, str] = ...) -> bool:
        """Store a candidate with the fingerprints of its families by name; False if it was stored already."""
        ...

    def add_verdict(self, candidate_id: str, verdict: Verdict, *, shape: Shape, classes: int) -> None:
        """Store the verdict of a check at ``shape`` with so many classes."""
        ...

    def add_campaign(self, record: CampaignRecord, trials: Sequence[NewTrial | Plan], **detail: Any) -> None:
        """Create a campaign with its first ready trials, in one transaction; ``detail`` goes to its event.

        A plan stands for a trial that assembles it.
        """
        ...

    def add_trials(self, campaign: str, trials: Sequence[NewTrial | Plan], **detail: Any) -> None:
        """Add further ready trials after the last position, with an event, in one transaction."""
        ...

    def promote(self, campaign: str, promotions: Sequence[Promotion]) -> None:
        """Add a ready trial and an event per decision, in one transaction; position, rung and seed are unique."""
        ...

    def start_trial(self, trial_id: int) -> None:
        """``ready -> running``."""
        ...

    def finish_trial(self, trial_id: int, result: Trial | Verdict, *, copied_from: int | None = None) -> None:
        """``running -> done``; a bare verdict is for a plan that never became a candidate."""
        ...

    def requeue(self, campaign: str) -> int:
        """``running -> ready`` for all trials of a campaign; returns their number."""
        ...

    def requeue_trial(self, trial_id: int, *, reason: str) -> None:
        """``running -> ready`` for one trial that its engine lost."""
        ...

    def reveal_test(self, trial_id: int, accuracy: float) -> float:
        """Store a test accuracy; returns the one that was revealed first."""
        ...

    def log(self, kind: str, *, campaign: str | None = None, trial_id: int | None = None, **detail: Any) -> None:
        """Append an event."""
        ...

    def lock(self, campaign: str) -> AbstractContextManager[None]:
        """Hold the lock of the campaign's only driver for the duration of a block."""
        ...

    def driver(self, campaign: str) -> int | None:
        """Return the process id of the campaign's driver; None without one."""
        ...

    def campaigns(self) -> tuple[CampaignRecord, ...]: ...

    def campaign(self, name: str) -> CampaignRecord: ...

    def candidates(self) -> tuple[StoredCandidate, ...]: ...

    def candidate(self, prefix: str) -> StoredCandidate: ...

    def canonicals(self) -> frozenset[str]:
        """Return the canonical hashes of all candidates, without reading their sources."""
        ...

    def trial(self, trial_id: int) -> StoredTrial: ...

    def trials(
        self, campaign: str | None = ..., *, candidate_id: str | None = ..., state: TrialState | None = ...
    ) -> tuple[StoredTrial, ...]: ...

    def same_trial(self, candidate_id: str, spec: TrialSpec, data_fingerprint: str) -> StoredTrial | None:
        """Find a finished trial of the same candidate, specification and data (``data_fingerprint``)."""
        ...

    def checked(self, candidate_id: str, shape: Shape, classes: int) -> Verdict | None:
        """Return the last verdict of a check at that shape with so many classes."""
        ...

    def predictions(self, trial_id: int, split: str) -> bytes: ...

    def quartets(self, campaign: str | None = ...) -> Mapping[tuple[str, ...], str]:
        """Return the quartets (sorted) of finished trials with their last outcome, failures included."""
        ...

    def counts(self, campaign: str) -> Mapping[TrialState, int]:
        """Count a campaign's trials by state."""
        ...

    def template_versions(self, campaign: str) -> Mapping[int, int]:
        """Count a campaign's assembled candidates by the version of their templates; 0 where no version was stored."""
        ...

    def events(self, campaign: str | None = ..., *, after: int = ...) -> tuple[Event, ...]:
        """Return the events, of one campaign or of all, whose ids are above ``after``."""
        ...
