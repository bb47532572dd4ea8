"""Executor of trials: concurrency, lost trials, killed workers."""

import itertools
import threading
from collections import Counter
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest

from nngen.archive import Archive, TrialState
from nngen.campaign.executor import MAX_LOSSES, TrialExecutor
from nngen.campaign.protocols import Watcher
from nngen.campaign.summary import read_status
from nngen.campaign.weights import WeightFolders
from nngen.errors import EngineLostError
from nngen.plan import Plan
from nngen.testing.fakes import FakeEngine, fake_assemble, fake_record
from nngen.testing.fakes import fake_campaign as campaign
from nngen.training.engine import KILLED
from nngen.types import Outcome, Trial, Verdict


def essence(archive):
    return [replace(trial, started_at=None, finished_at=None) for trial in archive.trials("one")]


class Together(FakeEngine):
    """Engine that waits, twice, until all its slots train at the same time."""

    def __init__(self, slots):
        super().__init__(slots=slots)
        self.meeting, self.met = threading.Barrier(slots, timeout=20), 0
        self.calls = itertools.count()

    def train(self, *args, **kwargs):
        if next(self.calls) < 2 * self.slots:
            self.meeting.wait()
            self.met += 1
        return super().train(*args, **kwargs)


def test_as_many_trainings_at_once_as_there_are_slots_and_the_same_archive(archive, tmp_path):
    engine = Together(slots=3)
    campaign(archive, engine=engine, size=12).run()
    assert engine.met >= 6
    with type(archive).open(tmp_path / "b.db") as alone:
        campaign(alone, size=12).run()
        assert essence(archive) == essence(alone)
        assert [c.id for c in archive.candidates()] == [c.id for c in alone.candidates()]


class Losing(FakeEngine):
    """Engine that loses trials with the family ``G`` a given number of times."""

    def __init__(self, times):
        super().__init__()
        self.times, self.lost = times, Counter()

    def train(self, job, on_epoch=None):
        candidate = job.candidate
        if "G" in candidate.plan.experts and self.lost[candidate.id] < self.times:
            self.lost[candidate.id] += 1
            raise EngineLostError("its machine went away")
        return super().train(job, on_epoch)


def test_a_lost_job_is_repeated(archive, tmp_path):
    engine = Losing(MAX_LOSSES)
    summary = campaign(archive, engine=engine).run()
    assert engine.lost and summary.outcomes == {"valid": 6}
    with type(archive).open(tmp_path / "b.db") as calm:
        campaign(calm).run()
        assert essence(archive) == essence(calm)
    reasons = [e.detail.get("reason") for e in archive.events("one") if e.kind == "trial.requeued"]
    assert reasons == ["its machine went away"] * engine.lost.total()
    assert read_status(archive, "one").lost == engine.lost.total() > 0


def test_a_job_lost_too_often_gets_a_verdict(archive):
    engine = Losing(100)
    campaign(archive, engine=engine).run()
    assert set(engine.lost.values()) == {MAX_LOSSES + 1}
    verdicts = [t.verdict for t in archive.trials("one") if "G" in t.experts]
    assert {(v.outcome, v.rule) for v in verdicts} == {(Outcome.CRASHED, "engine.lost")}
    assert "its machine went away" in verdicts[0].message
    assert not archive.trials("one", state=TrialState.RUNNING)


