"""The loop: sample, assemble, check, train, store; killed at any instant, it goes on from there.

All that is drawn stands in the archive before the first trial begins, and each trial's result is
one transaction, so a driver holds nothing that could be lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from nngen import __version__
from nngen.archive import Store, StoredTrial, TrialState
from nngen.campaign.crew import Crew
from nngen.campaign.planning import begin, explored, next_turn
from nngen.campaign.seams import Assemble, Bench, Engine, Silent, Watcher
from nngen.campaign.spec import CampaignSpec
from nngen.campaign.steps import Workshop
from nngen.campaign.summary import Summary, summarise
from nngen.errors import DataError, LemurError
from nngen.types import Plan

__all__ = ["Campaign"]

Data = TypeVar("Data")

_PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign(Generic[Data]):
    """A specification joined with what carries it out; ``run`` begins or goes on."""

    spec: CampaignSpec
    archive: Store
    bench: Bench[Data]
    engine: Engine[Data]
    assemble: Assemble
    watcher: Watcher = field(default_factory=Silent)

    def run(self) -> Summary:
        """Run until every trial is done and none is to come; reveal the best candidate's test accuracy.

        Raises:
            ArchiveError: If another live driver has the campaign, or the archive cannot be written.
            DataError: If the data set has changed since the campaign began.
            LemurError: If the source of one of its families has.
            UsageError: If the pool is too small for the size, or the sampler is unknown.
        """
        name = self.spec.name
        with self.archive.lock(name):
            self._begin()
            trials = self.archive.trials(name)
            done = sum(trial.state is TrialState.DONE for trial in trials)
            self.watcher.begin(name, done, max(len(trials), self.spec.size))
            try:
                self._drive()
            except KeyboardInterrupt:
                self.archive.requeue(name)
                self.archive.log("campaign.interrupted", campaign=name)
                raise
            if done < (total := len(self.archive.trials(name))):
                self.archive.log("campaign.finished", campaign=name, trials=total)
            return summarise(self.archive, name, test_labels=self.bench.test_labels)

    def _begin(self) -> None:
        name = self.spec.name
        known = {campaign.name: campaign for campaign in self.archive.campaigns()}
        if name in known:
            self._same_ground(known[name].spec)
            if self.archive.requeue(name) or self.archive.trials(name, state=TrialState.READY):
                self.archive.log("campaign.resumed", campaign=name)
            return
        beginning = begin(self.spec, self.archive, self._ground())
        for family, _ in self.bench.families.values():
            self.archive.add_family(family)
        self.archive.add_campaign(
            name, self.spec.to_dict() | dict(beginning.ground), beginning.plans, explored=explored(beginning.choices)
        )
        for line in beginning.notes:
            self.watcher.note(line)

    def _drive(self) -> None:
        """Keep the engine busy until nothing is left to be done."""
        crew = Crew(lambda: self.engine.slots)
        shop = Workshop(
            spec=self.spec,
            archive=self.archive,
            bench=self.bench,
            engine=self.engine,
            assemble=self.assemble,
            watcher=self.watcher,
            crew=crew,
        )
        # On a card, a check beside a training could take the memory that the training needs.
        ahead = 1 if self.spec.device == "cpu" else 0
        ready: deque[StoredTrial] = deque()
        while True:
            while crew.open < self.engine.slots + ahead:
                if not ready and not crew.open:
                    ready.extend(self._ready())
                if not ready:
                    break
                crew.begin(shop.steps(ready.popleft()))
            if not crew.open and not ready:
                break
            crew.turn(_PATIENCE_S)

    def _ready(self) -> tuple[StoredTrial, ...]:
        """What is to be done next; a sampler that learns is asked when nothing is left."""
        name = self.spec.name
        ready = self.archive.trials(name, state=TrialState.READY)
        if not ready and (choices := next_turn(self.spec, self.archive)):
            plans = [Plan(experts=choice.quartet) for choice in choices]
            self.archive.add_trials(name, plans, explored=explored(choices))
            ready = self.archive.trials(name, state=TrialState.READY)
        return ready

    def _ground(self) -> dict[str, Any]:
        """What the campaign stands on besides its arguments."""
        return {
            "pool": {name: family.fingerprint for name, (family, _) in sorted(self.bench.families.items())},
            "left_out": dict(self.bench.left_out),
            "data_fingerprint": self.bench.data_fingerprint,
            "classes": self.bench.classes,
            "nngen": __version__,
        }

    def _same_ground(self, began: Mapping[str, Any]) -> None:
        now = self._ground()
        if began["data_fingerprint"] != now["data_fingerprint"]:
            raise DataError(
                f"data set {self.spec.dataset} has changed since campaign {self.spec.name} began: choose another name"
            )
        for family, fingerprint in began["pool"].items():
            if now["pool"].get(family) != fingerprint:
                raise LemurError(
                    f"family {family} has changed since campaign {self.spec.name} began: "
                    "use the LEMUR it began with, or choose another name"
                )
