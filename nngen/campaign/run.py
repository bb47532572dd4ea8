"""The loop: sample, assemble, check, train, store; killed at any instant, it goes on from there.

All that is drawn stands in the archive before the first trial begins, and each trial's result is
one transaction, so a driver holds nothing that could be lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from nngen import __version__
from nngen.archive import Store, StoredTrial, TrialState
from nngen.campaign.planning import begin, explored, next_turn
from nngen.campaign.seams import Assemble, Bench, Engine, Silent, Watcher
from nngen.campaign.spec import CampaignSpec
from nngen.campaign.summary import Summary, summarise
from nngen.errors import AssemblyError, DataError, FamilyError, LemurError, PlanError
from nngen.seeds import derive
from nngen.types import Candidate, Outcome, Plan, Trial, TrialSpec, Verdict

__all__ = ["Campaign"]

Data = TypeVar("Data")


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
                while ready := self._ready():
                    for trial in ready:
                        self._trial(trial)
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

    def _trial(self, trial: StoredTrial) -> None:
        self.archive.start_trial(trial.id)
        self.watcher.stage(trial, "assemble")
        try:
            candidate = self.assemble(trial.plan, [self.bench.families[name] for name in trial.experts])
        except (AssemblyError, FamilyError, PlanError) as error:
            verdict = Verdict(outcome=Outcome.CONTRACT, rule="assembly", message=str(error))
            self.archive.finish_trial(trial.id, verdict)
        else:
            self._candidate(trial, candidate)
        self.watcher.finished(self.archive.trial(trial.id))

    def _candidate(self, trial: StoredTrial, candidate: Candidate) -> None:
        prints = {name: self.bench.families[name][0].fingerprint for name in trial.experts}
        self.archive.add_candidate(candidate, prints)
        spec = self.spec.trial(derive(self.spec.seed, "trial", candidate.id))
        known = self.archive.same_trial(candidate.id, spec, self.bench.data_fingerprint)
        if known is not None:
            self.archive.finish_trial(trial.id, self._copy(known, candidate, spec), copied_from=known.id)
            return
        verdict = self._check(trial, candidate)
        if verdict.valid:
            self.watcher.stage(trial, "train")
            result = self.engine.train(
                candidate, spec, self.bench.dataset, lambda epoch: self.watcher.epoch(trial, epoch)
            )
        else:
            result = Trial(candidate_id=candidate.id, spec=spec, verdict=verdict)
        environment = {"nngen": __version__, **result.environment, "data": self.bench.data_fingerprint}
        self.archive.finish_trial(trial.id, replace(result, environment=environment))

    def _check(self, trial: StoredTrial, candidate: Candidate) -> Verdict:
        """Check a candidate, unless the archive holds what its check found (failures included)."""
        known = self.archive.checked(candidate.id, self.spec.shape, self.bench.classes)
        if known is not None:
            return known
        self.watcher.stage(trial, "check")
        verdict = self.engine.check(
            candidate,
            shape=self.spec.shape,
            classes=self.bench.classes,
            device=self.spec.device,
            threads=self.spec.threads,
            memory_mib=self.spec.memory_mib,
        )
        self.archive.add_verdict(candidate.id, verdict, shape=self.spec.shape, classes=self.bench.classes)
        return verdict

    def _copy(self, known: StoredTrial, candidate: Candidate, spec: TrialSpec) -> Trial:
        assert known.verdict is not None
        return Trial(
            candidate_id=candidate.id,
            spec=spec,
            verdict=known.verdict,
            validation_accuracy=known.validation_accuracy,
            curve=known.curve,
            validation_predictions=self.archive.predictions(known.id, "validation"),
            test_predictions=self.archive.predictions(known.id, "test"),
            parameters=known.parameters,
            seconds=known.seconds or 0.0,
            peak_mib=known.peak_mib or 0.0,
            environment=known.environment,
        )