class Killed(FakeEngine):
    """Engine whose first two checks and first two trainings end with a worker killed from outside."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def _killed(self, what):
        self.calls[what] += 1
        return Verdict(outcome=Outcome.CRASHED, rule=KILLED, message="killed") if self.calls[what] <= 2 else None

    def check(self, *args, **kwargs):
        return self._killed("check") or super().check(*args, **kwargs)

    def train(self, job, on_epoch=None):
        verdict = self._killed("train")
        if verdict is not None:
            return Trial(candidate_id=job.candidate.id, spec=job.spec, verdict=verdict)
        return super().train(job, on_epoch)


def test_a_killed_worker_does_not_give_a_verdict(archive, tmp_path):
    engine = Killed()
    assert campaign(archive, engine=engine).run().outcomes == {"valid": 6}
    assert engine.calls == {"check": 8, "train": 8}
    assert all(verdict.valid for stored in archive.candidates() for verdict in stored.verdicts)
    with type(archive).open(tmp_path / "b.db") as calm:
        campaign(calm).run()
        assert essence(archive) == essence(calm)


def executor(archive, engine, **arguments):
    """Return an executor of a stored campaign with its ready trials."""
    run = campaign(archive, engine=engine, **arguments)
    archive.add_campaign(
        fake_record("one", size=2, pool=dict.fromkeys("ABCDE", ""), classes=10),
        [Plan(experts=tuple("ABCD")), Plan(experts=tuple("ABCE"))],
    )
    made = TrialExecutor(
        archive.campaign("one"),
        archive=archive,
        inputs=run.inputs,
        engine=engine,
        assemble=run.assemble,
        watcher=run.watcher,
        weights=WeightFolders(None, run.spec, ()),
        finished=run.watcher.finished,
        lost=run.watcher.requeued,
    )
    for family, _ in run.inputs.families.values():
        archive.add_family(family)
    return made, archive.trials("one")


class Broken(FakeEngine):
    def train(self, job, on_epoch=None):
        raise ZeroDivisionError("broken")


def test_an_error_of_the_engine_is_raised_in_the_drivers_thread(archive):
    made, trials = executor(archive, Broken())
    made.begin(trials[0])
    made.wait(20)
    with pytest.raises(ZeroDivisionError, match="broken"):
        made.wait(20)
    with pytest.raises(ZeroDivisionError, match="broken"):
        campaign(archive, engine=Broken(), name="two").run()


def test_while_it_is_held_no_training_begins(archive):
    engine = FakeEngine(slots=2)
    made, trials = executor(archive, engine)
    made.suspended = True
    made.begin(trials[0])
    made.wait(20)
    made.wait(0.05)
    assert (engine.trained, made.open, made.busy) == ([], 1, 0)
    made.suspended = False
    while made.open:
        made.wait(20)
    assert (len(engine.trained), made.busy) == (1, 0)
    assert archive.trials("one")[0].trained


def test_results_that_arrive_together_share_a_transaction(archive):
    engine = Together(slots=3)
    commits = 0

    def trace(statement):
        nonlocal commits
        commits += statement.startswith("COMMIT")

    archive._db.set_trace_callback(trace)
    summary = campaign(archive, engine=engine, size=30, epochs=1).run()
    assert summary.outcomes == {"valid": 30}
    # Alone, a trial takes four: its start, its candidate, its verdict, its result.
    assert commits < 3 * 30


class Watching(Watcher):
    """Watcher that looks a result up in another connection when it is told of it."""

    def __init__(self, path):
        self.path, self.states = path, []

    def finished(self, trial):
        with Archive.open(self.path, readonly=True) as other:
            self.states.append(other.trial(trial.id).state)


def test_a_result_is_reported_when_others_can_read_it(archive):
    campaign(archive, engine=FakeEngine(slots=3), watcher=Watching(archive.path)).run()
    campaign(archive, name="copied", engine=FakeEngine(slots=3), watcher=(copies := Watching(archive.path))).run()
    assert copies.states == [TrialState.DONE] * 6


def test_a_trial_does_not_wait_for_those_that_are_assembled_after_it(archive, monkeypatch):
    monkeypatch.setattr("nngen.campaign.executor._TOGETHER_S", 0.0)
    ready = []

    def assemble(plan, experts):
        ready.append(archive.counts("one")[TrialState.READY])
        return fake_assemble(plan, experts)

    campaign(archive, size=4, engine=FakeEngine(slots=4), assemble=assemble).run()
    assert ready == [4, 3, 2, 1]


@pytest.fixture
def clock(monkeypatch):
    """Stand in for the clock of executors, which the test sets."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("nngen.campaign.executor.time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_what_is_assembled_begins_together_after_a_twentieth_of_a_second(archive, clock):
    made, (first, second) = executor(archive, FakeEngine(slots=2))
    made.begin(first)
    clock.now = 100.0 + 0.04
    assert (archive.counts("one")[TrialState.RUNNING], made.busy) == (0, 0)

    def assemble(plan, experts):
        clock.now = 100.0 + 0.05
        return fake_assemble(plan, experts)

    made._assemble = assemble
    made.begin(second)
    assert (archive.counts("one")[TrialState.RUNNING], made.busy) == (2, 2)
    while made.open:
        made.wait(20)


def test_results_share_a_transaction_for_a_twentieth_of_a_second(archive, clock):
    made, _ = executor(archive, FakeEngine())
    arrived = []

    def arrive(name, at):
        arrived.append(name)
        clock.now = at

    for name, at in (("a", 100.0), ("b", 100.04), ("c", 100.0 + 0.05), ("d", 200.0)):
        made._calls.put(partial(arrive, name, at))
    made.wait(20)
    assert arrived == ["a", "b", "c"]
    made.wait(20)
    assert arrived == ["a", "b", "c", "d"]


def test_the_watcher_is_told_of_a_lost_trial_before_the_reason(archive):
    told = []

    class Told(Watcher):
        def requeued(self, trial):
            told.append((trial.position, trial.rung))

        def note(self, line):
            if "lost" in line:
                told.append(line)

    engine = Losing(1)
    campaign(archive, engine=engine, watcher=Told()).run()
    lost = [trial.position for trial in archive.trials("one") if "G" in trial.experts]
    assert told == [
        one
        for position in lost
        for one in ((position, 0), f"trial {position + 1} was lost and is tried again: its machine went away")
    ]
