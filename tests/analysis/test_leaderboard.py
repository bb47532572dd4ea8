"""Leaderboard: order, intervals and output."""

from dataclasses import replace
from functools import partial

import pytest

from nngen.analysis.leaderboard import brief_leaderboard, leaderboard, validation_images
from nngen.analysis.ranking.columns import columns_of
from nngen.analysis.ranking.fidelity import fidelity_note
from nngen.analysis.ranking.limits import limits, reliabilities, ties
from nngen.analysis.ranking.rows import Row, describe_fidelity
from nngen.archive import Archive
from nngen.testing.fakes import FakeEngine, fake_campaign
from nngen.text import listed
from nngen.types import Outcome

stats = pytest.importorskip("scipy.stats")


@pytest.fixture
def archive():
    with Archive.in_memory() as opened:
        for seed in range(3):
            engine = FakeEngine(trials={"G": Outcome.TIMEOUT})
            fake_campaign(opened, name=f"seed{seed}", seed=seed, size=35, engine=engine).run()
        yield opened


@pytest.fixture
def trials(archive):
    return archive.trials()


def test_seeds_of_one_candidate_are_one_row(trials):
    rows = leaderboard(trials)
    assert len(rows) == 15
    assert {row.seeds for row in rows} == {3}
    assert [row.rank for row in rows] == list(range(1, 16))
    means = [row.validation_accuracy for row in rows]
    assert means == sorted(means, reverse=True)
    mine = [t.validation_accuracy for t in trials if t.candidate_id == rows[0].id]
    assert rows[0].validation_accuracy == pytest.approx(sum(mine) / 3)
    assert rows[0].validation_std > 0
    assert rows[0].parameters > 1000


def test_only_revealed_test_accuracies_are_shown(trials):
    shown = {row.id: row.test_accuracy for row in leaderboard(trials) if row.test_accuracy is not None}
    revealed = {t.candidate_id for t in trials if t.test_accuracy is not None}
    assert shown.keys() == revealed
    assert 1 <= len(shown) <= 3


def test_data_sets_are_ranked_apart(trials):
    other = [replace(t, id=t.id + 1000, spec=replace(t.spec, dataset="mnist")) for t in trials if t.spec]
    rows = [row for row in leaderboard([*trials, *other]) if row.rank <= 2]
    assert [(row.dataset, row.rank) for row in rows] == [("digits", 1), ("digits", 2), ("mnist", 1), ("mnist", 2)]


def test_the_same_work_twice_is_one_seed(trials):
    again = [replace(t, id=t.id + 1000, test_accuracy=None) for t in trials]
    assert leaderboard([*trials, *again]) == leaderboard(trials)


def test_a_batch_that_was_halved_is_a_row_of_its_own(trials):
    best = leaderboard(trials)[0]
    halved = [replace(t, id=t.id + 1000, batch=8) if t.candidate_id == best.id else t for t in trials]
    both = [row for row in leaderboard([*trials, *halved]) if row.id == best.id]
    assert {(row.batch, row.seeds) for row in both} == {(best.batch, 3), (8, 3)}


def test_a_part_of_the_train_split_is_a_row_of_its_own(trials):
    best = leaderboard(trials)[0]
    part = [replace(t, id=t.id + 1000, spec=replace(t.spec, train_size=100)) for t in trials if t.spec]
    rows = leaderboard([*trials, *part])
    both = [(row.train_size, row.seeds) for row in rows if row.id == best.id]
    assert sorted(both, key=str) == [(100, 3), (None, 3)]
    assert "train_size" in [column.name for column in columns_of(rows)]
    assert "train_size" not in [column.name for column in columns_of(leaderboard(trials))]


def test_only_rows_of_one_fidelity_are_ranked_together(trials):
    """Another batch, rate, number of epochs or version of the data is another list, the longest training first."""
    first = leaderboard(trials)
    for name, value in {"epochs": 9, "lr": 0.5, "momentum": 0.1, "batch": 7}.items():
        other = [replace(t, id=t.id + 1000, spec=replace(t.spec, **{name: value})) for t in trials if t.spec]
        rows = leaderboard([*trials, *other])
        assert [row.rank for row in rows] == [*range(1, 16)] * 2
        lists = [{getattr(row, name) for row in part} for part in (rows[:15], rows[15:])]
        assert sorted(lists, key=max) == sorted([{value}, {getattr(first[0], name)}], key=max)
        assert name != "epochs" or lists[0] == {9}
        assert name in {column.name for column in columns_of(rows)}
    newer = [replace(t, id=t.id + 1000, data_fingerprint="f" * 64) for t in trials]
    rows = leaderboard([*trials, *newer])
    assert [row.rank for row in rows] == [*range(1, 16)] * 2
    assert "data" in {column.name for column in columns_of(rows)} - {column.name for column in columns_of(first)}


def test_rows_that_cannot_be_told_from_the_best_are_ties(trials):
    one = [t for t in trials if t.campaign == "seed0"]
    rows = leaderboard(one, images=lambda _: 100)
    best = rows[0]
    assert (best.images, best.validation_half, best.rank_low) == (100, None, 1)
    found = stats.binomtest(round(100 * best.validation_accuracy), 100).proportion_ci(method="wilson")
    assert (best.validation_low, best.validation_high) == pytest.approx((found.low, found.high), abs=0.01)
    tied = [row.id[:13] for row in rows[1:] if row.rank_low == 1]
    assert 0 < len(tied) < 14
    assert best.among == f"1 to {best.rank_high}" and best.rank_high <= 1 + len(tied)
    place, more = "digits at 1x8x8, 2 epochs, batch 64, rate 0.001", "more cannot be told from the best (95 %)"
    assert ties(rows) == (f"{place}: {len(tied)} {more}: {listed(tied, 5)}",)
    assert all(row.rank_low <= row.rank <= row.rank_high for row in rows)
    alone = leaderboard(one)
    assert {(row.among, row.rank_high) for row in alone} == {(None, None)}
    assert "among" not in [column.name for column in columns_of(alone)]


def test_a_leaderboard_states_its_limits(trials):
    rows = leaderboard(trials, images=lambda _: 100)
    ((best, found),) = reliabilities(rows)
    assert (best.rank, found.candidates, found.replicated, found.assumed) == (1, 15, 15, False)
    assert limits(rows)[-2:] == (f"{describe_fidelity(best)}: {found.sentence}", fidelity_note("digits", 2))
    suspect = [replace(t, suspect="perfect") if t.candidate_id == best.id else t for t in trials]
    ((_, without),) = reliabilities(leaderboard(suspect))
    assert without.candidates == 14


@pytest.mark.parametrize("campaign", [None, "seed1"])
@pytest.mark.parametrize("top", [1, 4, 15, 99])
def test_the_first_rows_are_those_of_the_whole_leaderboard_and_so_are_its_limits(archive, campaign, top):
    if campaign is None:
        fake_campaign(archive, name="longer", epochs=3, size=9).run()
    whole = leaderboard(archive.scores(campaign), images=partial(validation_images, archive))
    brief = brief_leaderboard(archive, campaign, top)
    assert [row for row in brief if isinstance(row, Row)] == [row for row in whole if row.rank <= top]
    assert [(place.id, place.rank, place.rank_low) for place in brief] == [(r.id, r.rank, r.rank_low) for r in whole]
    assert limits(brief) == limits(whole) != ()


def test_nothing_trained():
    assert leaderboard([]) == ()
