"""``eval/tabular_loops.py``: every loop on a made-up space, its measures, and the number of seeds."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest

EVAL = Path(__file__).parent.parent / "eval"


@pytest.fixture(scope="module")
def scripts():
    """Return ``eval/tabular_loops.py`` and its spaces as modules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EVAL)
        import _tabular_spaces
        import tabular_loops

        yield tabular_loops, _tabular_spaces
        for name in ("_page", "_tabular_spaces", "tabular_loops"):
            sys.modules.pop(name, None)


@pytest.fixture
def space(scripts):
    """A space of 256 networks, additive in four choices of four values, with two seeds and little noise."""
    coordinates = np.array(list(product(range(4), repeat=4)))
    truth = 0.5 + coordinates @ np.array([0.01, 0.02, 0.03, 0.005])
    noise = np.random.default_rng(0).normal(0, 0.002, (256, 2))
    features = np.eye(4)[coordinates].reshape(256, -1)
    name = "fractalnet"  # for its numbers of trials
    return scripts[1].Space(
        name=name,
        coordinates=coordinates,
        features=features,
        groups=[range(4 * choice, 4 * choice + 4) for choice in range(4)],
        seeds=truth[:, None] + noise,
    )


@pytest.mark.parametrize("arm", ["random", "random + ranker", "mutate", "mutate + ranker", "evolution + ranker"])
def test_every_loop_tries_as_many_new_networks(scripts, space, arm):
    loops, _ = scripts
    found = loops.run(space, arm, 3)
    assert found == loops.run(space, arm, 3)
    assert 0 <= found["regret"] <= 0.2 and found["found"] <= space.truth.max() + 1e-6
    assert len(found["chosen"]) == space.entry.trials // 10
    assert found["queries"] is None or 1 <= found["queries"] <= space.entry.trials


def test_tpe(scripts, space):
    pytest.importorskip("optuna")
    loops, _ = scripts
    assert loops.run(space, "tpe", 3)["found"] > np.quantile(space.truth, 0.9)


@pytest.mark.long
def test_the_ranker_helps_on_an_additive_space(scripts, space):
    loops, _ = scripts
    plain, ranked = (
        np.mean([loops.run(space, arm, seed)["regret"] for seed in range(8)]) for arm in ("random", "random + ranker")
    )
    assert ranked < plain / 2


def test_loops_of_a_seed_share_their_start_and_draws(scripts, space, monkeypatch):
    loops, _ = scripts
    seen = []
    monkeypatch.setattr(loops, "measures", lambda _, trials: seen.append(trials))
    for arm in ("random", "mutate + ranker"):
        loops.run(space, arm, 5)
    one, other = seen
    start, whole = space.entry.start, space.entry.trials
    assert one.places[:start] == other.places[:start] and one.values[:start] == other.values[:start]
    for trials in seen:
        assert len(trials.places) == len(set(trials.places)) == whole
        assert all(value in space.seeds[place] for place, value in zip(trials.places, trials.values, strict=True))
    both = {place: value for place, value in zip(one.places, one.values, strict=True) if place in other.known}
    assert all(other.values[other.places.index(place)] == value for place, value in both.items())


def test_measures_judge_the_observed_best_by_its_true_accuracy(scripts, space):
    loops, _ = scripts
    trials, best = loops.Trials(), int(space.truth.argmax())
    draws = space.truth.copy()
    draws[0] = 0.9  # the worst network, observed as the best
    trials.add([best, *range(1, 8), 0], draws)
    found = loops.measures(space, trials)
    assert found["regret"] == pytest.approx(space.truth.max() - space.truth[0], abs=1e-5)
    assert found["found"] == pytest.approx(space.truth.max(), abs=1e-5) and found["queries"] == 1


def test_the_number_of_seeds_follows_from_the_pilot(scripts, tmp_path):
    loops, spaces = scripts
    store = loops.Store(tmp_path / "loops.json")
    assert loops.seeds_needed(store, "fractalnet", 900) is None
    random = np.random.default_rng(1)
    for arm in loops.ARMS:
        for seed in range(loops.PILOT):
            row = {
                "regret": float(random.normal(0.02, 0.05)),
                "found": 0.6,
                "area": 0.01,
                "queries": None,
                "chosen": [],
            }
            store.loops["fractalnet", arm][loops.FIRST_OF_PILOT + seed] = row
    store.write()
    again = loops.Store(tmp_path / "loops.json")
    assert again.loops == store.loops
    found = loops.deviation(again, "fractalnet")
    wanted = 7.85 * found**2 / spaces.SPACES["fractalnet"].delta ** 2
    assert 100 < wanted < 9000
    assert loops.seeds_needed(again, "fractalnet", 10**6) == int(np.ceil(wanted))
    assert loops.seeds_needed(again, "fractalnet", 120) == 120
    assert again.values("fractalnet", "random", "regret") == []


def test_a_table_that_is_not_complete_is_left_out(scripts, tmp_path, monkeypatch, capsys):
    loops, spaces = scripts
    few = spaces.read_table(EVAL / "tables" / "moe4.json", train_size=1000, epochs=2)  # the pilot's quartets
    monkeypatch.setattr(spaces, "read_table", lambda *_, **__: few)
    monkeypatch.setattr(loops, "STORE", tmp_path / "loops.json")
    monkeypatch.setattr(loops, "PILOT", 0)
    monkeypatch.setattr(loops, "seeds_needed", lambda *_: 1)
    assert loops.main(["--tables", "moe4", "--minutes", "1"]) == 1
    assert "moe4 is left out: moe4.json is not complete" in capsys.readouterr().err
