"""Gates trained for many mixtures at once, against a gate trained alone, and what they find."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import softmax

from nngen.errors import UsageError
from nngen.surrogate import gates
from nngen.surrogate.gates import designs, gate_accuracies, train_gates
from nngen.surrogate.scores import all_mixtures, halves


@pytest.fixture
def experts(script):
    return script.made_up(6, 301, 5)


def chances_of(experts, seed=0):
    return softmax(experts.logits[seed].astype(np.float64), axis=2)


def objective(weights, design, truth):
    """Return the penalised mean logarithm of the likelihood of one mixture."""
    gate = softmax(weights @ design.T, axis=0)
    return np.log((gate * truth).sum(0)).mean() - gates._PENALTY / 2 * (weights[:, :-1] ** 2).sum()


def test_gates_of_many_mixtures_are_those_of_a_plain_loop(experts):
    mixtures = all_mixtures(6)
    found = gate_accuracies(experts, mixtures)
    chances, labels = chances_of(experts), experts.labels
    for number, members in enumerate(mixtures):
        right = 0
        for half in halves(301):
            known, asked = (part.numpy() for part in designs(torch.from_numpy(experts.features), *_places(half)))
            truth = chances[members][:, half.fit, labels[half.fit]]
            weights = np.zeros((4, known.shape[1]))
            ridge = np.full(known.shape[1], gates._PENALTY * len(known))
            ridge[-1] = 0
            bound = known.T @ known / 2 + np.diag(ridge + 1e-6 * len(known))
            for _ in range(gates._STEPS):
                gate = softmax(weights @ known.T, axis=0)
                share = gate * truth / (gate * truth).sum(0)
                weights += gates._RELAXATION * np.linalg.solve(bound, ((share - gate) @ known - ridge * weights).T).T
            gate = softmax(weights @ asked.T, axis=0)
            blended = np.einsum("kn,knc->nc", gate, chances[members][:, half.scored])
            right += (blended.argmax(1) == labels[half.scored]).sum()
        assert found[number] == right / 301


def _places(half):
    return half.fit, half.scored


def test_the_likelihood_reaches_its_maximum_and_never_falls(experts, monkeypatch):
    half, _ = halves(301)
    known, _ = designs(torch.from_numpy(experts.features), half.fit, half.scored)
    truth = torch.from_numpy(chances_of(experts)[:4][:, half.fit, experts.labels[half.fit]])
    values = []
    for steps in (0, 1, 2, 5, 10, 30, 1000):
        monkeypatch.setattr(gates, "_STEPS", steps)
        values.append(objective(train_gates(known, truth[None])[0].numpy(), known.numpy(), truth.numpy()))
    assert values == sorted(values) and values[-1] > values[0]
    best = minimize(lambda w: -objective(w.reshape(4, -1), known.numpy(), truth.numpy()), np.zeros(4 * known.shape[1]))
    assert values[-1] == pytest.approx(-best.fun, abs=1e-5)
    # The steps that are taken lead nearly there.
    assert values[-2] > values[-1] - 0.005


def test_sizes_of_the_blocks_change_nothing_and_progress_ends_below_the_whole(experts, monkeypatch):
    whole, steps = gate_accuracies(experts, all_mixtures(6)), []
    monkeypatch.setattr(gates, "_CELLS", {"cpu": 3000})
    blocks = gate_accuracies(experts, all_mixtures(6), progress=lambda done, total: steps.append((done, total)))
    assert blocks.tobytes() == whole.tobytes()
    assert len(steps) > 4 and steps == sorted(steps) and {total for _, total in steps} == {15}


def test_a_gate_finds_the_expert_of_each_kind_of_image(experts):
    random = np.random.default_rng(0)
    labels, bright = random.integers(3, size=600), random.integers(2, size=600).astype(bool)
    wrong = (labels + random.integers(1, 3, size=600)) % 3
    classes = np.array([np.where(bright, labels, wrong), np.where(bright, wrong, labels), wrong, wrong])
    known = replace(
        experts,
        families=tuple("ABCD"),
        logits=(8.0 * np.eye(3)[classes])[None].astype(np.float16),
        labels=labels,
        features=np.stack([bright, ~bright], axis=1).astype(float),
    )
    assert gate_accuracies(known, np.array([[0, 1, 2, 3]])).tolist() == [1.0]


def test_each_seed_has_its_own_gates(experts):
    both = replace(experts, logits=np.concatenate([experts.logits, experts.logits[:, ::-1]]))
    one = gate_accuracies(both, np.array([[0, 1, 2, 3], [2, 3, 4, 5]]), seed=1)
    assert one.tolist() == gate_accuracies(experts, np.array([[5, 4, 3, 2], [3, 2, 1, 0]])).tolist()


def test_features_are_needed(experts):
    with pytest.raises(UsageError, match="has no features of its images"):
        gate_accuracies(replace(experts, features=None), all_mixtures(6))
