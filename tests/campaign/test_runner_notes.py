"""What a campaign says to its watcher, and what it stores, refuses and begins first."""

from dataclasses import replace

import pytest

from nngen import __version__
from nngen.analysis.ranking.fidelity import fidelity_note
from nngen.archive import CampaignRecord, TrialState
from nngen.assembly.identity import TEMPLATE_VERSION
from nngen.campaign import estimate
from nngen.campaign.budget import Budget
from nngen.campaign.executor import TrialExecutor
from nngen.campaign.protocols import GivenCandidates, Suggestion, Watcher
from nngen.campaign.successive_halving import promotions
from nngen.datasets.preprocessing import pooled_features
from nngen.errors import DataError, LemurError, UsageError
from nngen.families.profile import TrainingCost
from nngen.plan import Plan
from nngen.testing.fakes import FakeEngine, fake_assemble, fake_campaign, fake_dataset, fake_families, fake_inputs
from nngen.types import Outcome


class Heard(Watcher):
    def __init__(self):
        self.lines = []

    def note(self, line):
        self.lines.append(line)


def said(campaign):
    """Run a campaign and return what it noted."""
    heard = Heard()
    replace(campaign, watcher=heard).run()
    return heard.lines


def given(count=2):
    made = [fake_assemble(Plan(experts=tuple(f"{number}BCD")), ()) for number in range(count)]
    made = [replace(one, id=f"x{number}", canonical=f"x{number}") for number, one in enumerate(made)]
    return GivenCandidates(suggestions=tuple(Suggestion(plan=one.plan, candidate=one) for one in made))


ENOUGH = "an effect of each of 7 families needs at least 8 trained quartets: 10 are drawn"


def test_notes_before_the_first_training(archive):
    assert said(fake_campaign(archive, size=10)) == [ENOUGH]
    rungs = fake_campaign(archive, name="rungs", size=10, rungs=(1, 2))
    assert said(rungs) == [
        ENOUGH,
        f"the first rung decides which candidates go on, and {fidelity_note('digits', 1)}",
    ]
    assert said(fake_campaign(archive, name="long", size=10, rungs=(50, 60), epochs=60)) == [ENOUGH]
    assert said(rungs.baselines()) == []
    assert said(fake_campaign(archive, name="files", source=given(), sampler="files", size=2)) == []
    assert said(fake_campaign(archive, size=10)) == []
    # Of a sampler that learns the first turn alone is known.
    assert said(fake_campaign(archive, name="learns", size=10, sampler="adaptive")) == [ENOUGH]


def test_notes_on_what_other_campaigns_of_the_archive_showed(archive):
    parts = {"inputs": fake_inputs("ABCDEFGH")}
    fake_campaign(archive, size=30, engine=FakeEngine(checks={"G": Outcome.SHAPE}), **parts).run()
    lines = said(fake_campaign(archive, name="two", size=4, skip_known=True, exclude_low_yield=True, **parts))
    assert lines[0].startswith("low-yield, left out: G: 0 of 15 quartets trained")
    assert lines[1:] == [
        "30 quartets are known already and are not drawn again",
        "too few quartets (4) for an effect of each of 7 families: at least 8 must be trained (--size 8)",
    ]
    record, _ = fake_campaign(archive, name="three", size=4, exclude_low_yield=True, **parts).preview()
    assert (sorted(record.pool), sorted(record.left_out), record.known) == (list("ABCDEFH"), ["G"], 0)


def test_exclusions_leave_a_pool_of_at_least_four_families(archive):
    parts = {"inputs": fake_inputs("ABCDE"), "size": 5}
    fake_campaign(archive, engine=FakeEngine(checks={"A": Outcome.SHAPE, "B": Outcome.SHAPE}), **parts).run()
    fake_campaign(archive, name="two", exclude_low_yield=True, **parts | {"size": 1}).run()
    pool = archive.campaign("two").pool
    assert len(pool) >= 4


def test_a_campaign_that_grows_says_what_becomes_of_its_options(archive):
    fake_campaign(archive, size=4).run()
    assert said(fake_campaign(archive, size=9)) == ["extended: --size 4 becomes 9"]
    assert said(fake_campaign(archive, size=9, epochs=4)) == [
        "extended: --epochs 2 becomes 4, --rungs becomes 2,4, --reduction-factor 3 becomes 1"
    ]
    assert said(fake_campaign(archive, size=9, epochs=4, note="x")) == ["extended: --note becomes x"]
    assert said(fake_campaign(archive, size=9, epochs=4)) == []


def test_a_stored_campaign_has_its_inputs(archive):
    inputs = fake_inputs("ABCDE", left_out={"F": "too deep"}, dataset=fake_dataset(classes=12))
    run = fake_campaign(archive, inputs=inputs, size=1, loop="l", cycle=0)
    run.run()
    stored = archive.campaign("one")
    assert stored == CampaignRecord(
        spec=run.spec,
        pool={name: family.fingerprint for name, (family, _) in fake_families("ABCDE").items()},
        left_out={"F": "too deep"},
        data_fingerprint="d1",
        classes=12,
        nngen=__version__,
        loop="l",
        cycle=0,
        created_at=stored.created_at,
    )
    data = inputs.dataset
    assert archive.validation_labels("d1") == data.validation_labels.astype("<u2").tobytes()
    assert archive.image_features("d1") == b""
    replace(run, loop=None, cycle=None).baselines().run()
    assert archive.image_features("d1") == pooled_features(data.validation_images).tobytes()


