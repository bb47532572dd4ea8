"""Jobs that the executor gives to an engine, and the order in which it starts trainings and reports results."""

import threading
from dataclasses import replace
from queue import Empty
from types import SimpleNamespace

import pytest

from nngen import __version__
from nngen.archive import TrialState
from nngen.campaign.executor import TrialExecutor
from nngen.campaign.protocols import GivenCandidates, Suggestion, Watcher
from nngen.campaign.weights import WeightFolders
from nngen.errors import AssemblyError, EngineLostError
from nngen.isolation.limits import Isolation
from nngen.plan import Plan
from nngen.seeds import derive
from nngen.testing.fakes import FakeEngine, fake_assemble, fake_campaign
from nngen.training.engine import CheckJob, TrainJob
from nngen.training.state.checkpoints import TrialFolder
from nngen.types import EpochResult, Outcome, Verdict

WAIT_S = 60.0


@pytest.fixture(autouse=True)
def together(monkeypatch):
    """Let everything that is begun begin together, however slow the machine is."""
    monkeypatch.setattr("nngen.campaign.executor._TOGETHER_S", 600.0)


class Diary(Watcher):
    """Watcher that writes down what it is told of each trial."""

    def __init__(self):
        self.lines = []

    def note(self, line):
        self.lines.append(line)

    def stage(self, trial, stage):
        self.lines.append(f"{trial.id} {stage}")

    def epoch(self, trial, result):
        self.lines.append(f"{trial.id} epoch {result.epoch}")

    def requeued(self, trial):
        self.lines.append(f"{trial.id} requeued")

    def finished(self, trial):
        self.lines.append(f"{trial.id} {trial.verdict.outcome.value}")


class Recording(FakeEngine):
    """Engine that keeps its jobs; the first trainings wait until the test lets each of them go."""

    def __init__(self, held=False, slots=1):
        super().__init__(slots=slots)
        self.checks_done, self.trainings, self.let = [], [], threading.Semaphore(0 if held else 1000)

    def check(self, job):
        self.checks_done.append(job)
        return super().check(job)

    def train(self, job, on_epoch=None):
        self.trainings.append(job)
        assert self.let.acquire(timeout=WAIT_S)
        return super().train(job, on_epoch)


def executor(archive, engine, *, size=3, weights=False, early=None, assemble=fake_assemble, **changes):
    """Return an executor of a stored campaign, its trials, and the diary that it writes."""
    run = fake_campaign(archive, engine=engine, size=size, **changes)
    record = run.preview()[0]
    plans = [Plan(experts=tuple(f"ABC{name}")) for name in "DEFG"[:size]]
    archive.add_campaign(record, plans)
    for family, _ in run.inputs.families.values():
        archive.add_family(family)
    diary = Diary()
    made = TrialExecutor(
        archive.campaign("one"),
        archive=archive,
        inputs=run.inputs,
        engine=engine,
        assemble=assemble,
        watcher=diary,
        weights=WeightFolders(archive.weights if weights else None, run.spec, ()),
        finished=diary.finished,
        lost=diary.requeued,
        early=early,
    )
    return made, archive.trials("one"), diary


def until(made, condition):
    while not condition():
        made.wait(WAIT_S)


def test_jobs_carry_the_settings_of_the_campaign(archive):
    engine = Recording()
    settings = {"threads": 3, "time_limit_s": 1000.0, "memory_mib": 2000, "hyperparameters": {"dropout": 0.5}}
    made, trials, _ = executor(archive, engine, size=1, weights=True, keep_weights="none", **settings)
    made.begin(trials[0])
    until(made, lambda: not made.open)
    (trial,) = archive.trials("one")
    candidate = fake_assemble(trials[0].plan, [made._inputs.families[name] for name in "ABCD"])
    spec = made._record.spec.trial(derive(0, "trial", candidate.id))
    level = Isolation.SANDBOX
    assert engine.checks_done == [
        CheckJob(
            candidate=candidate,
            shape=spec.shape,
            classes=10,
            hyperparameters={"dropout": 0.5},
            device="cpu",
            threads=1,
            time_limit_s=60.0,
            memory_mib=2000,
            isolation=level,
        )
    ]
    (job,) = engine.trainings
    folder = TrialFolder(path=archive.weights / f"trial-{trial.id}", note=job.folder.note)
    assert job == TrainJob(candidate=candidate, spec=spec, dataset=made._inputs.dataset, isolation=level, folder=folder)
    assert trial.environment == {"nngen": __version__, "engine": "fake"}
    assert (trial.data_fingerprint, trial.spec) == ("d1", spec)


def test_a_check_takes_no_longer_than_its_training_may(archive):
    engine = Recording()
    made, trials, _ = executor(archive, engine, size=1, time_limit_s=7.0)
    made.begin(trials[0])
    until(made, lambda: not made.open)
    assert engine.checks_done[0].time_limit_s == 7.0


