"""Campaign runner: results, resumption and kills at every write."""

import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest

from nngen.archive import Archive, TrialState
from nngen.campaign.protocols import Watcher
from nngen.errors import ArchiveError, AssemblyError, DataError, LemurError, UsageError
from nngen.seeds import derive
from nngen.space import draw
from nngen.testing.fakes import FakeEngine, fake_assemble, fake_dataset, fake_families, fake_inputs
from nngen.testing.fakes import fake_campaign as campaign
from nngen.types import Outcome


def essence(archive, name="one"):
    """Return the content that interruptions must not change: all but times and events."""
    volatile = {"started_at": None, "finished_at": None}
    return (
        [replace(trial, **volatile) for trial in archive.trials(name)],
        [replace(candidate, created_at="") for candidate in archive.candidates()],
        [archive.predictions(trial.id, "test") for trial in archive.trials(name)],
    )


def test_sample_assemble_check_train_store(archive):
    engine = FakeEngine()
    summary = campaign(archive, engine=engine).run()
    trials = archive.trials("one")
    assert [t.experts for t in trials] == list(draw("stratified", "ABCDEFG", 6, 0))
    assert [t.candidate_id for t in trials] == engine.trained
    assert all(t.spec.seed == derive(0, "trial", t.candidate_id) for t in trials)
    assert all(len(t.curve) == 2 and t.trained for t in trials)
    assert all(c.verdicts[0].valid and "" not in c.fingerprints for c in archive.candidates())
    assert (summary.total, summary.done, summary.failed) == (6, 6, 0)
    assert trials[0].data_fingerprint == "d1"


def test_the_best_is_chosen_on_validation_and_its_test_accuracy_revealed_once(archive):
    best = campaign(archive).run().best
    assert best.validation_accuracy == max(t.validation_accuracy for t in archive.trials("one"))
    predicted = np.frombuffer(archive.predictions(best.id, "test"), dtype="<u2")
    assert best.test_accuracy == (predicted == fake_dataset().test_labels).mean()
    assert campaign(archive).run().best == best
    assert [t.test_accuracy for t in archive.trials("one")].count(None) == 5
    assert [e.kind for e in archive.events("one")].count("test.revealed") == 1


def test_run_again_it_does_nothing_twice(archive):
    campaign(archive).run()
    before = essence(archive), archive.events("one")
    engine = FakeEngine()
    campaign(archive, engine=engine).run()
    assert (essence(archive), archive.events("one")) == before
    assert engine.trained == []


def test_failures_are_kept_with_what_explains_them(archive):
    def assemble(plan, experts):
        if "G" in plan.experts:
            raise AssemblyError("family G, line 3: no")
        return fake_assemble(plan, experts)

    engine = FakeEngine(checks={"A": Outcome.SHAPE}, trials={"B": Outcome.TIMEOUT})
    summary = campaign(archive, engine=engine, assemble=assemble, size=35).run()
    assert summary.outcomes == {"contract": 20, "shape": 10, "timeout": 4, "valid": 1}
    assert summary.failed == 34
    verdicts = {t.experts: t.verdict for t in archive.trials("one")}
    assert verdicts["A", "B", "C", "G"].message == "family G, line 3: no"
    assert verdicts["A", "B", "C", "D"].message == "A at 1x8x8 with 10 classes"
    assert len(engine.trained) == 5


def test_everything_failed(archive):
    summary = campaign(archive, engine=FakeEngine(checks=dict.fromkeys("ABCDEFG", Outcome.MEMORY))).run()
    assert summary.best is None
    assert summary.to_dict()["best"] is None
    assert summary.failed == 6


def test_another_campaign_takes_over_the_same_work(archive):
    engine = FakeEngine(checks={"A": Outcome.SHAPE})
    campaign(archive, engine=engine, size=20).run()
    again = FakeEngine()
    campaign(archive, engine=again, name="two", size=35).run()
    first = {t.experts: t for t in archive.trials("one")}
    shared = [t for t in archive.trials("two") if t.experts in first]
    assert len(shared) == 20
    assert all(t.copied_from == first[t.experts].id for t in shared)
    assert all(t.validation_accuracy == first[t.experts].validation_accuracy for t in shared)
    assert len(again.trained) == 15
    other = FakeEngine()
    campaign(archive, engine=other, name="three", size=20, seed=1).run()
    assert len(other.trained) + sum("A" in t.experts and not t.trained for t in archive.trials("three")) == 20


def test_under_a_longer_time_limit_what_ran_out_of_time_is_tried_again(archive):
    campaign(archive, engine=FakeEngine(trials={"A": Outcome.TIMEOUT}), size=20, time_limit_s=60.0).run()
    late = [trial.experts for trial in archive.trials("one") if not trial.trained]
    with pytest.raises(UsageError, match="another name, which takes over what was trained within its limit"):
        campaign(archive, size=20, time_limit_s=120.0).run()
    engine = FakeEngine()
    campaign(archive, engine=engine, name="two", size=20, time_limit_s=120.0).run()
    assert late
    assert [trial.experts for trial in archive.trials("two") if trial.copied_from is None] == late
    assert len(engine.trained) == len(late)


class Interrupting(FakeEngine):
    def train(self, *args, **kwargs):
        if len(self.trained) == 3:
            raise KeyboardInterrupt
        return super().train(*args, **kwargs)


