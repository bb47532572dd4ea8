"""How a campaign stands for those who look on: driven or not, how fast, what it has used."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from nngen.archive import Store, TrialState
from nngen.campaign.budget import Budget, Usage, last_budget, spent

__all__ = ["Status", "standing"]

_TURNS = ("campaign.resumed", "campaign.paused", "campaign.continued")
"""After the last of these a driver works, or rests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How a campaign stands.

    Attributes:
        driver: Number of the process that drives it; None where none does.
        paused: Whether that driver rests.
        per_hour: Trials done in an hour of driving, over the whole campaign; None before the first.
        promotions: Decisions that took a candidate on or gave it another seed.
        lost: How often the engine lost a trial.
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
        """Write the standing as JSON's types."""
        plain = {name: getattr(self, name) for name in ("driver", "paused", "per_hour", "promotions", "lost")}
        return plain | {"budget": self.budget.to_dict(), "spent": asdict(self.spent)}


def standing(archive: Store, name: str) -> Status:
    """Read how a campaign stands, its account up to the last event.

    Raises:
        UsageError: If there is no such campaign.
    """
    archive.campaign(name)
    events = archive.events(name)
    turns = [event.kind for event in events if event.kind in _TURNS]
    used = spent(events, archive.counts(name)[TrialState.DONE])
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
