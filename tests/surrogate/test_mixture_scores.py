"""Scores of mixtures from their experts' outputs: equal to a plain loop, and known values on small outputs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nngen.surrogate import scores
from nngen.surrogate.scores import SCORES, all_mixtures, convex_weights, gate_factors, score_mixtures


@pytest.fixture
def experts(script):
    return script.made_up(6, 301, 5)


def with_outputs(experts, classes, *, labels, surety=8.0):
    """Replace the outputs by classes, ``(E, N)``, that each expert names with some surety."""
    logits = surety * np.eye(classes.max() + 1)[classes]
    return replace(
        experts,
        families=tuple("ABCDEF"[: len(classes)]),
        logits=logits[None].astype(np.float16),
        labels=labels,
        features=None,
        accuracies=(classes == labels).mean(1),
        parameters=np.full(len(classes), 1e6),
        speed=np.ones(len(classes)),
    )


def test_every_score_is_that_of_a_plain_loop(script, experts):
    mixtures = all_mixtures(6)
    found = score_mixtures(experts, mixtures)
    assert tuple(found) == tuple(SCORES)
    for number, mixture in enumerate(mixtures):
        plain = script.plain_scores(experts, mixture)
        assert {name: values[number] for name, values in found.items()} == pytest.approx(plain, abs=1e-9)


def test_sizes_of_the_blocks_change_nothing(experts, monkeypatch):
    whole = score_mixtures(experts, all_mixtures(6))
    monkeypatch.setattr(scores, "_COLUMNS", 37)
    monkeypatch.setattr(scores, "_CELLS", {"cpu": 1000})
    blocks = score_mixtures(experts, all_mixtures(6))
    for name, values in whole.items():
        assert blocks[name] == pytest.approx(values, abs=1e-12), name


def test_seeds_are_averaged(experts):
    other = experts.logits[:, ::-1]
    both = replace(experts, logits=np.concatenate([experts.logits, other]))
    mixtures = all_mixtures(6)
    one, two, mean = (
        score_mixtures(replace(experts, logits=x), mixtures) for x in (experts.logits, other, both.logits)
    )
    assert mean["stacking"] == pytest.approx((one["stacking"] + two["stacking"]) / 2)


def test_diversity_of_known_hits(experts):
    labels = np.zeros(8, dtype=np.int64)
    # Hits: the first two agree everywhere, the third has the others' misses, the fourth is never right.
    classes = np.array([[0, 0, 0, 0, 1, 1, 1, 1]] * 2 + [[1, 1, 1, 1, 0, 0, 0, 0], [1] * 8])
    found = score_mixtures(with_outputs(experts, classes, labels=labels), np.array([[0, 1, 2, 3]]))
    assert found["oracle"] == 1.0
    assert found["disagreement"] == pytest.approx((0 + 1 + 1 + 0.5 + 0.5 + 0.5) / 6)
    assert found["double_fault"] == pytest.approx((0.5 + 0 + 0 + 0.5 + 0.5 + 0.5) / 6)
    assert found["q_statistic"] == pytest.approx((1 - 1 - 1 + 0 + 0 + 0) / 6)
    assert found["mean_single"] == pytest.approx(1.5 / 4)
    assert (found["best_single"], found["second_single"], found["parameters"]) == (0.5, 0.5, 4.0)


def test_an_expert_that_is_always_wrong_in_the_same_way_helps_a_stacked_mixture(experts):
    random = np.random.default_rng(0)
    labels = random.integers(4, size=400)
    guesses = random.integers(4, size=(3, 400))
    found = score_mixtures(
        with_outputs(experts, np.vstack([(labels + 1) % 4, guesses]), labels=labels), np.array([[0, 1, 2, 3]])
    )
    assert found["stacking"] == 1.0
    assert found["mean_probabilities"] < 0.3


def test_weights_by_image_find_the_expert_of_each_kind_of_image(experts):
    random = np.random.default_rng(0)
    labels, bright = random.integers(3, size=600), random.integers(2, size=600).astype(bool)
    wrong = (labels + random.integers(1, 3, size=600)) % 3
    classes = np.array([np.where(bright, labels, wrong), np.where(bright, wrong, labels), wrong, wrong])
    known = replace(
        with_outputs(experts, classes, labels=labels), features=np.stack([bright, ~bright], axis=1).astype(float)
    )
    found = score_mixtures(known, np.array([[0, 1, 2, 3]]))
    assert found["ridge_gate"] == 1.0
    assert found["mean_probabilities"] == 0.0


def test_the_factors_do_not_depend_on_the_scale_of_the_features():
    random = np.random.default_rng(0)
    features, hits = torch.from_numpy(random.normal(size=(200, 3))), torch.from_numpy(random.integers(2, size=(4, 200)))
    truth, fit, scored = torch.full((4, 100), 0.5).double(), torch.arange(100), torch.arange(100, 200)
    one = gate_factors(features, hits.double(), truth, fit=fit, scored=scored)
    other = gate_factors(1000 * features + 5, hits.double(), truth, fit=fit, scored=scored)
    assert one.shape == (4, 100)
    torch.testing.assert_close(one, other)


def test_convex_weights_reach_the_known_optimum():
    # Right class: .9 and .1 on three quarters of the images, the other way on the rest; derivative zero at 13 / 16.
    truth = torch.tensor([[0.9, 0.9, 0.9, 0.1], [0.1, 0.1, 0.1, 0.9], [0.01] * 4]).double()
    chosen = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]).double()
    weights = convex_weights(truth, chosen)
    assert weights[0, 2] == 0
    assert weights.sum(1).tolist() == pytest.approx([1, 1])
    assert weights[0].tolist() == pytest.approx([13 / 16, 3 / 16, 0], abs=0.01)


def test_convex_weights_are_as_good_as_greedy_selection(experts):
    """Greedy selection with replacement (Caruana and others 2004) is the oracle."""
    logits = torch.from_numpy(experts.logits[0].astype(float))
    truth = logits.softmax(2)[:, torch.arange(301), torch.from_numpy(experts.labels)]
    picks = torch.zeros(6).double()
    for _ in range(200):
        tries = torch.stack([((picks + step) @ truth).log().mean() for step in torch.eye(6).double()])
        picks[tries.argmax()] += 1
    greedy = float((picks / picks.sum() @ truth).log().mean())
    (weights,) = convex_weights(truth, torch.ones(1, 6).double())
    assert float((weights @ truth).log().mean()) > greedy - 2e-3
    assert greedy > float(truth.mean(0).log().mean()) + 0.01


def test_scores_that_cannot_be_computed_are_not_numbers(script, experts):
    found = score_mixtures(replace(experts, features=None), all_mixtures(6))
    assert np.isnan(found["ridge_gate"]).all() and np.isfinite(found["stacking"]).all()
    many = score_mixtures(script.made_up(4, 90, 40), all_mixtures(4))
    assert np.isnan(many["stacking"]).all() and np.isfinite(many["convex_weights"]).all()