def test_ctrl_c_puts_back_what_ran(archive, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        campaign(archive, engine=Interrupting()).run()
    assert [t.state for t in archive.trials("one")].count(TrialState.DONE) == 3
    assert not archive.trials("one", state=TrialState.RUNNING)
    campaign(archive).run()
    with Archive.open(tmp_path / "b.db") as undisturbed:
        campaign(undisturbed).run()
        assert essence(archive) == essence(undisturbed)


WRITES = ("BEGIN", "INSERT", "UPDATE", "COMMIT")


def run_in_child(path, left):
    """Run a campaign in a fork that kills itself before the write of that number; return whether it finished."""
    child = os.fork()
    if child == 0:

        def trace(statement):
            nonlocal left
            left -= statement.startswith(WRITES)
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        with Archive.open(path) as archive:
            archive._db.set_trace_callback(trace)
            small(archive).run()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def small(archive):
    return campaign(archive, size=2, inputs=fake_inputs("ABCDE"), engine=FakeEngine(checks={"A": Outcome.SHAPE}))


@pytest.fixture
def undisturbed(tmp_path):
    with Archive.open(tmp_path / "whole.db") as whole:
        summary = small(whole).run()
        assert summary.outcomes == {"valid": 1, "shape": 1}
        return essence(whole)


@pytest.mark.long
def test_killed_at_every_write_boundary_nothing_is_lost_or_repeated(tmp_path, undisturbed):
    Archive.open(tmp_path / "empty.db").close()
    boundaries = 0
    while True:
        path = tmp_path / f"{boundaries}.db"
        shutil.copy(tmp_path / "empty.db", path)
        through = run_in_child(path, boundaries)
        assert through or run_in_child(path, 10_000)
        with Archive.open(path) as archive:
            assert essence(archive) == undisturbed, boundaries
            assert archive._db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            assert not archive.trials(state=TrialState.RUNNING)
        if through:
            break
        boundaries += 1
    assert boundaries > 50


@pytest.mark.long
def test_killed_again_and_again(tmp_path, undisturbed):
    kills = 0
    while not run_in_child(tmp_path / "a.db", 40):
        kills += 1
    assert kills >= 2
    with Archive.open(tmp_path / "a.db") as archive:
        assert essence(archive) == undisturbed


def test_a_second_driver_is_refused(archive):
    with archive.lock("one"), pytest.raises(ArchiveError, match="being run by"):
        campaign(archive).run()
    assert archive.campaigns() == ()


def test_changed_families_or_data_are_refused(archive):
    campaign(archive).run()
    with pytest.raises(DataError, match="digits has changed"):
        campaign(archive, inputs=fake_inputs(dataset=fake_dataset(fingerprint="d2"))).run()
    families = fake_families("ABCDEFG")
    family, interface = families["C"]
    families["C"] = (replace(family, fingerprint="other"), interface)
    with pytest.raises(LemurError, match="family C has changed"):
        campaign(archive, inputs=fake_inputs(families=families)).run()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": 36}, "make only 35"),
        ({"sampler": "randm"}, "did you mean random"),
        ({"size": 0}, "from 1 to 1,000,000,000, not 0"),
    ],
)
def test_bad_arguments_leave_no_campaign(archive, arguments, words):
    with pytest.raises(UsageError, match=words):
        campaign(archive, **arguments).run()
    assert archive.campaigns() == ()


class Diary(Watcher):
    def __init__(self):
        self.lines = []

    def note(self, line):
        self.lines.append(line)

    def begin(self, name, work):
        self.lines.append(f"{name} {work.done}/{work.trials}")

    def stage(self, trial, stage):
        self.lines.append(stage)

    def epoch(self, trial, result):
        self.lines.append(f"epoch {result.epoch}")

    def finished(self, trial):
        self.lines.append(trial.verdict.outcome.value)


def test_a_watcher_receives_every_step(archive):
    diary = Diary()
    campaign(archive, size=1, watcher=diary).run()
    assert diary.lines[0].startswith("too few quartets (1) for an effect")
    assert diary.lines[1:] == ["one 0/1", "assemble", "check", "train", "epoch 1", "epoch 2", "valid"]


def test_a_biased_plan_is_noted_before_it_is_run(archive):
    diary = Diary()
    campaign(archive, sampler="lexicographic", size=10, watcher=diary).run()
    assert diary.lines[0] == "biased: every quartet contains A and B: nothing can be said about quartets without them"


@pytest.mark.parametrize("more", [{}, {"scheduler": "asha", "rungs": (1, 3), "epochs": 3}], ids=["plain", "asha"])
@pytest.mark.long
def test_a_trial_costs_the_archive_the_same_at_any_size(tmp_path, more):
    """Counted in thousands of steps of SQLite's machine, which scans of all trials would multiply."""

    def steps_per_trial(size):
        with Archive.open(tmp_path / f"{size}.db") as archive:
            count = 0

            def step():
                nonlocal count
                count += 1

            archive._db.set_progress_handler(step, 100)
            inputs = fake_inputs([f"F{number:02}" for number in range(12)])
            summary = campaign(archive, size=size, sampler="random", inputs=inputs, **more).run()
            archive._db.set_progress_handler(None, 0)
            return count / summary.done

    assert steps_per_trial(400) < 1.3 * steps_per_trial(100)
