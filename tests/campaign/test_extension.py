"""Campaigns that grow: further quartets, a further rung, further seeds; what was trained stays as it was."""

import pytest

from nngen.errors import UsageError
from nngen.space import draw
from nngen.testing.fakes import FakeEngine
from nngen.testing.fakes import fake_campaign as campaign


def kinds(archive):
    return [event.kind for event in archive.events("one")]


@pytest.mark.parametrize("sampler", ["stratified", "balanced", "random", "lexicographic"])
def test_more_quartets_continue_the_order(archive, sampler):
    campaign(archive, size=4, sampler=sampler).run()
    before = [trial for trial in archive.trials("one") if trial.test_accuracy is None]
    summary = campaign(archive, size=9, sampler=sampler).run()
    trials = archive.trials("one")
    assert summary.done == 9
    assert [trial.experts for trial in trials] == list(draw(sampler, "ABCDEFG", 9, 0))
    assert {trial.id: trial for trial in trials}.items() >= {trial.id: trial for trial in before}.items()
    assert archive.campaign("one").spec.size == 9
    assert kinds(archive).count("campaign.finished") == 2
    (change,) = archive.events("one", kinds=("campaign.changed",))
    assert change.detail == {"size": 9}


def test_a_note_may_change_and_has_no_effect(archive):
    campaign(archive, size=4, note="first try").run()
    before = archive.trials("one")
    campaign(archive, size=4).run()
    assert archive.campaign("one").spec.note == "first try"
    campaign(archive, size=4, note="kept for the paper").run()
    assert archive.campaign("one").spec.note == "kept for the paper"
    assert archive.trials("one") == before


def test_a_sampler_that_learns_goes_on(archive):
    campaign(archive, size=4, sampler="adaptive").run()
    assert campaign(archive, size=10, sampler="adaptive").run().done == 10
    assert len({trial.experts for trial in archive.trials("one")}) == 10


def test_quartets_of_an_order_that_changed_are_not_tried_twice(archive):
    campaign(archive, name="other", size=2, sampler="lexicographic", seed=1).run()
    campaign(archive, size=3, sampler="lexicographic", skip_known=True).run()
    campaign(archive, name="third", size=20, sampler="lexicographic").run()
    campaign(archive, size=8, sampler="lexicographic", skip_known=True).run()
    quartets = [trial.experts for trial in archive.trials("one")]
    assert len(set(quartets)) == len(quartets) == 8


def test_more_epochs_are_a_further_rung_for_every_candidate(archive):
    first = campaign(archive, size=5, epochs=2).run()
    summary = campaign(archive, size=5, epochs=4).run()
    assert [(rung.epochs, rung.trials) for rung in summary.rungs] == [(2, 5), (4, 5)]
    assert summary.best.spec.epochs == 4
    assert first.best.spec.epochs == 2
    again = campaign(archive, engine=(engine := FakeEngine()), size=5, epochs=4)
    with pytest.raises(UsageError, match="--reduction-factor"):
        campaign(archive, size=5, epochs=4, rungs=(2, 4)).run()
    assert (again.run().total, engine.trained) == (10, [])


def test_a_campaign_with_rungs_gets_another_and_more_quartets_pass_all_of_them(archive):
    campaign(archive, size=6, epochs=3, rungs=(1, 3)).run()
    summary = campaign(archive, size=12, epochs=9, rungs=(1, 3, 9)).run()
    assert [(rung.epochs, rung.trials) for rung in summary.rungs] == [(1, 12), (3, 4), (9, 1)]
    assert summary.over


def test_more_seeds_of_the_finalists(archive):
    campaign(archive, finalists=2, replicates=2).run()
    campaign(archive, finalists=2, replicates=4).run()
    again = sorted(trial.replicate for trial in archive.trials("one") if trial.replicate)
    assert again == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("more", "message"),
    [({"size": 36}, "make only 35"), ({"lr": 0.5}, "began with --lr 0.001"), ({"size": 2}, "may grow")],
)
def test_what_cannot_be_is_refused_and_nothing_is_changed(archive, more, message):
    campaign(archive, size=3).run()
    before = archive.events("one"), archive.campaign("one")
    with pytest.raises(UsageError, match=message):
        campaign(archive, **{"size": 3} | more).run()
    assert (archive.events("one"), archive.campaign("one")) == before


def test_an_extension_that_is_killed_goes_on(archive):
    class Dying(FakeEngine):
        def train(self, job, on_epoch=None):
            if len(self.trained) == 2:
                raise KeyboardInterrupt
            return super().train(job, on_epoch)

    campaign(archive, size=3).run()
    with pytest.raises(BaseException):  # noqa: B017
        campaign(archive, size=9, engine=Dying()).run()
    # Without arguments, as "campaign run NAME" has them.
    stored = archive.campaign("one").spec
    assert stored.size == 9
    assert campaign(archive, size=9).run().done == 9


def test_a_learning_sampler_without_room_does_not_grow(archive):
    campaign(archive, size=4, sampler="adaptive").run()
    with pytest.raises(UsageError, match="36 new quartets were asked for, but only 35"):
        campaign(archive, size=36, sampler="adaptive").run()
    assert archive.campaign("one").spec.size == 4
