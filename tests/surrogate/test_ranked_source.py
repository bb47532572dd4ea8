"""The sampler ``surrogate`` and the draw that checks a ranking, in campaigns of fakes."""

import json
import math
from dataclasses import replace

import pytest

from nngen.archive import Archive
from nngen.campaign_spec import ALONE
from nngen.errors import UsageError
from nngen.space import find_sampler
from nngen.space.adaptive import SURROGATE
from nngen.space.pool import Pool
from nngen.space.registry import Scores
from nngen.surrogate.experts import joint_accuracies, load_experts
from nngen.surrogate.ranking import rank_mixtures
from nngen.surrogate.source import DrawnQuartets, stratified
from nngen.testing.fakes import fake_campaign, fake_inputs

NAMES = "ABCDEFGHI"


@pytest.fixture
def archive():
    with Archive.in_memory() as archive:
        yield archive


def alone(archive, **changes):
    inputs = fake_inputs(NAMES)
    fake_campaign(archive, name="experts", sampler=ALONE, size=9, reveal=False, inputs=inputs, **changes).run()
    experts = load_experts(archive)
    return rank_mixtures(experts, joint_accuracies(archive, experts))


def by_rank(ranking, quartet, by="mean_probabilities"):
    order = [tuple(ranking.experts.families[m] for m in ranking.mixtures[n]) for n in ranking.order(by)]
    return order.index(tuple(sorted(quartet)))


def test_a_campaign_takes_the_top_of_the_ranking_and_explores_a_share(archive):
    ranking = alone(archive)
    campaign = fake_campaign(archive, sampler=SURROGATE, size=12, min_explore=0.25, inputs=fake_inputs(NAMES))
    campaign.run()
    trials = archive.trials("one")
    quartets = [tuple(sorted(trial.experts)) for trial in trials]
    assert len(set(quartets)) == 12
    explored = [
        flag
        for event in archive.events("one", kinds=("campaign.created", "campaign.extended"))
        for flag in event.detail["explored"]
    ]
    assert sum(explored) == 3
    # The first turn has no joint training to learn from: its choices are the top of the default score.
    chosen = [quartet for quartet, flag in zip(quartets, explored, strict=True) if not flag]
    assert [by_rank(ranking, quartet) for quartet in chosen[:2]] == [0, 1]


def test_later_turns_are_those_of_a_campaign_that_was_not_stopped(archive):
    alone(archive)
    whole = fake_campaign(archive, name="whole", sampler=SURROGATE, size=15, inputs=fake_inputs(NAMES))
    whole.run()
    with Archive.in_memory() as other:
        alone(other)
        parts = fake_campaign(other, name="whole", sampler=SURROGATE, size=9, inputs=fake_inputs(NAMES))
        parts.run()
        replace(parts, spec=replace(parts.spec, size=15)).run()
        assert [trial.experts for trial in other.trials("whole")] == [
            trial.experts for trial in archive.trials("whole")
        ]


def test_without_families_alone_the_command_that_trains_them_is_named(archive):
    with pytest.raises(UsageError, match="nngen experts train --dataset digits --epochs 2"):
        fake_campaign(archive, sampler=SURROGATE, inputs=fake_inputs(NAMES)).run()
    assert archive.campaigns() == ()


def test_elsewhere_than_in_a_campaign_it_is_refused():
    with pytest.raises(UsageError, match="surrogate ranks by families that an archive holds"):
        find_sampler(SURROGATE).choose(Pool.of("ABCDE"), 2, 0, Scores())


def test_a_draw_over_the_whole_ranking(archive):
    ranking = alone(archive)
    drawn = stratified(ranking, "mean_probabilities", 12, 0)
    ranks = sorted(by_rank(ranking, quartet) for quartet in drawn)
    size = len(ranking.mixtures)
    assert len(set(drawn)) == 12 and size == 126
    top = math.ceil(0.01 * size)
    assert ranks[:top] == list(range(top))
    assert sum(rank < math.ceil(0.1 * size) for rank in ranks) == top + 4 or sum(rank < 13 for rank in ranks) >= 6
    assert stratified(ranking, "mean_probabilities", 12, 0) == drawn != stratified(ranking, "mean_probabilities", 12, 1)
    assert len(set(stratified(ranking, "stacking", 126, 0))) == 126
    with pytest.raises(UsageError, match="127 quartets were asked for, but 126 of the ranking are not trained yet"):
        stratified(ranking, "stacking", 127, 0)


def test_drawn_quartets_fill_a_campaign_as_it_grows(archive):
    ranking = alone(archive)
    drawn = stratified(ranking, "mean_probabilities", 6, 0)
    main = fake_campaign(
        archive, sampler=SURROGATE, size=4, inputs=fake_inputs(NAMES), source=DrawnQuartets(quartets=drawn[:4])
    )
    main.run()
    grown = replace(main, spec=replace(main.spec, size=6), source=DrawnQuartets(quartets=drawn[4:]))
    grown.run()
    assert [trial.experts for trial in archive.trials("one")] == list(drawn)
    # What is trained is not drawn again.
    experts = load_experts(archive)
    again = rank_mixtures(experts, joint_accuracies(archive, experts))
    assert not set(stratified(again, "mean_probabilities", 120, 0)) & set(drawn)
    assert json.dumps(archive.campaign("one").arguments())
