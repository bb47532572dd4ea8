"""Rows of the leaderboard from hand-made trials."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest

from nngen.analysis import leaderboard as module
from nngen.analysis.leaderboard import leaderboard
from nngen.analysis.ranking.rows import Row
from nngen.analysis.statistics import share_interval
from nngen.archive import StoredTrial, TrialState
from nngen.plan import Plan
from nngen.types import Shape, TrialSpec

stats = pytest.importorskip("scipy.stats")


def trial(number, candidate, accuracy, *, seed=0, spec=None, **changes):
    settings = {"dataset": "digits", "shape": Shape(1, 8, 8), "epochs": 2, "seed": seed} | (spec or {})
    made = StoredTrial(
        id=number,
        campaign="one",
        position=0,
        rung=0,
        replicate=0,
        plan=Plan(experts=tuple("ABCD")),
        state=TrialState.DONE,
        candidate_id=candidate,
        spec=TrialSpec(**settings),
        validation_accuracy=accuracy,
        data_fingerprint="d",
        seconds=1.0,
    )
    return replace(made, **changes)


def test_a_row_joins_the_seeds_of_a_candidate():
    trials = [
        trial(1, "a", 0.5, test_accuracy=0.4, parameters=7),
        trial(2, "a", 0.7, seed=1, seconds=None, suspect="perfect"),
        trial(3, "a", 0.6, seed=2, seconds=5.0, test_accuracy=0.6, suspect="later"),
        trial(4, "b", 0.6),
        trial(5, "c", 0.9, spec={"epochs": 1, "horizon": 2}, batch=8),
        trial(6, None, 0.9),
        trial(7, "d", None),
        replace(trial(8, "e", 0.9), spec=None),
    ]
    asked = []
    found = leaderboard(trials, images=lambda number: asked.append(number) or 100)
    assert asked == [1, 5]
    half = stats.t.ppf(0.975, 2) * 0.1
    low, high = share_interval(0.6, 100)
    same = {
        "experts": list("ABCD"),
        "dataset": "digits",
        "data": "d",
        "shape": "1x8x8",
        "images": 100,
        "epochs": 2,
        "batch": 64,
        "lr": 0.001,
        "momentum": 0.9,
        "augment": "none",
        "class_weights": "none",
        "train_size": None,
        "horizon": None,
        "validation_accuracy": pytest.approx(0.6),
        "validation_low": pytest.approx(low),
        "validation_high": pytest.approx(high),
        "rank_low": 1,
        "rank_high": 2,
    }
    one, other, *_ = (row.to_dict() for row in found)
    assert one == one | {
        **same,
        "rank": 1,
        "id": "a",
        "seeds": 3,
        "validation_std": pytest.approx(0.1),
        "validation_half": pytest.approx(half / math.sqrt(3)),
        "test_accuracy": pytest.approx(0.5),
        "seconds": 2.0,
        "parameters": 7,
        "suspect": "perfect",
    }
    assert other == other | {
        **same,
        "rank": 2,
        "id": "b",
        "seeds": 1,
        "validation_std": None,
        "validation_half": pytest.approx(half),
        "test_accuracy": None,
        "seconds": 1.0,
        "parameters": None,
        "suspect": "",
    }
    assert (found[2].id, found[2].rank, found[2].epochs, found[2].horizon, found[2].batch) == ("c", 1, 1, 2, 8)
    assert len(found) == 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Wider(Row):
    """A row with one more field of ``Score``, and one that ``Score`` does not have."""

    peak_mib: float | None = None
    energy_j: float | None = None


def test_a_field_that_rows_share_with_scores_is_the_mean_over_the_seeds_that_have_it(monkeypatch):
    monkeypatch.setattr(module, "Row", Wider)
    seeds = [
        trial(number, "a", 0.5, seed=number, peak_mib=peak, energy_j=1.0) for number, peak in enumerate((10, None, 30))
    ]
    found = leaderboard([*seeds, trial(4, "b", 0.4)])
    assert [(row.peak_mib, row.energy_j, row.seconds) for row in found] == [(20.0, None, 1.0), (None, None, 1.0)]


def test_fidelities_are_ordered_by_data_images_epochs_and_candidates():
    settings = [
        ("digits", "d", {}),
        ("digits", "d", {"train_size": 200, "epochs": 9}),
        ("digits", "d", {"train_size": 100, "epochs": 5}),
        ("digits", "d", {"train_size": 100, "batch": 32}),  # of two candidates
        ("digits", "d", {"train_size": 100, "batch": 16}),
        ("digits", "d", {"train_size": 100, "batch": 64}),
        ("digits", "e", {}),
        ("fashion", "a", {}),
    ]
    trials = [
        trial(number, "a", 0.5, spec={"dataset": name} | spec, data_fingerprint=data)
        for number, (name, data, spec) in enumerate(settings)
    ][::-1]
    trials.append(trial(99, "b", 0.4, spec=settings[3][2]))
    found = [(row.dataset, row.data, row.train_size, row.epochs, row.batch, row.id) for row in leaderboard(trials)]
    expected = [
        (name, data, spec.get("train_size"), spec.get("epochs", 2), spec.get("batch", 64), "a")
        for name, data, spec in settings
    ]
    expected.insert(4, ("digits", "d", 100, 2, 32, "b"))
    assert found == expected


def test_equal_accuracies_are_ordered_by_trial_and_rows_without_images_have_no_span():
    found = leaderboard([trial(2, "a", 0.5), trial(1, "b", 0.5)], images=lambda _: 0)
    assert [(row.id, row.rank, row.images, row.among, row.interval) for row in found] == [
        ("b", 1, None, None, None),
        ("a", 2, None, None, None),
    ]