def test_the_next_training_begins_before_the_result_of_the_last_is_stored_and_never_more_than_there_are_slots(archive):
    engine = Recording(held=True)
    made, trials, diary = executor(archive, engine)
    for waiting, trial in enumerate(trials):
        made.begin(trial)
        until(made, lambda waiting=waiting: (len(made._waiting), made.busy) == (waiting, 1))
    for left in (2, 1, 0):
        engine.let.release()
        until(made, lambda left=left: made.open == left)
        assert made.busy == min(1, left)
    assert [line for line in diary.lines if "epoch" not in line] == [
        *["1 assemble", "1 check", "1 train", "2 assemble", "2 check", "3 assemble", "3 check"],
        *["2 train", "1 valid", "3 train", "2 valid", "3 valid"],
    ]
    epochs = [(event.trial_id, event.detail) for event in archive.events("one", kinds=("trial.epoch",))]
    first = {trial.id: trial.curve[0] for trial in archive.trials("one")}
    assert epochs == [
        (number, {"epoch": 1, "validation_accuracy": point.validation_accuracy, "train_loss": point.train_loss})
        for number, point in first.items()
    ]


def test_a_training_begins_as_soon_as_its_check_is_done(archive):
    made, trials, diary = executor(archive, Recording(held=True))
    made.begin(trials[0])
    made.wait(WAIT_S)
    assert (made.busy, diary.lines) == (1, ["1 assemble", "1 check", "1 train"])
    made._engine.let.release()
    until(made, lambda: not made.open)


def test_after_a_trial_that_ends_without_a_check_nothing_is_waited_for(archive):
    def assemble(plan, experts):
        if "E" in plan.experts:
            raise AssemblyError("no")
        return fake_assemble(plan, experts)

    made, trials, diary = executor(archive, Recording(), assemble=assemble)
    asked = []

    def get(timeout):
        asked.append(timeout)
        raise Empty

    made._calls = SimpleNamespace(get=get, put=lambda _: None)
    made.wait(5.5)
    made.begin(trials[1])
    made.wait(6.5)
    made.begin(trials[0])
    made.wait(7.5)
    assert asked == [5.5, 0, 7.5]
    assert diary.lines == ["2 assemble", "2 contract", "1 assemble", "1 check"]
    made.close()


@pytest.mark.parametrize(("together_s", "ready"), [(0.0, [4, 3, 2, 1]), (600.0, [4, 4, 4, 4])])
def test_trials_that_are_assembled_within_a_moment_begin_together(archive, monkeypatch, together_s, ready):
    monkeypatch.setattr("nngen.campaign.executor._TOGETHER_S", together_s)
    seen = []

    def assemble(plan, experts):
        seen.append(archive.counts("one")[TrialState.READY])
        return fake_assemble(plan, experts)

    made, trials, _ = executor(archive, Recording(), size=4, assemble=assemble)
    for trial in trials:
        made.begin(trial)
    assert seen == ready
    until(made, lambda: not made.open)


def test_threads_end_when_it_is_closed(archive):
    made, trials, _ = executor(archive, Recording())
    before = set(threading.enumerate())
    made.begin(trials[0])
    until(made, lambda: not made.open)
    threads = [thread for thread in threading.enumerate() if thread not in before]
    assert threads and all(thread.name.startswith("trial") for thread in threads)
    made.close()
    for thread in threads:
        thread.join(timeout=WAIT_S)
    assert not any(thread.is_alive() for thread in threads)


class Losing(Recording):
    """Engine that loses every training."""

    def train(self, job, on_epoch=None):
        raise EngineLostError("its machine went away")


def test_a_lost_trial_is_tried_again_three_times(archive):
    made, trials, diary = executor(archive, Losing(), size=1)
    for _ in range(3):
        made.begin(archive.trial(trials[0].id))
        until(made, lambda: not made.open)
        assert archive.trial(trials[0].id).state is TrialState.READY
    made.begin(archive.trial(trials[0].id))
    until(made, lambda: not made.open)
    verdict = archive.trial(trials[0].id).verdict
    assert verdict == Verdict(
        outcome=Outcome.CRASHED, rule="engine.lost", message="lost 4 times, the last time so: its machine went away"
    )
    lost = ["1 requeued", "trial 1 was lost and is tried again: its machine went away"]
    again = ["1 assemble", "1 train"]
    assert diary.lines == ["1 assemble", "1 check", "1 train", *lost, *again, *lost, *again, *lost, *again, "1 crashed"]
    assert (made.busy, len(made._engine.checks_done)) == (0, 1)


def point(epoch, accuracy, seconds=1.5):
    return EpochResult(epoch=epoch, validation_accuracy=accuracy, seconds=seconds)


