"""Diagnostics of each epoch of training, computed from logits that training needs anyway; in every generated file.

``B`` images, ``E`` experts, ``C`` classes.
"""

# Two blank lines separate the definitions, and each stands alone: ``nngen.assembly.render`` copies them one by one.

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["batch_statistics", "epoch_summary", "soft_targets"]


def soft_targets(labels: torch.Tensor, others: torch.Tensor, share: float, classes: int) -> torch.Tensor:
    """Spread each image over the labels, ``(B,)``, of the two it was mixed from; ``(B, C)``, each row sums to 1."""
    return share * F.one_hot(labels, classes).float() + (1 - share) * F.one_hot(others, classes).float()


def batch_statistics(
    logits: torch.Tensor, weights: torch.Tensor, outputs: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Compute a batch's sums, from which ``epoch_summary`` makes an epoch's diagnostics.

    Args:
        logits: The mixture's logits, ``(B, C)``.
        weights: The gate's weights, ``(B, E)``, zero for experts that the image did not choose.
        outputs: The experts' own logits, ``(B, E, C)``.
        targets: ``(B, C)``; each row sums to 1.

    Returns:
        Hits, entropy, and per expert its weight, images, hits and weight in each class: ``(2 + 3 * E + E * C,)``.
    """
    active = (weights > 0).float()
    hits = targets.gather(1, logits.argmax(dim=1, keepdim=True)).sum()
    right = (active * targets.gather(1, outputs.argmax(dim=2))).sum(dim=0)  # (E,)
    entropy = torch.special.entr(weights).sum()
    by_class = (weights.unsqueeze(2) * targets.unsqueeze(1)).sum(dim=0)  # (E, C)
    return torch.cat([torch.stack([hits, entropy]), weights.sum(dim=0), active.sum(dim=0), right, by_class.flatten()])


def epoch_summary(sums: torch.Tensor, seen: int, experts: int) -> dict[str, object]:
    """Turn an epoch's sums into its diagnostics.

    Args:
        sums: Results of ``batch_statistics``, added up.
        seen: Number of images of the epoch.
        experts: Number of experts.

    Returns:
        ``usage``, each expert's mean weight; ``entropy`` of the weights in nats; ``expert_accuracy``, of each expert
        alone on the images that chose it; ``by_class``, each expert's share of each class, ``E`` rows of ``C``;
        ``specialisation``, the mutual information of expert and class in nats: 0 where the gate ignores the class.
    """
    _, entropy = (sums[:2] / max(seen, 1)).tolist()
    usage, active, right = sums[2 : 2 + 3 * experts].reshape(3, experts)
    by_class = sums[2 + 3 * experts :].reshape(experts, -1)
    joint = by_class / by_class.sum().clamp(min=1e-12)
    alone = joint.sum(dim=1, keepdim=True) * joint.sum(dim=0)
    gained = torch.special.xlogy(joint, joint / alone.clamp(min=1e-30)).sum()
    return {
        "usage": (usage / max(seen, 1)).tolist(),
        "entropy": entropy,
        "expert_accuracy": (right / active.clamp(min=1)).tolist(),
        "by_class": (by_class / by_class.sum(dim=0).clamp(min=1e-12)).tolist(),
        "specialisation": max(gained.item(), 0.0),
    }
