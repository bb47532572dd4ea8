"""Rankings, the learned ranker, and what they say about themselves."""

import numpy as np
import pytest

from nngen.surrogate.ranking import EFFECTS, LEARNED, UNSEEN, agreement, rank_mixtures, seed_ceiling


def joint_of(found, *, count, noise=0.0, seeds=1, seed=0):
    """Make up joint trainings: the mean of the probabilities, less a tenth of the best expert, with noise."""
    random = np.random.default_rng(seed)
    truth = found.scores["mean_probabilities"] - 0.1 * found.scores["best_single"]
    rows = random.permutation(len(truth))[:count]
    return {
        tuple(found.mixtures[row].tolist()): [float(truth[row] + random.normal(0, noise)) for _ in range(seeds)]
        for row in sorted(rows)
    }


def test_without_joint_trainings_nothing_is_claimed(script):
    found = rank_mixtures(script.made_up(6, 200, 4), {})
    assert found.default == "mean_probabilities"
    assert LEARNED not in found.scores and found.agreements == () and found.ceiling is None
    assert "is not known, because none was trained" in found.belief("mean_probabilities")
    order = found.order("mean_probabilities")
    assert (np.diff(found.scores["mean_probabilities"][order]) <= 0).all()


def test_the_learned_ranker_finds_what_joint_trainings_depend_on(script):
    experts = script.made_up(9, 400, 4)
    plain = rank_mixtures(experts, {})
    joint = joint_of(plain, count=60, noise=0.002, seeds=2)
    found = rank_mixtures(experts, joint)
    rows = {row.score: row for row in found.agreements}
    assert found.default == LEARNED
    assert rows[LEARNED].tau > 0.8 and rows[LEARNED].mixtures == 60
    assert rows["mean_probabilities"].low < rows["mean_probabilities"].tau < rows["mean_probabilities"].high
    assert rows[EFFECTS].tau is not None
    assert found.deviation.shape == (126,) and (found.deviation > 0).all()
    assert 0.8 < found.ceiling < 1
    assert rows[UNSEEN].tau is not None and UNSEEN not in found.scores
    assert "60 jointly trained mixtures by a tau of 0." in found.belief(LEARNED)
    assert f"({rows[UNSEEN].tau:.2f} where one of their families is new to it)" in found.belief(LEARNED)
    assert "is new to it" not in found.belief("stacking")
    assert "noise between seeds allows 0.9" in found.belief(LEARNED)


def test_few_joint_trainings_are_named(script):
    experts = script.made_up(6, 200, 4)
    found = rank_mixtures(experts, joint_of(rank_mixtures(experts, {}), count=5))
    assert found.agreements == () and found.default == "mean_probabilities"
    assert "5 of these mixtures were trained jointly at this fidelity (at least 8" in found.belief("stacking")


def test_the_ceiling_is_what_a_score_without_noise_reaches():
    random = np.random.default_rng(0)
    truth = random.normal(0.4, 0.03, 20_000)
    seeds = truth[:, None] + random.normal(0, 0.02, (20_000, 2))
    found = seed_ceiling(seeds[:, 0], seeds[:, 1], 2)
    assert found == pytest.approx(agreement("truth", truth, seeds.mean(1)).tau, abs=0.01)
    # A tenth that learns nothing: an analysis of variance would see accuracies of a reliability of nearly 1.
    weak = 0.3 * (np.arange(20_000) < 2000)
    worse = seeds - weak[:, None]
    reached = agreement("truth", truth - weak, worse.mean(1)).tau
    assert seed_ceiling(worse[:, 0], worse[:, 1], 2) == pytest.approx(reached, abs=0.02)
    assert seed_ceiling(truth[:7], truth[:7], 2) is None
    assert seed_ceiling(truth, truth, 1) == pytest.approx(1.0)
    assert seed_ceiling(truth, -truth, 3) == 0.0


def test_agreement_of_equal_and_of_missing_values():
    truth = np.linspace(0, 1, 30)
    assert agreement("flat", np.ones(30), truth).tau is None
    holes = truth.copy()
    holes[:5] = np.nan
    found = agreement("holes", holes, truth)
    assert (found.mixtures, found.tau) == (25, pytest.approx(1.0))
