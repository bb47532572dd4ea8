"""Gates trained for many mixtures at once, against a gate trained alone, and what they find."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import softmax

from nngen.errors import UsageError
from nngen.plan import Plan, Recipe
from nngen.surrogate import gates
from nngen.surrogate.gates import FROZEN, designs, fit_calibration, frozen_plan, gate_accuracies, train_gates
from nngen.surrogate.scores import all_mixtures, halves, score_mixtures


@pytest.fixture
def experts(script):
    return script.made_up(6, 301, 5)


def chances_of(experts, seed=0):
    return softmax(experts.logits[seed].astype(np.float64), axis=2)


def objective(weights, design, truth):
    """Return the penalised mean logarithm of the likelihood of one mixture."""
    gate = softmax(weights @ design.T, axis=0)
    squares = (weights[:, :-1] ** 2).sum() + gates._OF_SHIFT * (weights[:, -1] ** 2).sum()
    return np.log((gate * truth).sum(0)).mean() - gates._PENALTY / 2 * squares


@pytest.mark.long
def test_gates_of_many_mixtures_are_those_of_a_plain_loop(experts):
    mixtures = all_mixtures(6)
    found = gate_accuracies(experts, mixtures)
    labels = experts.labels
    for number, members in enumerate(mixtures):
        right = 0
        for half in halves(301):
            chances = calibrated(experts, half)
            known, asked = (part.numpy() for part in designs(torch.from_numpy(experts.features), *_places(half)))
            truth = chances[members][:, half.fit, labels[half.fit]]
            weights = np.zeros((4, known.shape[1]))
            ridge = np.full(known.shape[1], gates._PENALTY * len(known))
            ridge[-1] *= gates._OF_SHIFT
            bound = known.T @ known / 2 + np.diag(ridge + 1e-6 * len(known))
            for _ in range(gates._STEPS):
                gate = softmax(weights @ known.T, axis=0)
                share = gate * truth / (gate * truth).sum(0)
                weights += gates._RELAXATION * np.linalg.solve(bound, ((share - gate) @ known - ridge * weights).T).T
            gate = softmax(weights @ asked.T, axis=0)
            blended = np.einsum("kn,knc->nc", gate, chances[members][:, half.scored])
            right += (blended.argmax(1) == labels[half.scored]).sum()
        assert found[number] == right / 301


def calibrated(experts, half):
    """Return the probabilities of experts whose calibration was fitted to one half of the images."""
    logs = torch.from_numpy(experts.logits[0].copy()).double().log_softmax(2).clamp_min(-20)
    maps, shifts = fit_calibration(logs[:, half.fit], torch.from_numpy(experts.labels)[half.fit])
    return softmax((logs @ maps + shifts).numpy(), axis=2)


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


def test_calibrated_experts_are_likelier_on_other_images(experts):
    half, _ = halves(301)
    logs = torch.from_numpy(experts.logits[0].copy()).double().log_softmax(2)
    labels = torch.from_numpy(experts.labels)
    maps, shifts = fit_calibration(logs[:, half.fit], labels[half.fit])

    def likelihood(values):
        own = labels[half.scored][None, :, None].expand(6, -1, 1)
        return values[:, half.scored].log_softmax(2).gather(2, own).mean((1, 2))

    assert (likelihood(logs @ maps + shifts) > likelihood(logs)).all()


def test_classes_that_are_not_seen_and_many_classes(experts):
    logs = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log_softmax(2)
    two = torch.arange(40) % 2 + 1
    maps, shifts = fit_calibration(logs, two)
    chances = (logs @ maps + shifts).softmax(2)
    assert chances[:, :, 0].max() < 1e-6 and chances[:, :, 1:].sum(2).allclose(torch.ones(2, 40).double())
    for values, labels in ((logs, torch.ones(40, dtype=torch.int64)), (torch.zeros(1, 4, 65).double(), two[:4])):
        maps, shifts = fit_calibration(values, labels)
        assert (values @ maps + shifts).equal(values)


def test_a_favoured_class_is_corrected(experts):
    """All experts give the right class the second largest probability wherever it is not the one they favour."""
    labels = np.random.default_rng(0).integers(5, size=400)
    logits = 2.0 * np.eye(5)[labels] + 3.0 * np.eye(5)[0]
    known = replace(
        experts,
        logits=np.repeat(logits[None, None], 6, axis=1).astype(np.float16),
        labels=labels,
        features=np.random.default_rng(1).normal(size=(400, 3)),
    )
    assert (logits.argmax(1) == labels).mean() < 0.3
    assert gate_accuracies(known, np.array([[0, 1, 2, 3]])).tolist() == [1.0]


def test_plans_of_candidates_with_other_gates():
    assert frozen_plan() == frozen_plan("calibrated") == FROZEN
    assert frozen_plan("linear").gate.network == "linear" and frozen_plan("linear").recipe == FROZEN.recipe
    assert frozen_plan("convolution").recipe == replace(FROZEN.recipe, gate_rate=Recipe().gate_rate)
    assert frozen_plan("convolution").losses == FROZEN.losses != Plan(experts=()).losses


def test_sizes_of_the_blocks_change_nothing_and_progress_ends_below_the_whole(experts, monkeypatch):
    whole, steps = gate_accuracies(experts, all_mixtures(6)), []
    monkeypatch.setattr(gates, "_CELLS", {"cpu": 3000})
    blocks = gate_accuracies(experts, all_mixtures(6), progress=lambda done, total: steps.append((done, total)))
    assert blocks.tobytes() == whole.tobytes()
    assert len(steps) > 4 and steps == sorted(steps) and {total for _, total in steps} == {15}


def test_a_gate_finds_the_expert_of_each_kind_of_image(experts, monkeypatch):
    monkeypatch.setattr(gates, "_PENALTY", 0.001)
    random = np.random.default_rng(0)
    labels, bright = random.integers(3, size=600), random.integers(2, size=600).astype(bool)
    guesses = random.integers(3, size=(4, 600))
    classes = np.where([bright, ~bright, 0 * bright, 0 * bright], labels, guesses)
    known = replace(
        experts,
        families=tuple("ABCD"),
        logits=(8.0 * np.eye(3)[classes])[None].astype(np.float16),
        labels=labels,
        features=np.stack([bright, ~bright], axis=1).astype(float),
    )
    (found,) = gate_accuracies(known, np.array([[0, 1, 2, 3]]))
    (equal,) = score_mixtures(known, np.array([[0, 1, 2, 3]]))["mean_probabilities"]
    assert found > 0.98 and equal < 0.8


def test_each_seed_has_its_own_gates(experts):
    both = replace(experts, logits=np.concatenate([experts.logits, experts.logits[:, ::-1]]))
    one = gate_accuracies(both, np.array([[0, 1, 2, 3], [2, 3, 4, 5]]), seed=1)
    assert one.tolist() == gate_accuracies(experts, np.array([[5, 4, 3, 2], [3, 2, 1, 0]])).tolist()


def test_features_are_needed(experts):
    with pytest.raises(UsageError, match="has no features of its images"):
        gate_accuracies(replace(experts, features=None), all_mixtures(6))
