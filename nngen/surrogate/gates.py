"""Gates trained for many mixtures at once, over experts that were trained alone and stay as they are.

The gate of a mixture is linear on the pooled features of an image, with a softmax over the experts, and blends their
probabilities. It is fitted by maximum likelihood: expectation-maximisation, whose inner step takes a bound of the
curvature (Boehning 1992) in place of the curvature itself. The bound depends on the features alone, so that one matrix
serves every mixture, and no step lowers the likelihood. Blocks of mixtures keep the memory constant, on the CPU and on
a card. Fitted on one half of the validation images and scored on the other, both ways.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nngen.errors import UsageError
from nngen.plan import Gate, Losses, Plan, Recipe
from nngen.surrogate.experts import Experts, Floats, Ints
from nngen.surrogate.scores import halves

FROZEN = Plan(
    experts=(),
    gate=Gate(network="linear", noise=0.0),
    losses=Losses(label_smoothing=0.0, balance=0.0),
    recipe=Recipe(gate_rate=10.0, mixup=0.0, frozen=True),
)
"""Plan of a candidate with such a gate, without its experts; it trains its gate on the training images."""

_STEPS = 30
_RELAXATION = 1.8  # length of a step in place of 1; below 2 the likelihood still rises

_PENALTY = 0.02
"""Penalty of the squared weights, as a share of the number of images; the features have a deviation of 1."""

_CELLS = {"cpu": 2**20, "cuda": 2**26}  # numbers in a block

_TINY = 1e-30


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
    truth = logits.double().log_softmax(2).gather(2, labels[None, :, None].expand(len(logits), -1, 1))[:, :, 0].exp()
    parts = halves(len(labels))
    classes, most = logits.shape[2], max(len(half.scored) for half in parts)
    rows = max(1, _CELLS[members.device.type] // (most * max(classes, members.shape[1])))
    for number, half in enumerate(parts):
        fit, scored = half.fit.to(device), half.scored.to(device)
        known, asked = designs(features, fit, scored)
        for start in range(0, len(members), rows):
            if progress is not None:
                progress((number * len(members) + start) // 2, len(members))
            own = members[start : start + rows]
            gates = (train_gates(known, truth[:, fit][own]) @ asked.T).softmax(1)  # (q, K, n)
            right[start : start + rows] += _hits(gates, own, logits[:, scored], labels[scored])
    found: Floats = (right.double() / len(labels)).cpu().numpy()
    return found


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
    penalty[-1] = 0.0
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


def _hits(gates: Tensor, members: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Count the images of each mixture whose right class has more probability than every other, ``(q,)``."""
    chances = logits.double().softmax(2)  # (E, n, C)
    blended = torch.zeros(len(members), *chances.shape[1:], dtype=chances.dtype, device=chances.device)
    for place in range(members.shape[1]):
        blended += gates[:, place, :, None] * chances[members[:, place]]
    places = labels[None, :, None].expand(len(members), -1, 1)
    own = blended.gather(2, places)[:, :, 0]
    return (own > blended.scatter(2, places, -1.0).amax(2)).sum(1)