def test_an_unknown_isolation_level_leaves_no_campaign(archive):
    with pytest.raises(UsageError, match="unknown isolation"):
        fake_campaign(archive, isolation="jail").run()
    assert archive.campaigns() == ()


def test_given_candidates_take_no_other_number(archive):
    fake_campaign(archive, source=given(), sampler="files", size=2).run()
    with pytest.raises(UsageError, match="campaign one is of 2 given candidates: no --size"):
        fake_campaign(archive, sampler="files", size=5).run()
    assert archive.campaign("one").spec.size == 2


def test_a_preview_is_refused_as_the_run_is(archive):
    fake_campaign(archive, size=3).run()
    with pytest.raises(DataError, match="data set digits has changed since campaign one began: choose another name"):
        fake_campaign(archive, inputs=fake_inputs(dataset=fake_dataset(fingerprint="d2"))).preview()
    with pytest.raises(LemurError, match="family G has changed since campaign one began: use the LEMUR it began with"):
        fake_campaign(archive, inputs=fake_inputs("ABCDEF")).preview()
    with pytest.raises(UsageError, match="began with --lr"):
        fake_campaign(archive, lr=0.5).preview()
    record, work = fake_campaign(archive, size=4).preview()
    assert (record.spec.size, len(work), archive.campaign("one").spec.size) == (4, 1, 3)


def test_open_quartets_of_older_templates_are_noted_when_a_campaign_goes_on(archive):
    def older(plan, experts):
        return replace(fake_assemble(plan, experts), template_version=TEMPLATE_VERSION + 1)

    fake_campaign(archive, assemble=older, budget=Budget(max_trials=2)).run()
    assert said(fake_campaign(archive, budget=Budget(max_trials=4))) == [
        f"candidates assembled with older templates: 2 with version {TEMPLATE_VERSION + 1}; "
        f"open quartets are assembled with version {TEMPLATE_VERSION}",
        *[f"the budget of 4 trials is used to {share}" for share in ("50%", "80%")],
        "the budget of 4 trials is spent; a larger --max-trials resumes the campaign",
    ]
    assert len(said(fake_campaign(archive, budget=Budget()))) == 1
    assert said(fake_campaign(archive)) == []


def test_the_highest_rung_is_trained_first_when_a_campaign_goes_on(archive):
    parts = {"size": 6, "rungs": (1, 2), "scheduler": "asha", "device": "cuda"}
    fake_campaign(archive, budget=Budget(max_trials=3), **parts).run()
    (promoted,) = archive.promote("one", promotions(archive.campaign("one").spec, archive.lines("one")))
    assert [trial.rung for trial in archive.trials("one", state=TrialState.READY)] == [0, 0, 0, 1]
    engine = FakeEngine()
    fake_campaign(archive, engine=engine, budget=Budget(), **parts).run()
    assert engine.trained[0] == archive.trial(promoted).candidate_id


@pytest.mark.parametrize(("device", "prepared"), [("cpu", 2), ("cuda", 1)])
def test_one_more_trial_is_prepared_beside_a_training_unless_it_is_on_a_card(archive, device, prepared):
    assembled, seen = [], []

    def assemble(plan, experts):
        assembled.append(plan)
        return fake_assemble(plan, experts)

    class Looking(FakeEngine):
        def train(self, job, on_epoch=None):
            seen.append(len(assembled))
            return super().train(job, on_epoch)

    fake_campaign(archive, engine=Looking(), assemble=assemble, device=device).run()
    assert seen[0] == prepared
    assert len(assembled) == 6


@pytest.mark.parametrize("broken", [False, True])
def test_the_threads_of_a_campaign_end_with_it(archive, monkeypatch, broken):
    closed = []
    close = TrialExecutor.close
    monkeypatch.setattr(TrialExecutor, "close", lambda executor: closed.append(executor) or close(executor))

    class Broken(FakeEngine):
        def train(self, job, on_epoch=None):
            raise ZeroDivisionError

    if broken:
        with pytest.raises(ZeroDivisionError):
            fake_campaign(archive, engine=Broken()).run()
    else:
        fake_campaign(archive).run()
    assert len(closed) == 1


@pytest.mark.parametrize("timed", [True, False])
def test_the_time_of_families_is_measured_with_one_note(archive, monkeypatch, timed):
    def training_costs(families, shape, *, progress=None, **_):
        cost = TrainingCost(weights_mib=1.0, image_mib=1.0, image_s=0.01, step_s=0.1)
        for done in range(3):
            progress(done, 2)
        return {family.name: cost for family, _ in families}

    monkeypatch.setattr(estimate, "training_costs", training_costs)
    lines = said(fake_campaign(archive, size=10, timed=timed))
    note = "measuring the time of 2 families, once for this machine and shape"
    assert lines == [ENOUGH, *([note] if timed else [])]
    assert said(fake_campaign(archive, size=10, timed=timed)) == []


def test_the_driver_looks_for_commands_once_a_second(archive, monkeypatch):
    asked = set()
    wait = TrialExecutor.wait
    monkeypatch.setattr(TrialExecutor, "wait", lambda executor, seconds: asked.add(seconds) or wait(executor, seconds))
    fake_campaign(archive, size=1).run()
    assert asked == {1.0}
