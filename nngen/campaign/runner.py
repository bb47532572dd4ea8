"""The loop: sample, assemble, check, train, store; killed at any instant, it goes on from there.

All that is drawn stands in the archive before the first trial begins, and each trial's result is
one transaction, so a driver holds nothing that could be lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nngen import __version__
from nngen.archive import Store, TrialState
from nngen.campaign.budget import Budget, BudgetTracker, last_budget
from nngen.campaign.commands import Control, interrupts
from nngen.campaign.driver import Driver, End
from nngen.campaign.executor import Crew
from nngen.campaign.protocols import Assemble, CampaignInputs, Silent, Watcher
from nngen.campaign.selection import begin, explored
from nngen.campaign.spec import CampaignSpec
from nngen.campaign.steps import Workshop
from nngen.campaign.successive_halving import is_over, planned
from nngen.campaign.summary import Summary, summarise
from nngen.errors import DataError, LemurError
from nngen.training.engine import Engine

__all__ = ["Campaign"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """A specification joined with what carries it out; ``run`` begins or goes on.

    Attributes:
        budget: Of the campaign as a whole; None for the one that was set last.
    """

    spec: CampaignSpec
    archive: Store
    bench: CampaignInputs
    engine: Engine
    assemble: Assemble
    watcher: Watcher = field(default_factory=Silent)
    budget: Budget | None = None

    def run(self) -> Summary:
        """Run until every trial is done and none is to come, or a budget or a wish ends it before.

        The best candidate's test accuracy is revealed when all is done, and not before.

        Raises:
            ArchiveError: If another live driver has the campaign, or the archive cannot be written.
            DataError: If the data set has changed since the campaign began.
            LemurError: If the source of one of its families has.
            KeyboardInterrupt: After Ctrl-C; what trained then is done, after a second one it is put back.
            UsageError: If the pool is too small for the size, or the sampler is unknown.
        """
        name = self.spec.name
        with self.archive.lock(name):
            self._begin()
            counts = self.archive.counts(name)
            self.watcher.begin(name, counts[TrialState.DONE], max(sum(counts.values()), planned(self.spec)))
            end = self._drive()
            if end is End.INTERRUPTED:
                raise KeyboardInterrupt
            labels = self.bench.test_labels if end is End.FINISHED else None
            return summarise(self.archive, name, test_labels=labels)

    def _drive(self) -> End:
        name = self.spec.name
        crew = Crew(lambda: self.engine.slots)
        control = Control(self.archive, name)
        driver = Driver(
            spec=self.spec,
            archive=self.archive,
            slots=lambda: self.engine.slots,
            watcher=self.watcher,
            steps=Workshop(
                spec=self.spec,
                archive=self.archive,
                bench=self.bench,
                engine=self.engine,
                assemble=self.assemble,
                watcher=self.watcher,
                crew=crew,
            ).steps,
            crew=crew,
            control=control,
            purse=BudgetTracker(
                self.archive, name, self.budget or last_budget(self.archive.events(name)), self.watcher
            ),
        )
        try:
            with interrupts(control):
                return driver.drive()
        except KeyboardInterrupt:
            self.archive.requeue(name)
            self.archive.log("campaign.interrupted", campaign=name)
            raise

    def _begin(self) -> None:
        name = self.spec.name
        known = {campaign.name: campaign for campaign in self.archive.campaigns()}
        if name in known:
            self._same_ground(known[name].spec)
            self.archive.requeue(name)
            if not is_over(self.spec, self.archive.trials(name)):
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
