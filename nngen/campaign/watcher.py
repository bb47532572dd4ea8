"""Base class of watchers, which report the progress of a campaign."""

from __future__ import annotations

from nngen.archive.records import StoredTrial
from nngen.campaign.successive_halving import Workload
from nngen.types import EpochResult


class Watcher:
    """Reports the progress of a campaign, in the thread that runs it; this one reports nothing.

    Subclasses override the methods whose calls they show.
    """

    def note(self, line: str) -> None:
        """Report something about the campaign as a whole."""

    def begin(self, name: str, work: Workload) -> None:
        """Report the start of a driver, with the work that is done already and that is to come."""

    def stage(self, trial: StoredTrial, stage: str) -> None:
        """Report that a trial is being assembled, checked or trained."""

    def epoch(self, trial: StoredTrial, result: EpochResult) -> None:
        """Report an epoch of a training."""

    def requeued(self, trial: StoredTrial) -> None:
        """Report that a trial was lost by the engine and is ready again."""

    def finished(self, trial: StoredTrial) -> None:
        """Report the result of a trial."""
