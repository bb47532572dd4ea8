"""Progress of a campaign: whether it is running, its rate, and the budget used."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from nngen.archive import Archive, TrialState
from nngen.campaign.budget import Budget, Usage, last_budget, usage

__all__ = ["Status", "read_status"]

_TURNS = ("campaign.resumed", "campaign.paused", "campaign.continued")
"""The last of these events says whether the driver is paused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Progress of a campaign.

    Attributes:
        driver: Process id of its driver; None without one.
        paused: Whether the driver is paused.
        budget: Limits that were set last.
        spent: Usage until the last event.
        per_hour: Trials done per hour of running, over the whole campaign; None before the first.
        promotions: Number of decisions to train a candidate longer or with another seed.
        lost: Number of trials that the engine lost and that were tried again.
    """

    driver: int | None
    paused: bool
    budget: Budget
    spent: Usage
    per_hour: float | None
    promotions: int
    lost: int

    @property
    def word(self) -> str:
        """``running``, ``paused`` or ``not being run``."""
        return "not being run" if self.driver is None else "paused" if self.paused else "running"

    def to_dict(self) -> dict[str, Any]:
        """Write the status as JSON types."""
        plain = {name: getattr(self, name) for name in ("driver", "paused", "per_hour", "promotions", "lost")}
        return plain | {"budget": self.budget.to_dict(), "spent": asdict(self.spent)}


def read_status(archive: Archive, name: str) -> Status:
    """Read the progress of a campaign, up to its last event.

    Raises:
        UsageError: If the campaign does not exist.
    """
    archive.campaign(name)
    events = archive.events(name)
    turns = [event.kind for event in events if event.kind in _TURNS]
    used = usage(events, archive.counts(name)[TrialState.DONE])
    driver = archive.driver(name)
    return Status(
        driver=driver,
        paused=driver is not None and turns[-1:] == ["campaign.paused"],
        budget=last_budget(events),
        spent=used,
        per_hour=used.trials / used.hours if used.trials and used.hours else None,
        promotions=sum(event.kind == "trial.promoted" for event in events),
        lost=sum(event.kind == "trial.requeued" and "reason" in event.detail for event in events),
    )
