"""Agreement of rankings after few epochs with those after many."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fake_lemur import make_tree

from nngen.analysis.ranking import fidelity
from nngen.analysis.ranking.fidelity import Curve, agreements, by_family, curves_of, fidelity_note, published, ranks
from nngen.archive import Archive, TrialLine, TrialState
from nngen.testing.fakes import FakeEngine, fake_campaign, fake_record
from nngen.types import Record


def curves(count=30, noise=0.05, seed=0):
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        own = random.uniform(0.2, 0.9)
        points = {e: float(np.clip(own + random.normal(0, noise / e), 0, 1)) for e in range(1, 51)}
        found.append(Curve(model=f"Net{number % 20}", accuracies=points))
    return found


def test_tau_is_that_of_scipy_with_and_without_ties():
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(1)
    for levels in (5, 10**6):
        one, other = (random.integers(0, levels, 80) / levels for _ in range(2))
        other = np.where(random.random(80) < 0.5, one, other)
        tau, low, high = fidelity._tau(one, other, [str(place) for place in range(80)])
        assert tau == pytest.approx(stats.kendalltau(one, other).statistic, abs=1e-5)
        assert low < tau < high


def test_the_interval_is_that_of_a_plain_bootstrap():
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(2)
    one = random.normal(size=34)
    other = one + random.normal(size=34)
    _, low, high = fidelity._tau(one, other, [f"{place:02}" for place in range(34)])
    places = random.integers(0, 34, (1000, 34))
    taus = [stats.kendalltau(one[chosen], other[chosen]).statistic for chosen in places]
    assert (low, high) == pytest.approx(tuple(np.quantile(taus, (0.025, 0.975))), abs=0.04)


def test_families_and_runs_rank_better_with_epochs():
    found = agreements(curves())
    assert [(row.what, row.epochs) for row in found] == [
        (w, e) for w in ("families", "runs") for e in (1, 2, 5, 10, 20)
    ]
    families = found[:5]
    assert {(row.models, row.runs) for row in families} == {(20, 20)}
    assert {(row.models, row.runs) for row in found[5:]} == {(20, 30)}
    assert families[0].tau < families[-1].tau and families[-1].top >= families[0].top
    assert all(row.low <= row.tau <= row.high and row.regret >= 0 for row in found)


def test_runs_without_all_epochs_and_few_models_are_left_out():
    some = curves()
    assert agreements([*some, Curve(model="Short", accuracies={1: 0.9})]) == agreements(some)
    assert agreements(some[:4]) == []


def test_records_of_one_setting_are_one_curve():
    def record(epoch, accuracy, lr):
        return Record(
            model="A", dataset="d", epoch=epoch, accuracy=accuracy, duration_s=1.0, hyperparameters={"lr": lr}
        )

    found = curves_of([record(1, 0.3, 0.1), record(2, 0.4, 0.1), record(1, 0.5, 0.2), record(1, 0.6, 0.2)])
    assert [dict(curve.accuracies) for curve in found] == [{1: 0.3, 2: 0.4}, {1: 0.6}]
    assert by_family(found, (1, 2)) == [Curve(model="A", accuracies={1: 0.6, 2: 0.4})]
    assert by_family(found, (3,)) == []


def test_rungs_of_own_campaigns():
    with Archive.in_memory() as archive:
        fake_campaign(
            archive, name="steps", size=35, rungs=(1, 3), epochs=3, reduction_factor=3, engine=FakeEngine()
        ).run()
        found = fidelity.rung_agreements(archive.campaigns(), archive.lines())
    assert [(row.what, row.epochs, row.last, row.runs) for row in found] == [("steps", 1, 3, 11)]


def test_the_line_of_a_report_is_from_the_table_of_the_package():
    assert all(len(rows) == 49 for rows in published().values())
    tau, low, high = published()["mnist"][0]
    assert fidelity_note("mnist", 1).startswith(
        f"after 1 epoch families rank like after 50 with tau {tau:.2f} ({low:.2f} to {high:.2f}; LEMUR, mnist)"
    )
    assert "epochs reach 0.6" in fidelity_note("cifar-10", 1)
    assert "epochs reach" not in fidelity_note("cifar-10", 20)
    assert "photos itself was not measured" in fidelity_note("folder:/home/photos", 5)
    assert fidelity_note("mnist", 50) == ""


@pytest.mark.slow
def test_lemurs_curves_give_the_table_of_the_package(nngen, wheel, tmp_path):
    result = nngen("fidelity", "--json", "--archive", tmp_path / "none.db")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    taus = {row["epochs"]: row["tau"] for row in found["agreements"] if row["what"] == "families"}
    for epoch, expected in {1: 0.44, 2: 0.58, 5: 0.66, 10: 0.77}.items():
        assert taus[epoch] == pytest.approx(expected, abs=0.02)
        assert taus[epoch] == pytest.approx(published()["cifar-10"][epoch - 1][0], abs=0.001)
    assert found["climbers"][0]["family"] == "FractalNet"


def test_a_set_without_long_trainings_is_refused_in_one_line(nngen, tmp_path, monkeypatch):
    monkeypatch.setenv("NNGEN_LEMUR", str(make_tree(tmp_path / "nn-dataset")))
    result = nngen("fidelity", "--dataset", "mnist", "--archive", tmp_path / "none.db")
    assert (result.code, result.out) == (2, "")
    assert "has no trainings of 50 epochs on mnist; data sets with some: none" in result.err


def test_ranks_share_equal_places():
    same = [Curve(model=name, accuracies={1: value}) for name, value in (("A", 0.5), ("B", 0.7), ("C", 0.5))]
    assert ranks(same, 1) == {"A": 2, "B": 1, "C": 2}


def test_top_five_and_regret_of_two_rankings():
    early = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6])
    later = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.2])
    found = fidelity._agreement("x", list("ABCDEFF"), 1, 5, early, later)
    assert (found.models, found.runs, found.epochs, found.last) == (6, 7, 1, 5)
    # The best five first are 2 to 6, in the end 0 to 4; of two equal first places either may be chosen.
    assert (found.top, found.regret) == (3, pytest.approx(0.9 - 0.3))
    assert found.tau < -0.9


def test_only_base_families_are_joined_and_the_best_training_counts_at_each_epoch():
    some = [
        Curve(model="B", accuracies={1: 0.1, 2: 0.6}),
        Curve(model="A", accuracies={1: 0.3, 2: 0.4, 3: 0.5}),
        Curve(model="A", accuracies={1: 0.2, 2: 0.5}),
        Curve(model="MoE4-x", accuracies={1: 0.9, 2: 0.9}),
        Curve(model="C", accuracies={1: 0.9}),
    ]
    assert by_family(some, iter((1, 2))) == [
        Curve(model="A", accuracies={1: 0.3, 2: 0.5, 3: 0.5}),
        Curve(model="B", accuracies={1: 0.1, 2: 0.6}),
    ]
    assert fidelity.whole(some, iter((2, 3))) == [some[1]]


def test_five_models_are_compared_and_four_are_not():
    some = curves(5, noise=0.0)
    found = agreements(some, epochs=(1, 2), last=3)
    assert [(row.what, row.epochs, row.last, row.models, row.runs, row.top) for row in found] == [
        ("families", 1, 3, 5, 5, 5),
        ("families", 2, 3, 5, 5, 5),
        ("runs", 1, 3, 5, 5, 5),
        ("runs", 2, 3, 5, 5, 5),
    ]
    assert all((row.tau, row.high, row.regret) == pytest.approx((1, 1, 0)) for row in found)
    assert agreements(some, epochs=(1, 2), last=3, runs=False) == found[:2]
    assert agreements(some[:4], epochs=(1,), last=2) == []
    # Runs are compared where they have every epoch up to the last, families where they have those compared.
    gap = Curve(model="Net9", accuracies={1: 0.5, 3: 0.5})
    assert [row.runs for row in agreements([*some, gap], epochs=(1,), last=3)] == [6, 5]


def lines_of(campaign, accuracies, rung, **changes):
    return [
        TrialLine(
            id=0,
            campaign=campaign,
            position=place,
            rung=rung,
            replicate=0,
            state=TrialState.DONE,
            experts=tuple("ABCD"),
            candidate_id=f"c{place}",
            outcome=None,
            validation_accuracy=accuracy,
            seed=0,
            suspect="",
        )._replace(**changes)
        for place, accuracy in enumerate(accuracies)
    ]


def test_rungs_are_compared_two_by_two_over_the_candidates_on_both():
    campaigns = [
        fake_record("ladder", epochs=9, rungs=(1, 3, 9)),
        fake_record("none", epochs=9, rungs=(1, 9)),
    ]
    first, second, third = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, None), (0.6, 0.5, 0.4, 0.3, 0.2, 0.1), (0.1, 0.2, 0.3, 0.4)
    lines = [
        *lines_of("ladder", first, 0),
        *lines_of("ladder", second[::-1], 0, replicate=1),
        *lines_of("ladder", second, 1)[::-1],
        *lines_of("ladder", third, 2),
        *lines_of("none", first[:4], 0),
        *lines_of("none", first[:4], 1),
    ]
    (found,) = fidelity.rung_agreements(campaigns, lines)
    assert (found.what, found.models, found.runs, found.epochs, found.last) == ("ladder", 6, 6, 1, 3)
    assert (found.tau, found.top, found.regret) == (pytest.approx(-1), 4, pytest.approx(0.5))
    lines += lines_of("ladder", (0.1, 0.2, 0.3, 0.4, 0.5), 2, candidate_id=None)
    rows = fidelity.rung_agreements(campaigns, lines)
    assert [(row.epochs, row.last, row.models, row.runs) for row in rows] == [(1, 3, 6, 6), (1, 9, 5, 5), (3, 9, 5, 5)]
    assert [row.tau for row in rows] == [pytest.approx(-1), pytest.approx(1), pytest.approx(-1)]


def test_the_interval_is_over_resampled_models_and_not_runs():
    one = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    other = np.array([0.2, 0.1, 0.3, 0.6, 0.5, 0.4])
    drawn = np.random.default_rng(0).multinomial(3, np.full(3, 1 / 3), size=1000)
    stats = pytest.importorskip("scipy.stats")
    taus = []
    for counts in drawn:
        places = [place for place, group in enumerate("BBAACC") for _ in range(counts["ABC".index(group)])]
        found = stats.kendalltau(one[places], other[places]).statistic
        taus.append(0.0 if np.isnan(found) else found)
    tau, low, high = fidelity._tau(one, other, list("BBAACC"))
    assert tau == pytest.approx(stats.kendalltau(one, other).statistic)
    assert (low, high) == pytest.approx(tuple(np.quantile(taus, (0.025, 0.975))), abs=1e-6)
    assert fidelity._tau(np.zeros(3), other[:3], list("ABC")) == (0.0, 0.0, 0.0)


def test_a_ranking_below_a_tau_of_six_tenths_is_warned_of(monkeypatch):
    table = {"cifar-10": [[0.5, 0.4, 0.55], [0.599, 0.5, 0.7], [0.6, 0.5, 0.7]], "mnist": [[0.1, 0.0, 0.2]] * 3}
    monkeypatch.setattr(fidelity, "published", lambda: table)
    words = "families rank like after 50 with tau"
    last = "a first place, or a family left out, may not last"
    assert fidelity_note("cifar-10", 1) == (
        f"after 1 epoch {words} 0.50 (0.40 to 0.55; LEMUR, cifar-10): {last}; 3 epochs reach 0.6"
    )
    assert fidelity_note("cifar-10", 3) == f"after 3 epochs {words} 0.60 (0.50 to 0.70; LEMUR, cifar-10)"
    assert fidelity_note("table:x", 3) == (
        f"after 3 epochs {words} 0.60 (0.50 to 0.70; LEMUR, cifar-10; x itself was not measured)"
    )
    assert fidelity_note("mnist", 2) == (
        f"after 2 epochs {words} 0.10 (0.00 to 0.20; LEMUR, mnist): {last}; 50 epochs reach 0.6"
    )
    assert (fidelity_note("mnist", 50), fidelity_note("mnist", 51)) == ("", "")
