"""What is done for one trial: assemble, check, train, store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any

from nngen import __version__
from nngen.archive import Store, StoredTrial, TrialState
from nngen.archive.records import copied_result
from nngen.campaign.executor import Crew, Job, Steps
from nngen.campaign.protocols import Assemble, CampaignInputs, Watcher
from nngen.campaign.spec import CampaignSpec
from nngen.errors import AssemblyError, EngineLostError, FamilyError, PlanError
from nngen.seeds import derive
from nngen.training.engine import CheckJob, Engine, TrainJob
from nngen.training.scoring import KILLED
from nngen.types import Candidate, EpochResult, Outcome, Trial, TrialSpec, Verdict

__all__ = ["MOST_LOSSES", "Workshop"]

MOST_LOSSES = 3
"""How often a driver gives the engine a trial again that it lost; then the trial has a verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Where the trials of one campaign are worked on; all but the jobs happens in the driver's thread.

    Attributes:
        losses: How often the engine lost each trial, by its id.
    """

    spec: CampaignSpec
    archive: Store
    bench: CampaignInputs
    engine: Engine
    assemble: Assemble
    watcher: Watcher
    crew: Crew
    losses: Counter[int] = field(default_factory=Counter)

    def steps(self, trial: StoredTrial) -> Steps:
        """Do one ready trial, from its plan to its result in the archive."""
        self.archive.start_trial(trial.id)
        candidate = self._assembled(trial)
        if isinstance(candidate, Verdict):
            self.archive.finish_trial(trial.id, candidate)
        else:
            yield from self._candidate(trial, candidate)
        stored = self.archive.trial(trial.id)
        if stored.state is TrialState.DONE:
            self.watcher.finished(stored)

    def _candidate(self, trial: StoredTrial, candidate: Candidate) -> Steps:
        prints = {name: self.bench.families[name][0].fingerprint for name in trial.experts}
        self.archive.add_candidate(candidate, prints)
        # A replicate differs in the seed alone; the first seed is the same on every rung.
        again = (trial.replicate,) if trial.replicate else ()
        spec = self.spec.trial(derive(self.spec.seed, "trial", candidate.id, *again), trial.rung)
        known = self.archive.same_trial(candidate.id, spec, self.bench.data_fingerprint)
        if known is not None:
            predictions = (self.archive.predictions(known.id, split) for split in ("validation", "test"))
            self.archive.finish_trial(trial.id, copied_result(known, *predictions), copied_from=known.id)
            return
        try:
            result = yield from self._result(trial, candidate, spec)
        except EngineLostError as error:
            self.losses[trial.id] += 1
            if self.losses[trial.id] <= MOST_LOSSES:
                self.archive.requeue_trial(trial.id, reason=str(error))
                self.watcher.requeued(trial)
                self.watcher.note(f"trial {trial.position + 1} was lost and is tried again: {error}")
                return
            message = f"lost {self.losses[trial.id]} times, the last time so: {error}"
            verdict = Verdict(outcome=Outcome.CRASHED, rule="engine.lost", message=message)
            result = Trial(candidate_id=candidate.id, spec=spec, verdict=verdict)
        environment = {"nngen": __version__, **result.environment}
        result = replace(result, environment=environment, data_fingerprint=self.bench.data_fingerprint)
        self.archive.finish_trial(trial.id, result)

    def _result(self, trial: StoredTrial, candidate: Candidate, spec: TrialSpec) -> Generator[Job, Any, Trial]:
        """Check and train; a worker that was killed from outside counts as lost."""
        # The archive may hold what its check found, failures included.
        verdict: Verdict | None = self.archive.checked(candidate.id, self.spec.shape, self.bench.classes)
        if verdict is None:
            self.watcher.stage(trial, "check")
            verdict = _unless_killed((yield self._check(candidate)))
            self.archive.add_verdict(candidate.id, verdict, shape=self.spec.shape, classes=self.bench.classes)
        if not verdict.valid:
            return Trial(candidate_id=candidate.id, spec=spec, verdict=verdict)
        result: Trial = yield self._training(trial, candidate, spec)
        _unless_killed(result.verdict)
        return result

    def _assembled(self, trial: StoredTrial) -> Candidate | Verdict:
        self.watcher.stage(trial, "assemble")
        try:
            return self.assemble(trial.plan, [self.bench.families[name] for name in trial.experts])
        except (AssemblyError, FamilyError, PlanError) as error:
            return Verdict(outcome=Outcome.CONTRACT, rule="assembly", message=str(error))

    def _check(self, candidate: Candidate) -> Job:
        spec = self.spec

        def work() -> Verdict:
            job = CheckJob(
                candidate=candidate,
                shape=spec.shape,
                classes=self.bench.classes,
                device=spec.device,
                # Batches of four gain nothing from more, and a check is made beside a training.
                threads=1,
                memory_mib=spec.memory_mib,
            )
            return self.engine.check(job)

        return Job(work=work, training=False)

    def _training(self, trial: StoredTrial, candidate: Candidate, spec: TrialSpec) -> Job:
        crew, watcher = self.crew, self.watcher

        def note(result: EpochResult) -> None:
            told = {"epoch": result.epoch, "validation_accuracy": result.validation_accuracy}
            self.archive.log("trial.epoch", campaign=trial.campaign, trial_id=trial.id, **told)
            watcher.epoch(trial, result)

        def tell(result: EpochResult) -> None:
            # The last one is told by the result itself.
            if result.epoch < spec.epochs:
                crew.tell(lambda: note(result))
            else:
                crew.tell(lambda: watcher.epoch(trial, result))

        def work() -> Trial:
            crew.tell(lambda: watcher.stage(trial, "train"))
            return self.engine.train(TrainJob(candidate=candidate, spec=spec, dataset=self.bench.dataset), tell)

        return Job(work=work, training=True)


def _unless_killed(verdict: Verdict) -> Verdict:
    """Give a verdict back, unless it says that the worker was killed from where nobody could see.

    Raises:
        EngineLostError: Then; the candidate may have had no part in it.
    """
    if verdict.rule == KILLED:
        raise EngineLostError(verdict.message)
    return verdict
