"""Candidate sources: given candidates with isolation and seeds, a user-defined source, and stopping rules."""

import hashlib
from dataclasses import dataclass, field, replace

import pytest

from nngen.archive import Archive, LoopRole, TrialState
from nngen.assembly.identity import TEMPLATE_VERSION
from nngen.campaign.budget import Budget
from nngen.campaign.protocols import CampaignInputs, CandidateSource, GivenCandidates, Suggestion
from nngen.errors import UsageError
from nngen.isolation.limits import Isolation
from nngen.plan import Plan
from nngen.seeds import derive
from nngen.testing.fakes import FakeEngine, fake_dataset
from nngen.testing.fakes import fake_campaign as campaign
from nngen.types import Candidate, Interface, Outcome


def outside(number):
    source = f"X = {number}\n"
    digest = hashlib.md5(source.encode()).hexdigest()
    return Candidate(id=digest, source=source, canonical=hashlib.sha256(source.encode()).hexdigest())


def given(*more, count=3):
    """Return files from outside, and further suggestions."""
    files = [Suggestion(plan=Plan(experts=()), candidate=outside(n)) for n in range(count)]
    return GivenCandidates(suggestions=(*files, *more))


@dataclass(slots=True, kw_only=True)
class Recording(FakeEngine):
    levels: list = field(default_factory=list)

    def check(self, job):
        self.levels.append(("check", job.isolation))
        return FakeEngine.check(self, job)

    def train(self, job, on_epoch=None):
        self.levels.append(("train", job.isolation))
        return FakeEngine.train(self, job, on_epoch)


def test_given_candidates_are_checked_and_trained_in_the_sandbox_whatever_they_claim(archive):
    engine = Recording()
    # A plan and a template version of its own do not make it nngen's.
    claimed = replace(outside(9), plan=Plan(experts=tuple("ABCD")), template_version=TEMPLATE_VERSION)
    source = given(Suggestion(plan=claimed.plan, candidate=claimed), count=1)
    summary = campaign(archive, engine=engine, source=source, sampler="files", size=2).run()
    assert summary.outcomes == {"valid": 2}
    assert sorted(engine.levels) == [("check", Isolation.SANDBOX)] * 2 + [("train", Isolation.SANDBOX)] * 2
    trials = archive.trials("one")
    assert [trial.candidate_id for trial in trials] == list(archive.campaign("one").candidates)
    assert trials[0].spec.seed == derive(0, "trial", trials[0].candidate_id)
    assert archive.candidate(trials[1].candidate_id).experts == tuple("ABCD")


def pinned(families, names=("ICNet", "MobileNetV3", "ShuffleNet", "SqueezeNet-2")):
    """Return LEMUR's own families with interfaces."""
    return {name: (families[name], Interface(low=32)) for name in names}


@pytest.mark.parametrize(("changed", "level"), [(False, Isolation.PROCESS), (True, Isolation.SANDBOX)])
def test_plans_run_at_the_level_of_their_families(archive, families, changed, level):
    known = pinned(families)
    if changed:  # one byte; the fingerprint still claims the original
        known["ICNet"] = (replace(families["ICNet"], source=families["ICNet"].source + "\n"), Interface(low=32))
    engine = Recording()
    inputs = CampaignInputs(families=known, dataset=fake_dataset())
    campaign(archive, engine=engine, inputs=inputs, size=1).run()
    assert engine.levels == [("check", level), ("train", level)]


def test_level_asked_for_holds_for_one_run_and_is_not_stored(archive):
    engine = Recording()
    arguments = {"source": given(), "sampler": "files", "size": 3}
    campaign(archive, engine=engine, isolation="process", budget=Budget(max_trials=1), **arguments).run()
    assert {level for _, level in engine.levels} == {Isolation.PROCESS}
    engine.levels.clear()
    campaign(archive, engine=engine, budget=Budget(max_trials=9), **arguments).run()
    assert {level for _, level in engine.levels} == {Isolation.SANDBOX}
    with pytest.raises(UsageError, match="unknown isolation"):
        campaign(archive, engine=engine, isolation="jail", **arguments).run()


