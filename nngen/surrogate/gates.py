"""Gates trained for many mixtures at once, over experts that were trained alone and stay as they are.

Each expert is calibrated first, once for all mixtures, by a logistic regression on its log-probabilities. Experts of
few epochs favour some classes, and no blend of them could mend that.

The gate of a mixture is linear on the pooled features of an image, with a softmax over the experts, and blends their
probabilities. It is fitted by maximum likelihood: expectation-maximisation, whose inner step takes a bound of the
curvature (Boehning 1992) in place of the curvature itself. The bound depends on the features alone, so that one matrix
serves every mixture, and no step lowers the likelihood. Blocks of mixtures keep the memory constant, on the CPU and on
a card. All is fitted on one half of the validation images and scored on the other, both ways.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from nngen.errors import UsageError
from nngen.plan import Gate, Losses, Plan, Recipe
from nngen.surrogate.experts import Experts, Floats, Ints
from nngen.surrogate.scores import halves

FROZEN = Plan(
    experts=(),
    gate=Gate(network="calibrated", noise=0.0),
    losses=Losses(label_smoothing=0.0, balance=0.0),
    recipe=Recipe(gate_rate=10.0, mixup=0.0, frozen=True),
)
"""Plan of a candidate with such a gate, without its experts; it trains its gate on the training images."""

_STEPS = 30
_RELAXATION = 1.8  # length of a step in place of 1; below 2 the likelihood still rises

_PENALTY, _OF_SHIFT = 1.0, 0.1
"""Penalty of the squared weights, as a share of the number of images, and that of the shift; the features have a
deviation of 1. Chosen on digits with ``_STRENGTH``, judged on Fashion-MNIST (docs/design/0028-whole-space.md)."""

_STRENGTH = 1.0
"""Inverse penalty of a calibration, as scikit-learn counts it."""

_CALIBRATION_STEPS = 500
_MOST_MAPPED = 64
"""Classes up to which experts are calibrated: a map has the square of their number of weights."""

_LEAST_LOG = -20.0
"""Log-probability below which all are alike, in files with such a gate too."""

_CELLS = {"cpu": 2**20, "cuda": 2**26}  # numbers in a block

WARM_RATE = 0.1
"""Learning rate of experts that are trained on from their kept weights, as a multiple of the trial's."""

_TINY = 1e-30


def frozen_plan(network: str | None = None) -> Plan:
    """Return the plan of a candidate with frozen experts and a gate network, ``FROZEN`` with its own by default."""
    if network is None:
        return FROZEN
    # Convolutions have more to learn, from steps that are not as long.
    rate = Recipe().gate_rate if network == "convolution" else FROZEN.recipe.gate_rate
    gate, recipe = replace(FROZEN.gate, network=network), replace(FROZEN.recipe, gate_rate=rate)
    return replace(FROZEN, gate=gate, recipe=recipe)


def warm_plan(families: Sequence[str]) -> Plan:
    """Return the plan of a candidate whose experts, of these families, are trained on from the weights they have."""
    return Plan(experts=(), rates=tuple((name, WARM_RATE) for name in families))


