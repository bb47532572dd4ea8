"""Driver of a campaign: begins its trials, decides on longer ones, and stores every result."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from nngen.analysis.ranking.early_stop import EarlyStop
from nngen.archive.records import CampaignRecord, NewTrial, StoredTrial, TrialLine, TrialState
from nngen.archive.store import Archive
from nngen.campaign.budget import BudgetTracker, last_budget
from nngen.campaign.commands import Command, CommandListener
from nngen.campaign.estimate import Pace, measure_pace
from nngen.campaign.executor import TrialExecutor
from nngen.campaign.protocols import CampaignInputs, CandidateSource, Suggestion
from nngen.campaign.successive_halving import Ladder, workload
from nngen.campaign.weights import WeightFolders

if TYPE_CHECKING:
    from nngen.campaign.runner import Campaign

_POLL_S = 1.0


class StopReason(enum.Enum):
    """Why a driver ended."""

    FINISHED = enum.auto()  # all trials are done and none is to come
    COMMAND = enum.auto()  # ``nngen campaign stop``
    RULE = enum.auto()  # a budget or another stopping rule
    INTERRUPTED = enum.auto()  # Ctrl-C


def new_trials(archive: Archive, inputs: CampaignInputs, suggestions: Sequence[Suggestion]) -> list[NewTrial]:
    """Turn suggestions into trials; ready-made candidates are stored first."""
    trials = []
    with archive.together():
        for item in suggestions:
            if item.candidate is None:
                trials.append(NewTrial(plan=item.plan))
            else:
                archive.add_candidate(item.candidate, inputs.fingerprints)
                trials.append(NewTrial(plan=item.plan, candidate_id=item.candidate.id, seed=item.seed))
    return trials


class Driver:
    """Keeps the engine busy until a stored and locked campaign ends.

    Nobody else writes the campaign's trials, so they are read once: what changes is kept up to date in ``ladder`` and
    ``ready``, at the same cost for the first trial and the last.
    """

    def __init__(self, campaign: Campaign, record: CampaignRecord, source: CandidateSource) -> None:
        archive, name = campaign.archive, record.name
        self.campaign, self.record, self.source = campaign, record, source
        lines = archive.lines(name)
        self.ladder = Ladder(record.spec, lines)
        # Trials to begin, as (negative rung, id): the highest rung comes first.
        self.ready = [(-line.rung, line.id) for line in lines if line.state is TrialState.READY]
        heapify(self.ready)
        self.weights = WeightFolders(archive.weights, record.spec, lines)
        self.early = None
        if record.spec.stop_early:
            self.early = EarlyStop(record.spec, archive.trials(name, state=TrialState.DONE))
        self.executor = TrialExecutor(
            record,
            archive=archive,
            inputs=campaign.inputs,
            engine=campaign.engine,
            assemble=campaign.assemble,
            watcher=campaign.watcher,
            weights=self.weights,
            isolation=campaign.isolation,
            early=self.early,
            finished=self._finished,
            lost=self._lost,
        )
        self.listener = CommandListener(archive, name)
        budget = campaign.budget or last_budget(archive.events(name, kinds=("budget.set",)))
        self.budget = BudgetTracker(archive, name, budget, campaign.watcher, self.ladder)
        self.paused = False
        self.stop: StopReason | None = None
        self.cause = ""
        pace = self._pace(lines)
        campaign.watcher.begin(name, workload(record.spec, lines, pace.of if pace else None))

    def _pace(self, lines: Sequence[TrialLine]) -> Pace | None:
        """Return the seconds of an epoch by family, for those of the trials to come; None where they are not known."""
        campaign, spec = self.campaign, self.record.spec
        names = {name for line in lines if line.state is not TrialState.DONE for name in line.experts}
        if not campaign.timed or not names:
            return None

        def report(done: int, total: int) -> None:
            if not done:
                campaign.watcher.note(f"measuring the time of {total} families, once for this machine and shape")

        return measure_pace(campaign.archive, spec, campaign.inputs, names, wanted=campaign.isolation, progress=report)

    def drive(self) -> StopReason:
        """Run the loop; returns when nothing is left to be done, or when it was stopped and nothing trains."""
        executor = self.executor
        while True:
            self._check_stop()
            executor.suspended = self.paused or self.stop is not None
            if not executor.suspended:
                self._fill()
            if self.stop is not None and not executor.busy:
                return self.leave(self.stop)
            if not executor.suspended and not executor.open:
                return self.leave(StopReason.FINISHED)
            executor.wait(_POLL_S)

    def _finished(self, trial: StoredTrial) -> None:
        self.ladder.finish(trial)
        if self.early is not None:
            self.early.finish(trial)
        self.weights.finish(trial, self.ladder.finalists)
        self.campaign.watcher.finished(trial)

    def _lost(self, trial: StoredTrial) -> None:
        heappush(self.ready, (-trial.rung, trial.id))
        self.campaign.watcher.requeued(trial)

    def _check_stop(self) -> None:
        """Look for reached budgets, other stopping rules and commands from another process."""
        if self.stop is not None:
            return
        watcher, listener = self.campaign.watcher, self.listener
        for rule in (self.budget, *self.campaign.stop_rules):
            if (cause := rule.reason()) is not None:
                self.stop, self.cause = StopReason.RULE, cause
                return
        command = listener.command()
        if command is Command.STOP:
            self.stop, self.cause = StopReason.COMMAND, "command"
            again = ""
            if listener.interrupted:
                self.stop, again = StopReason.INTERRUPTED, "; Ctrl-C again requeues them and ends at once"
            watcher.note(f"ending: running trainings are finished, prepared ones are requeued{again}")
        elif command is Command.PAUSE and not self.paused:
            self.paused = True
            self.budget.pause()
            self.campaign.archive.log("campaign.paused", campaign=self.record.name)
            watcher.note("paused: running trainings are finished, none begins")
        elif command is Command.RESUME and self.paused:
            self.paused = False
            self.campaign.archive.log("campaign.continued", campaign=self.record.name)
            self.budget.resume()
            watcher.note("resumed")

    def _fill(self) -> None:
        """Begin trials until the engine is busy, with one more prepared."""
        # On a card, a check beside a training could take the memory that the training needs.
        ahead = 1 if self.record.spec.device == "cpu" else 0
        while self.executor.open < self.campaign.engine.slots + ahead:
            self._look()
            if not self.ready or not self.budget.room(self.executor.open):
                return
            self.executor.begin(self.campaign.archive.trial(heappop(self.ready)[1]))

    def _look(self) -> None:
        """Add promotions to the ready trials, and suggestions where nothing else is left to be done."""
        spec, archive, name = self.record.spec, self.campaign.archive, self.record.name
        # ASHA promotes as results come in; halving, and a source, wait until nothing runs.
        eager = spec.scheduler == "asha" and len(spec.fidelities) > 1
        resting = not self.ready and not self.executor.open
        if (eager or resting) and (chosen := self.ladder.promotions()):
            for trial_id in archive.promote(name, chosen):
                self._add(archive.trial(trial_id))
        elif resting and (suggestions := self.source.suggest(self.record, archive.lines(name), archive)):
            explored = [item.explored for item in suggestions]
            for trial_id in archive.add_trials(
                name, new_trials(archive, self.campaign.inputs, suggestions), explored=explored
            ):
                self._add(archive.trial(trial_id))

    def _add(self, trial: StoredTrial) -> None:
        self.ladder.add(trial.position, trial.rung, trial.replicate)
        heappush(self.ready, (-trial.rung, trial.id))

    def leave(self, reason: StopReason) -> StopReason:
        """Requeue what has no result and store the reason of the end."""
        archive, name = self.campaign.archive, self.record.name
        self.budget.pause()
        archive.requeue(name)
        if reason is not StopReason.INTERRUPTED and self.ladder.over:
            reason = StopReason.FINISHED  # the last trial was also what reached the limit
        if reason is StopReason.FINISHED:
            # Once for each end: a campaign that is over may grow and end again.
            ends = archive.events(name, kinds=("campaign.finished",))
            if not ends or ends[-1].detail.get("trials") != self.ladder.total:
                archive.log("campaign.finished", campaign=name, trials=self.ladder.total)
        elif reason is StopReason.INTERRUPTED:
            archive.log("campaign.interrupted", campaign=name)
        else:
            archive.log("campaign.stopped", campaign=name, by=self.cause)
        return reason
