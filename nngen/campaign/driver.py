"""The driver's loop: keep the engine busy, decide what comes next, listen for wishes, watch the budget."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from nngen.archive import Store, StoredTrial, TrialState
from nngen.campaign.budget import BudgetTracker
from nngen.campaign.commands import Command, Control
from nngen.campaign.executor import Crew, Steps
from nngen.campaign.protocols import Watcher
from nngen.campaign.selection import explored, next_turn
from nngen.campaign.spec import CampaignSpec
from nngen.campaign.successive_halving import is_over, promotions
from nngen.plan import Plan

__all__ = ["Driver", "End"]

_PATIENCE_S = 1.0


class End(enum.Enum):
    """Why a driver came to its end."""

    FINISHED = enum.auto()
    STOPPED = enum.auto()
    SPENT = enum.auto()
    INTERRUPTED = enum.auto()


@dataclass(slots=True, kw_only=True)
class Driver:
    """Drives one campaign; the lock is held and the campaign is in the archive.

    Attributes:
        slots: Trainings that the engine takes at once.
        steps: What is done for one trial.
    """

    spec: CampaignSpec
    archive: Store
    slots: Callable[[], int]
    watcher: Watcher
    steps: Callable[[StoredTrial], Steps]
    crew: Crew
    control: Control
    purse: BudgetTracker
    ready: deque[StoredTrial] = field(default_factory=deque)
    paused: bool = False
    ending: End | None = None

    def drive(self) -> End:
        """Go on until nothing is left to be done, or until the budget, a wish or Ctrl-C ends it."""
        while True:
            self._listen()
            self.crew.held = self.paused or self.ending is not None
            if self.ending is None and not self.paused:
                self._fill()
            if self.ending is not None and not self.crew.busy:
                return self._leave(self.ending)
            if self.ending is None and not self.paused and not self.crew.open:
                return self._leave(End.FINISHED)
            self.crew.turn(_PATIENCE_S)

    def _listen(self) -> None:
        if self.ending is not None:
            return
        if self.purse.is_spent():
            self.ending = End.SPENT
            return
        wish = self.control.wish()
        if wish is Command.STOP:
            self.ending = End.INTERRUPTED if self.control.interrupted else End.STOPPED
            again = "; Ctrl-C again puts it back and ends at once" if self.control.interrupted else ""
            self.watcher.note(f"ending: what trains is finished, what is prepared is put back{again}")
        elif (wish is Command.PAUSE) != self.paused:
            self.paused = wish is Command.PAUSE
            (self.purse.pause if self.paused else self.purse.go_on)()
            self.archive.log(f"campaign.{'paused' if self.paused else 'continued'}", campaign=self.spec.name)
            self.watcher.note("paused: what trains is finished, nothing begins" if self.paused else "goes on")

    def _fill(self) -> None:
        # On a card, a check beside a training could take the memory that the training needs.
        ahead = 1 if self.spec.device == "cpu" else 0
        while self.crew.open < self.slots() + ahead:
            self._look()
            if not self.ready:
                return
            if not self.purse.room(self.crew.open):
                return
            self.crew.begin(self.steps(self.ready.popleft()))

    def _look(self) -> None:
        """See what is to be done next: what is ready, the highest rung first; else what results decide on."""
        name = self.spec.name
        eager = self.spec.scheduler == "asha" and len(self.spec.fidelities) > 1
        if self.ready and not eager:
            return
        if (eager or not self.crew.open) and (chosen := promotions(self.spec, self.archive.trials(name))):
            self.archive.promote(name, chosen)
            self.ready.clear()
        if self.ready:
            return
        ready = self.archive.trials(name, state=TrialState.READY)
        if not ready and not self.crew.open and (choices := next_turn(self.spec, self.archive)):
            self.archive.add_trials(
                name, [Plan(experts=choice.quartet) for choice in choices], explored=explored(choices)
            )
            ready = self.archive.trials(name, state=TrialState.READY)
        self.ready.extend(sorted(ready, key=lambda trial: (-trial.rung, trial.id)))

    def _leave(self, end: End) -> End:
        name = self.spec.name
        self.archive.requeue(name)
        if end is not End.INTERRUPTED and is_over(self.spec, self.archive.trials(name)):
            end = End.FINISHED  # what stopped it came with the last trial
        if end is End.FINISHED:
            if not any(event.kind == "campaign.finished" for event in self.archive.events(name)):
                self.archive.log("campaign.finished", campaign=name, trials=sum(self.archive.counts(name).values()))
        elif end is End.INTERRUPTED:
            self.archive.log("campaign.interrupted", campaign=name)
        else:
            self.archive.log("campaign.stopped", campaign=name, by="a budget" if end is End.SPENT else "a wish")
        return end