def gate_accuracies(
    experts: Experts,
    mixtures: Ints,
    *,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Floats:
    """Train a gate for each mixture, on either half of the validation images, and score it on the other half.

    Args:
        experts: The experts.
        mixtures: Places of the experts of each mixture, ``(Q, K)``.
        seed: Number of the experts' seed.
        device: ``cpu`` or ``cuda``.
        progress: Receives (done, total) mixtures.

    Returns:
        Accuracies, ``(Q,)``. Equal inputs give equal bytes.

    Raises:
        UsageError: If the archive has no features of the images.
    """
    if experts.features is None:
        raise UsageError(f"campaign {experts.campaign} has no features of its images: train the families again")
    logits = torch.from_numpy(experts.logits[seed].copy()).to(device)
    labels = torch.from_numpy(experts.labels).to(device)
    features = torch.from_numpy(experts.features).to(device)
    members = torch.from_numpy(mixtures).to(device)
    right = torch.zeros(len(members), dtype=torch.int64, device=members.device)
    logs = logits.double().log_softmax(2).clamp_min(_LEAST_LOG)  # (E, N, C)
    parts = halves(len(labels))
    classes, most = logits.shape[2], max(len(half.scored) for half in parts)
    rows = max(1, _CELLS[members.device.type] // (most * max(classes, members.shape[1])))
    for number, half in enumerate(parts):
        fit, scored = half.fit.to(device), half.scored.to(device)
        known, asked = designs(features, fit, scored)
        maps, shifts = fit_calibration(logs[:, fit], labels[fit])
        chances = (logs @ maps + shifts).softmax(2)
        truth = chances[:, fit].gather(2, labels[None, fit, None].expand(len(logs), -1, 1))[:, :, 0]
        for start in range(0, len(members), rows):
            if progress is not None:
                progress((number * len(members) + start) // 2, len(members))
            own = members[start : start + rows]
            gates = (train_gates(known, truth[own]) @ asked.T).softmax(1)  # (q, K, n)
            right[start : start + rows] += _hits(gates, own, chances[:, scored], labels[scored])
    found: Floats = (right.double() / len(labels)).cpu().numpy()
    return found


def fit_calibration(logs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Fit a linear map of each expert's log-probabilities, by logistic regression on them in units of their deviation.

    Args:
        logs: Log-probabilities, ``(E, n, C)``.
        labels: Class of each image, ``(n,)``.

    Returns:
        Maps, ``(E, C, C)``, and shifts, ``(E, 1, C)``; ``logs @ maps + shifts`` are the logits of calibrated experts.
        Maps of more than 64 classes, and of images of one class, are the identity.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    experts, _, classes = logs.shape
    maps, shifts = torch.eye(classes, dtype=logs.dtype).repeat(experts, 1, 1), logs.new_zeros(experts, 1, classes).cpu()
    seen = torch.from_numpy(np.unique(labels.cpu().numpy()))
    if classes > _MOST_MAPPED or len(seen) < 2:
        return maps.to(logs.device), shifts.to(logs.device)
    for number, one in enumerate(logs.cpu().numpy()):
        mean = one.mean(0)
        scale = max(float((one - mean).std()), 1e-6)
        with warnings.catch_warnings():
            # Of experts that have learned nothing, whose outputs hardly differ.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = LogisticRegression(C=_STRENGTH, max_iter=_CALIBRATION_STEPS).fit((one - mean) / scale, labels.cpu())
        slopes, level = torch.from_numpy(model.coef_ / scale), torch.from_numpy(model.intercept_)
        if len(slopes) == 1:  # of two classes the second alone has a row
            slopes, level = torch.cat([0 * slopes, slopes]), torch.cat([0 * level, level])
        maps[number], shifts[number] = 0.0, _LEAST_LOG  # a class that is not seen has no chance
        maps[number][:, seen], shifts[number, 0, seen] = slopes.T, level - slopes @ torch.from_numpy(mean)
    return maps.to(logs.device), shifts.to(logs.device)


def designs(features: Tensor, fit: Tensor, scored: Tensor) -> tuple[Tensor, Tensor]:
    """Return the features of both halves, ``(n, F + 1)``, scaled by the first one, with a last column of ones."""
    mean, scale = features[fit].mean(0), features[fit].std(0).clamp_min(1e-6)
    known, asked = ((features[images] - mean) / scale for images in (fit, scored))
    return torch.cat([known, known.new_ones(len(known), 1)], 1), torch.cat([asked, asked.new_ones(len(asked), 1)], 1)


def train_gates(design: Tensor, truth: Tensor) -> Tensor:
    """Fit the gates of some mixtures.

    Args:
        design: Features with a column of ones, ``(n, F)``.
        truth: Probability that each expert gives to the right class, ``(Q, K, n)``.

    Returns:
        Weights, ``(Q, K, F)``, from equal ones on.
    """
    penalty = torch.full_like(design[0], _PENALTY * len(design))
    penalty[-1] *= _OF_SHIFT
    # The curvature of a softmax is at most half of the identity.
    bound = design.T @ design / 2 + torch.diag(penalty + 1e-6 * len(design))
    inverse = torch.linalg.inv(bound)
    weights = truth.new_zeros(*truth.shape[:2], design.shape[1])
    for _ in range(_STEPS):
        gate = (weights @ design.T).softmax(1)
        joint = gate * truth
        responsibility = joint / joint.sum(1, keepdim=True).clamp_min(_TINY)
        weights = weights + _RELAXATION * ((responsibility - gate) @ design - penalty * weights) @ inverse
    return weights


def _hits(gates: Tensor, members: Tensor, chances: Tensor, labels: Tensor) -> Tensor:
    """Count the images of each mixture whose right class has more probability than every other, ``(q,)``."""
    blended = torch.zeros(len(members), *chances.shape[1:], dtype=chances.dtype, device=chances.device)
    for place in range(members.shape[1]):
        blended += gates[:, place, :, None] * chances[members[:, place]]
    places = labels[None, :, None].expand(len(members), -1, 1)
    own = blended.gather(2, places)[:, :, 0]
    return (own > blended.scatter(2, places, -1.0).amax(2)).sum(1)
