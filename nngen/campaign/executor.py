"""Runs the trials of a campaign: assemble, check, train and store each of them.

Checks and trainings wait for the engine in threads. Everything else, all reading and writing of the archive included,
happens in the driver's thread, which calls ``wait`` to receive results in the order in which they arrive.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import TypeVar

from nngen import __version__
from nngen.analysis.ranking.early_stop import EarlyStop, EndedEarlyError, is_ended
from nngen.archive.records import CampaignRecord, StoredTrial, copied_result
from nngen.archive.store import Archive
from nngen.assembly.provenance import source_level
from nngen.campaign.protocols import Assemble, CampaignInputs, Watcher
from nngen.campaign.weights import WeightFolders
from nngen.errors import AssemblyError, EngineLostError, FamilyError, PlanError
from nngen.families.trust import AUTO, LevelChoice, families_level
from nngen.isolation.limits import Isolation
from nngen.seeds import derive
from nngen.training.engine import KILLED, CheckJob, Engine, TrainJob
from nngen.training.state.checkpoints import TrialFolder
from nngen.types import Candidate, EpochResult, Outcome, Trial, TrialSpec, Verdict

MAX_LOSSES = 3
"""Times that a trial lost by the engine is tried again; after that it gets a verdict."""

_CHECK_S = 60.0  # time limit of a check in seconds; a shorter limit of the trial is that of its check too

_MAX_THREADS = 4096  # upper bound only: threads start as jobs need them, and the slots of the engine limit the jobs

_TOGETHER_S = 0.05
"""Seconds in which results that arrive share a transaction; another process waits so long for the archive."""

Result = TypeVar("Result", Trial, Verdict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """A started trial with its candidate."""

    trial: StoredTrial
    candidate: Candidate
    spec: TrialSpec
    isolation: Isolation

    @property
    def logits(self) -> bool:
        """Whether the logits are kept: those of families alone, to be compared with mixtures of them."""
        return self.trial.plan.kind == "single" and not self.trial.given


class TrialExecutor:
    """Carries out trials, several at once; at most ``engine.slots`` of them train at the same time.

    Args:
        weights: Folders of checkpoints and weights.
        early: Rule that ends trainings early; None where each runs to its end.
        finished: Receives each trial when its result is stored.
        lost: Receives each trial that the engine lost and that is ready again.

    Attributes:
        open: Number of trials that have begun and have no result yet.
        busy: Number of jobs that the engine works on.
        suspended: While set, no training begins; running ones continue.
    """

    def __init__(
        self,
        record: CampaignRecord,
        *,
        archive: Archive,
        inputs: CampaignInputs,
        engine: Engine,
        assemble: Assemble,
        watcher: Watcher,
        weights: WeightFolders,
        finished: Callable[[StoredTrial], None],
        lost: Callable[[StoredTrial], None],
        early: EarlyStop | None = None,
        isolation: str = AUTO,
    ) -> None:
        self.open = self.busy = 0
        self.suspended = False
        self._record, self._archive, self._inputs, self._engine = record, archive, inputs, engine
        self._assemble, self._watcher, self._fingerprints = assemble, watcher, inputs.fingerprints
        self._wanted, self._finished, self._lost, self._weights = isolation, finished, lost, weights
        self._early = early
        self._losses: Counter[int] = Counter()
        self._training = 0
        self._waiting: deque[_Work] = deque()
        self._assembled: deque[tuple[StoredTrial, _Work | Verdict]] = deque()
        self._since = 0.0  # time at which the first of these was begun
        self._results: deque[int] = deque()
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._threads = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="trial")

    def begin(self, trial: StoredTrial) -> None:
        """Begin a ready trial; ``wait`` stores its result."""
        self.open += 1
        self._since = self._since if self._assembled else time.monotonic()
        # Assembling, and the level of a source, take longer than others should wait for the archive.
        try:
            candidate = self._candidate(trial)
        except (AssemblyError, FamilyError, PlanError) as error:
            verdict = Verdict(outcome=Outcome.CONTRACT, rule="assembly", message=str(error))
            self._assembled.append((trial, verdict))
        else:
            work = _Work(
                trial=trial,
                candidate=candidate,
                spec=self._record.spec.trial(self._seed(trial, candidate), trial.rung),
                isolation=self._level(trial, candidate).level,
            )
            self._assembled.append((trial, work))
        if time.monotonic() >= self._since + _TOGETHER_S:
            self._start_checks()

    def wait(self, timeout_s: float) -> None:
        """Wait for the next epochs and results, at most so long, and store them.

        Raises:
            NngenError: Whatever the engine raised, except for a lost job.
        """
        ended = self._start_checks()
        self._start_trainings()
        try:
            call = self._calls.get(timeout=0 if ended else timeout_s)
        except Empty:
            return
        # What has arrived meanwhile shares the transaction: at hundreds of slots the disk would set the pace otherwise.
        end = time.monotonic() + _TOGETHER_S
        with self._together():
            call()
            while not self._calls.empty() and time.monotonic() < end:
                self._calls.get()()

    def close(self) -> None:
        """Abandon jobs that have not begun; running ones end with their engine."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    # The steps of a trial

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Store what a block writes in one transaction, then report the results in it."""
        with self._archive.together():
            yield
        while self._results:
            self._finished(self._archive.trial(self._results.popleft()))

    def _start_checks(self) -> bool:
        """Begin the checks of what was assembled; returns whether a trial ended without one."""
        if not self._assembled:
            return False
        before = self.open
        with self._together():
            while self._assembled:
                trial, work = self._assembled.popleft()
                self._archive.start_trial(trial.id)
                if isinstance(work, Verdict):
                    self._finish(trial, work)
                else:
                    self._check(work)
        return self.open < before

    def _candidate(self, trial: StoredTrial) -> Candidate:
        if trial.given and trial.candidate_id is not None:
            return self._archive.candidate(trial.candidate_id)
        self._watcher.stage(trial, "assemble")
        return self._assemble(trial.plan, [self._inputs.families[name] for name in trial.experts])

    def _check(self, work: _Work) -> None:
        """Begin the check of a candidate, unless the archive knows its verdict, or the whole result."""
        trial, candidate = work.trial, work.candidate
        if not trial.given:
            self._archive.add_candidate(candidate, self._fingerprints)
        same = self._archive.same_trial(candidate.id, work.spec, self._record.data_fingerprint)
        same = None if same is not None and is_ended(same) else same
        logits = self._archive.logits(same.id) if same is not None and work.logits else b""
        if same is not None and (logits or not work.logits or not same.trained):
            validation, test = (self._archive.predictions(same.id, split) for split in ("validation", "test"))
            self._finish(trial, copied_result(same, validation, test, logits), copied_from=same.id)
            return
        # The archive may hold the verdict of an earlier check, failures included.
        verdict = self._archive.checked(candidate.id, work.spec.shape, self._record.classes)
        if verdict is not None:
            self._admit(work, verdict)
            return
        self._watcher.stage(trial, "check")
        job = CheckJob(
            candidate=candidate,
            shape=work.spec.shape,
            classes=self._record.classes,
            hyperparameters=work.spec.hyperparameters,
            device=work.spec.device,
            # Batches of four gain nothing from more, and a check runs beside a training.
            threads=1,
            time_limit_s=min(_CHECK_S, work.spec.time_limit_s),
            memory_mib=work.spec.memory_mib,
            isolation=work.isolation,
        )
        self._submit(partial(self._engine.check, job), partial(self._checked, work))

    def _level(self, trial: StoredTrial, candidate: Candidate) -> LevelChoice:
        """Choose the level from the sources themselves: nothing that the archive says of them raises it."""
        if trial.given:
            return source_level(candidate.source, self._wanted)
        return families_level((self._inputs.families[name][0] for name in trial.experts), self._wanted)

    def _seed(self, trial: StoredTrial, candidate: Candidate) -> int:
        # A replicate differs in the seed alone; the first seed is the same on every rung.
        again = (trial.replicate,) if trial.replicate else ()
        if trial.given_seed is not None:
            return derive(trial.given_seed, "replicate", *again) if again else trial.given_seed
        return derive(self._record.spec.seed, "trial", candidate.id, *again)

    def _checked(self, work: _Work, future: Future[Verdict]) -> None:
        self.busy -= 1
        verdict = self._result(work, future)
        if verdict is not None:
            self._archive.add_verdict(work.candidate.id, verdict, shape=work.spec.shape, classes=self._record.classes)
            self._admit(work, verdict)

    def _admit(self, work: _Work, verdict: Verdict) -> None:
        """Queue a candidate for training if its check found it valid."""
        if verdict.valid:
            self._waiting.append(work)
            self._start_trainings()
        else:
            self._store(work, Trial(candidate_id=work.candidate.id, spec=work.spec, verdict=verdict))

    def _start_trainings(self) -> None:
        while self._waiting and not self.suspended and self._training < self._engine.slots:
            work = self._waiting.popleft()
            self._training += 1
            self._watcher.stage(work.trial, "train")
            job = TrainJob(
                candidate=work.candidate,
                spec=work.spec,
                dataset=self._inputs.dataset,
                isolation=work.isolation,
                folder=self._folder(work),
                start=self._inputs.start,
                experts=self._inputs.expert_weights(work.trial.plan, work.trial.replicate),
                logits=work.logits,
            )

            self._submit(partial(self._train, work, job), partial(self._trained, work))

    def _train(self, work: _Work, job: TrainJob) -> Trial:
        """Train in a thread of its own, until the end or until the rule ends it."""
        points: list[EpochResult] = []

        def on_epoch(result: EpochResult) -> None:
            self._calls.put(partial(self._epoch, work, result))
            points[result.epoch - 1 :] = [result]  # a smaller batch begins anew
            accuracies = [point.validation_accuracy for point in points]
            if self._early is not None and not work.trial.replicate:
                reason = self._early.reason(work.trial.rung, accuracies)
                if reason is not None:
                    raise EndedEarlyError(reason)

        try:
            return self._engine.train(job, on_epoch)
        except EndedEarlyError as end:
            return Trial(
                candidate_id=work.candidate.id,
                spec=work.spec,
                verdict=Verdict(outcome=Outcome.VALID),
                validation_accuracy=points[-1].validation_accuracy,
                curve=tuple(points),
                seconds=sum(point.seconds for point in points),
                batch=work.spec.batch,
                isolation=work.isolation.value,
                suspect=str(end),
            )

    def _folder(self, work: _Work) -> TrialFolder | None:
        """Return the folder of a trial's checkpoint and weights."""
        trial, foreign = work.trial, ""
        # Of a file from outside it is not known where it keeps its state.
        if trial.given and source_level(work.candidate.source).level is not Isolation.PROCESS:
            foreign = "the file was not assembled by nngen, so the state of its training is not known"

        def note(line: str) -> None:
            self._calls.put(partial(self._watcher.note, f"trial {trial.position + 1} {line}"))

        stored = work.spec.epochs > 1 or work.spec.horizon is not None
        return self._weights.folder(trial, foreign=foreign if stored else "", note=note)

    def _epoch(self, work: _Work, result: EpochResult) -> None:
        trial = work.trial
        # The last epoch is stored with the result itself.
        if result.epoch < work.spec.epochs:
            shown = {name: getattr(result, name) for name in ("validation_accuracy", "train_accuracy", "train_loss")}
            detail = {name: value for name, value in shown.items() if value is not None}
            self._archive.log("trial.epoch", campaign=trial.campaign, trial_id=trial.id, epoch=result.epoch, **detail)
        self._watcher.epoch(trial, result)

    def _trained(self, work: _Work, future: Future[Trial]) -> None:
        self.busy -= 1
        self._training -= 1
        # The slot is filled before the result is stored, so that the engine does not wait for the disk.
        self._start_trainings()
        result = self._result(work, future)
        if result is not None:
            self._store(work, result)

    def _store(self, work: _Work, result: Trial) -> None:
        environment = {"nngen": __version__, **result.environment}
        fingerprint = self._record.data_fingerprint
        self._finish(work.trial, replace(result, environment=environment, data_fingerprint=fingerprint))

    def _finish(self, trial: StoredTrial, result: Trial | Verdict, *, copied_from: int | None = None) -> None:
        self.open -= 1
        self._archive.finish_trial(trial.id, result, copied_from=copied_from)
        self._results.append(trial.id)

    # Jobs of the engine

    def _submit(self, job: Callable[[], Result], then: Callable[[Future[Result]], None]) -> None:
        """Run a job in a thread; ``then`` receives its future in the driver's thread."""
        self.busy += 1
        future = self._threads.submit(job)
        future.add_done_callback(lambda done: self._calls.put(partial(then, done)))

    def _result(self, work: _Work, future: Future[Result]) -> Result | None:
        """Return the result of a job; None where the engine lost it, or the worker was killed from outside."""
        try:
            result = future.result()
            verdict = result if isinstance(result, Verdict) else result.verdict
            if verdict.rule == KILLED:
                raise EngineLostError(verdict.message)
        except EngineLostError as error:
            self._requeue(work, error)
            return None
        return result

    def _requeue(self, work: _Work, error: EngineLostError) -> None:
        """Requeue a lost trial; after too many losses, store a verdict."""
        trial = work.trial
        self._losses[trial.id] += 1
        if self._losses[trial.id] > MAX_LOSSES:
            message = f"lost {self._losses[trial.id]} times, the last time so: {error}"
            verdict = Verdict(outcome=Outcome.CRASHED, rule="engine.lost", message=message)
            self._store(work, Trial(candidate_id=work.candidate.id, spec=work.spec, verdict=verdict))
            return
        self.open -= 1
        self._archive.requeue_trial(trial.id, reason=str(error))
        self._lost(trial)
        self._watcher.note(f"trial {trial.position + 1} was lost and is tried again: {error}")