def test_level_that_an_archive_claims_does_not_count(archive):
    campaign(archive, source=given(count=2), sampler="files", size=2, budget=Budget(max_trials=1)).run()
    archive._db.execute("DROP TRIGGER trials_states")
    archive._db.execute("UPDATE trials SET given_isolation = 'process' WHERE state = 'ready'")
    engine = Recording()
    campaign(archive, engine=engine, source=given(count=2), sampler="files", size=2, budget=Budget(max_trials=9)).run()
    assert engine.levels == [("check", Isolation.SANDBOX), ("train", Isolation.SANDBOX)]


def test_one_candidate_with_several_seeds(archive):
    source = GivenCandidates(
        suggestions=tuple(Suggestion(plan=Plan(experts=()), candidate=outside(0), seed=seed) for seed in (7, 8))
    )
    campaign(archive, source=source, sampler="judge", size=2).run()
    assert [trial.spec.seed for trial in archive.trials("one")] == [7, 8]


def test_given_candidates_take_rungs_finalists_and_budgets(archive):
    arguments = {"source": given(count=6), "sampler": "files", "size": 6, "rungs": (1, 2), "epochs": 2}
    arguments |= {"finalists": 1, "replicates": 2}
    first = campaign(archive, budget=Budget(max_trials=2), **arguments).run()
    assert (first.done, first.over) == (2, False)
    summary = campaign(archive, budget=Budget(max_trials=20), **arguments).run()
    assert (summary.over, [rung.trials for rung in summary.rungs]) == (True, [6, 2])
    again = [trial for trial in archive.trials("one") if trial.replicate]
    assert [trial.given for trial in again] == [True]
    assert len({trial.spec.seed for trial in archive.trials("one") if trial.position == again[0].position}) == 2


class Dying(FakeEngine):
    def train(self, job, on_epoch=None):
        if len(self.trained) == 1:
            raise KeyboardInterrupt
        return super().train(job, on_epoch)


def test_given_candidates_resume_from_the_archive_alone(archive, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        campaign(archive, engine=Dying(), source=given(), sampler="files", size=3).run()
    assert archive.counts("one")[TrialState.DONE] == 1
    campaign(archive, sampler="files", size=3).run()
    with Archive.open(tmp_path / "b.db") as calm:
        campaign(calm, source=given(), sampler="files", size=3).run()
        same = {"started_at": None, "finished_at": None}
        assert [replace(t, **same) for t in archive.trials("one")] == [replace(t, **same) for t in calm.trials("one")]


def test_a_campaign_is_resumed_only_with_its_own_candidates(archive):
    campaign(archive, source=given(count=2), sampler="files", size=2).run()
    with pytest.raises(UsageError, match="campaign one began with other candidates: choose another name"):
        campaign(archive, source=given(count=3), sampler="files", size=3).run()


def test_the_stage_of_a_loop_is_recorded_and_its_test_accuracy_stays_hidden(archive):
    stage = replace(campaign(archive, source=given(), sampler="judge", size=3), loop="l", cycle=2, role=LoopRole.JUDGE)
    assert stage.run().best.test_accuracy is None
    record = archive.campaign("one")
    assert (record.loop, record.cycle, record.role) == ("l", 2, LoopRole.JUDGE)


class Climbing(CandidateSource):
    """Source that proposes one quartet per turn: the next letter in place of the last one."""

    def suggest(self, record, trials, archive):
        if len(trials) >= record.spec.size:
            return ()
        return [Suggestion(plan=Plan(experts=("A", "B", "C", "DEFG"[len(trials)])), explored=False)]


def test_a_source_of_ones_own_is_asked_when_all_is_done(archive):
    engine = FakeEngine(trials={"E": Outcome.MEMORY})
    summary = campaign(archive, engine=engine, source=Climbing(), sampler="climbing", size=4).run()
    assert [trial.experts[3] for trial in archive.trials("one")] == list("DEFG")
    assert (summary.over, summary.failed) == (True, 1)


class After:
    """Stopping rule for a number of finished trials."""

    def __init__(self, archive, count):
        self.archive, self.count = archive, count

    def reason(self):
        return "enough" if self.archive.counts("one")[TrialState.DONE] >= self.count else None


def test_a_stopping_rule_ends_a_campaign_that_may_be_resumed(archive):
    stopped = replace(campaign(archive), stop_rules=(After(archive, 2),)).run()
    assert 2 <= stopped.done < 6
    assert archive.events("one")[-1].detail == {"by": "enough"}
    assert campaign(archive).run().over
