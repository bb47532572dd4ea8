"""Baselines: the families of a campaign alone, at its fidelity, with what is left of its budget."""

from dataclasses import dataclass, field

import pytest

from nngen.archive import TrialState
from nngen.campaign.budget import Budget, Usage
from nngen.campaign.summary import summarise
from nngen.campaign_spec import ALONE
from nngen.errors import UsageError
from nngen.plan import Plan
from nngen.testing.fakes import FakeEngine, fake_campaign
from nngen.types import Outcome


@dataclass(slots=True, kw_only=True)
class Counting(FakeEngine):
    """Engine that notes which trainings keep their logits."""

    logits: list = field(default_factory=list)

    def train(self, job, on_epoch=None):
        self.logits.append((len(job.candidate.plan.experts), job.logits, job.spec.epochs, job.spec.train_size))
        return FakeEngine.train(self, job, on_epoch)


def test_each_family_is_trained_alone_at_the_fidelity_of_the_campaign(archive):
    engine = Counting()
    main = fake_campaign(archive, engine=engine, rungs=(1, 3), epochs=3, train_size=60)
    main.run()
    del engine.logits[:]
    summary = main.baselines().run()
    assert (summary.name, summary.done, summary.coverage, summary.over) == ("one-alone-3", 7, None, True)
    assert engine.logits == [(1, True, 3, 60)] * 7
    trials = archive.trials("one-alone-3")
    assert [trial.plan for trial in trials] == [Plan(experts=()).alone(name) for name in "ABCDEFG"]
    for trial in trials:
        assert len(archive.logits(trial.id)) == 2 * 10 * len(archive.predictions(trial.id, "validation")) / 2
        assert trial.test_accuracy is None
    labels = main.inputs.dataset.validation_labels.astype("<u2").tobytes()
    assert archive.validation_labels(main.inputs.dataset.fingerprint) == labels
    assert archive.logits(archive.trials("one")[0].id) == b""


def test_families_have_as_many_seeds_as_finalists(archive):
    main = fake_campaign(archive, finalists=2, replicates=3)
    main.run()
    summary = main.baselines().run()
    assert summary.done == 21
    assert len({trial.spec.seed for trial in archive.trials("one-alone-2")}) == 21


def test_a_pool_that_was_narrowed_is_that_of_the_baselines(archive):
    fake_campaign(archive, name="before", size=35, engine=FakeEngine(trials={"A": Outcome.MEMORY})).run()
    main = fake_campaign(archive, exclude_low_yield=True, seed=4)
    main.run()
    assert sorted(trial.experts for trial in (main.baselines().run(), archive.trials("one-alone-2"))[1]) == [
        (name,) for name in "BCDEFG"
    ]


class KilledError(BaseException):
    pass


def test_baselines_resume_where_they_were_killed(archive):
    main = fake_campaign(archive)
    main.run()

    class Dying(FakeEngine):
        def train(self, job, on_epoch=None):
            if len(self.trained) == 3:
                raise KilledError
            return FakeEngine.train(self, job, on_epoch)

    with pytest.raises(KilledError):
        fake_campaign(archive, engine=Dying()).baselines().run()
    states = [trial.state for trial in archive.trials("one-alone-2")]
    assert states.count(TrialState.DONE) == 3
    engine = FakeEngine()
    assert fake_campaign(archive, engine=engine).baselines().run().done == 7
    assert len(engine.trained) == 4


def test_a_result_without_logits_is_not_taken_over(archive):
    main = fake_campaign(archive)
    main.run()
    main.baselines().run()
    again = fake_campaign(archive, name="two", engine=Counting(), seed=0)
    again.run()
    assert again.baselines().run().done == 7
    assert again.engine.logits == []  # whole results are
    copied = archive.trials("two-alone-2")
    assert all(trial.copied_from for trial in copied)
    assert archive.logits(copied[0].id) == archive.logits(copied[0].copied_from)


def test_what_is_left_of_a_budget():
    used = Usage(trials=6, hours=2.0, cost=None)
    assert Budget().less(used) == Budget()
    assert Budget(max_trials=10, max_hours=2.5).less(used) == Budget(max_trials=4, max_hours=0.5)
    assert Budget(max_hours=2.0).less(used) is None


def test_a_spent_budget_leaves_no_baselines(archive):
    main = fake_campaign(archive, budget=Budget(max_trials=6))
    main.run()
    assert main.baselines() is None
    assert fake_campaign(archive, budget=Budget(max_trials=8)).baselines().run().done == 2
    assert fake_campaign(archive, budget=Budget(max_trials=13)).baselines().run().over


def test_before_the_campaign_there_are_none(archive):
    with pytest.raises(UsageError, match="one"):
        fake_campaign(archive).baselines()


def test_quartets_are_read_without_the_families_alone(archive):
    main = fake_campaign(archive, rungs=(1, 2))
    main.run()
    main.baselines().run()
    assert archive.campaign("one-alone-2").spec.sampler == ALONE
    assert summarise(archive, "one").done == len(archive.trials("one"))


def test_a_campaign_that_grew_has_baselines_at_its_new_fidelity(archive):
    main = fake_campaign(archive)
    main.run()
    main.baselines().run()
    grown = fake_campaign(archive, epochs=4)
    assert grown.run().over
    summary = grown.baselines().run()
    assert (summary.name, summary.done) == ("one-alone-4", 7)
    assert {trial.spec.epochs for trial in archive.trials("one-alone-4")} == {4}
    assert len(archive.trials("one-alone-2")) == 7