class Scripted(FakeEngine):
    """Engine that reports given epochs."""

    def __init__(self, points):
        super().__init__()
        self.points = points

    def train(self, job, on_epoch=None):
        for one in self.points:
            on_epoch(one)
        return super().train(job)


@pytest.mark.parametrize("replicate", [0, 1])
def test_a_rule_sees_each_curve_and_ends_a_training_with_the_epochs_so_far(archive, replicate):
    asked = []

    def reason(rung, accuracies):
        asked.append((rung, list(accuracies)))
        return "ended early, enough" if accuracies[-1] == 0.1 else None

    # After two epochs a smaller batch begins anew.
    points = [point(1, 0.3), point(2, 0.4), point(1, 0.5, 2.0), point(2, 0.1, 4.0), point(3, 0.9)]
    made, trials, _ = executor(archive, Scripted(points), size=1, epochs=3, early=SimpleNamespace(reason=reason))
    made.begin(replace(trials[0], replicate=replicate))
    until(made, lambda: not made.open)
    trial = archive.trial(trials[0].id)
    if replicate:
        assert (asked, trial.suspect, len(trial.curve)) == ([], "", 3)
        return
    assert asked == [(0, [0.3]), (0, [0.3, 0.4]), (0, [0.5]), (0, [0.5, 0.1])]
    assert (trial.outcome, trial.suspect) == (Outcome.VALID, "ended early, enough")
    assert [(one.epoch, one.validation_accuracy) for one in trial.curve] == [(1, 0.5), (2, 0.1)]
    assert (trial.validation_accuracy, trial.seconds, trial.batch) == (0.1, 6.0, 64)
    assert trial.isolation == "sandbox"


FOREIGN = "the file was not assembled by nngen, so the state of its training is not known"


def outside():
    """Return a source of one file from outside, with a seed of its own."""
    candidate = replace(fake_assemble(Plan(experts=tuple("ABCD")), ()), source="X = 1\n")
    return GivenCandidates(suggestions=(Suggestion(plan=candidate.plan, candidate=candidate, seed=5),))


@pytest.mark.parametrize(
    ("source", "epochs", "foreign"), [(outside(), 1, ""), (outside(), 2, FOREIGN), (None, 2, "")], ids=range(3)
)
def test_the_state_of_a_file_from_outside_is_not_known(archive, source, epochs, foreign):
    engine, sampler = Recording(), "files" if source else "stratified"
    fake_campaign(archive, engine=engine, source=source, sampler=sampler, size=1, epochs=epochs).run()
    assert [job.folder.foreign for job in engine.trainings] == [foreign]


def test_replicates_of_a_given_seed_have_seeds_derived_from_it(archive):
    fake_campaign(archive, source=outside(), sampler="files", size=1, finalists=1, replicates=3).run()
    seeds = [5, derive(5, "replicate", 1), derive(5, "replicate", 2)]
    assert [trial.spec.seed for trial in archive.trials("one")] == seeds


def test_a_candidate_is_assembled_for_each_rung_and_checked_once(archive):
    diary = Diary()
    fake_campaign(archive, size=1, rungs=(1, 2), device="cuda", watcher=diary).run()
    assert [line for line in diary.lines if line[0].isdigit()] == [
        *["1 assemble", "1 check", "1 train", "1 epoch 1", "1 valid"],
        *["2 assemble", "2 train", "2 epoch 1", "2 epoch 2", "2 valid"],
    ]


@pytest.mark.parametrize("outcome", [Outcome.MEMORY, Outcome.SHAPE])
def test_a_failure_of_a_family_alone_is_taken_over_without_logits(archive, outcome):
    parts = {"trials": {"A": outcome}} if outcome is Outcome.MEMORY else {"checks": {"A": outcome}}
    main = fake_campaign(archive, engine=FakeEngine(**parts))
    main.run()
    main.baselines().run()
    engine = FakeEngine()
    again = fake_campaign(archive, name="two", engine=engine)
    again.run()
    again.baselines().run()
    first, second = (archive.trials(f"{name}-alone-2") for name in ("one", "two"))
    assert [trial.copied_from for trial in second] == [trial.id for trial in first]
    assert second[0].outcome is outcome
    assert engine.trained == []


def test_a_trial_that_failed_has_no_curve_and_no_accuracy(archive):
    made, trials, diary = executor(archive, FakeEngine(checks={"E": Outcome.SHAPE}), size=2)
    made.begin(trials[1])
    until(made, lambda: not made.open)
    trial = archive.trial(trials[1].id)
    assert (trial.outcome, trial.curve, trial.validation_accuracy) == (Outcome.SHAPE, (), None)
    assert diary.lines == ["2 assemble", "2 check", "2 shape"]
    assert (made.busy, made.open) == (0, 0)
