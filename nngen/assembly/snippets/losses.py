"""Terms of a mixture's training loss beside the cross-entropy; a generated file holds those of its plan.

``B`` images, ``E`` experts, ``C`` classes; every loss is a scalar that does not grow with the batch.
"""

# Two blank lines separate the definitions, and each stands alone: ``nngen.assembly.render`` copies them one by one.

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

__all__ = ["diversity_loss", "entropy_loss", "importance_loss", "load_loss", "shift_bias", "switch_loss", "z_loss"]


def importance_loss(weights: torch.Tensor) -> torch.Tensor:
    """Squared coefficient of variation of the experts' mean weights, of ``(B, E)`` (Shazeer et al. 2017)."""
    usage = weights.mean(dim=0)  # (E,)
    return usage.var(unbiased=False) / usage.mean().square()


def load_loss(clean: torch.Tensor, noisy: torch.Tensor, spread: torch.Tensor, k: int) -> torch.Tensor:
    """Squared coefficient of variation of the experts' load (Shazeer et al. 2017, as in V-MoE, 2106.05974).

    An expert's load is the mean over images of ``P(clean + spread * N(0, 1) > t)``, its chance to be chosen were its
    noise drawn again; ``t`` is the k-th largest of the image's noisy logits. Unlike the choice, it has a gradient.

    Args:
        clean: Logits, ``(B, E)``.
        noisy: The same with the noise that the choice was made under, ``(B, E)``.
        spread: Standard deviation of that noise, ``()`` or ``(E,)``.
        k: Experts chosen per image, less than ``E``.
    """
    threshold = torch.topk(noisy, k, dim=-1).values[:, -1:]  # (B, 1)
    load: torch.Tensor = torch.special.ndtr((clean - threshold) / spread).mean(dim=0)  # (E,)
    return load.var(unbiased=False) / load.mean().square()


def switch_loss(probabilities: torch.Tensor) -> torch.Tensor:
    """``E * sum_i f_i P_i``, 1 when balanced (Fedus et al. 2021, 2101.03961; GShard's is the same).

    Args:
        probabilities: The gate's softmax over all experts, ``(B, E)``. ``f_i`` is the share of images whose largest
            is ``i``, ``P_i`` the mean of column ``i``, through which the gradient flows.
    """
    experts = probabilities.shape[1]
    share = F.one_hot(probabilities.argmax(dim=1), experts).to(probabilities.dtype).mean(dim=0)  # (E,)
    return experts * (share * probabilities.mean(dim=0)).sum()


def z_loss(logits: torch.Tensor) -> torch.Tensor:
    """``mean_b logsumexp(x_b)^2`` of the gate's logits, ``(B, E)``: keeps them small (Zoph et al. 2022, 2202.08906)."""
    return torch.logsumexp(logits, dim=-1).square().mean()


def entropy_loss(probabilities: torch.Tensor) -> torch.Tensor:
    """``log E - mean_b H(p_b)`` of ``(B, E)``: 0 for a gate that is unsure (Pereyra et al. 2017, 1701.06548)."""
    entropy: torch.Tensor = torch.special.entr(probabilities).sum(dim=1)  # (B,)
    return math.log(probabilities.shape[1]) - entropy.mean()


def diversity_loss(weights: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """``mean_b sum_{i != j} w_i w_j cos(f_i, f_j)^2``: likeness of experts that share an image.

    Zero where the experts' outputs are orthogonal, as Guo et al. 2025 (2505.22323) ask for; weighing pairs by
    the gate leaves out experts that did not see the image.

    Args:
        weights: The gate's weights, ``(B, E)``, zero for experts not chosen.
        outputs: The experts' logits, ``(B, E, C)``; taken less their mean over the classes.
    """
    unit = F.normalize(outputs - outputs.mean(dim=2, keepdim=True), dim=2)
    alike = (unit @ unit.transpose(1, 2)).square()  # (B, E, E)
    pairs = weights.unsqueeze(2) * weights.unsqueeze(1)
    pairs = pairs - torch.diag_embed(torch.diagonal(pairs, dim1=1, dim2=2))
    return (pairs * alike).sum(dim=(1, 2)).mean()


def shift_bias(bias: torch.Tensor, weights: torch.Tensor, step: float) -> torch.Tensor:
    """``b_i + u * sign(mean count - count_i)``: balance without a loss (Wang et al. 2024, 2408.15664; DeepSeek-V3).

    Args:
        bias: Added to the logits for the choice alone, ``(E,)``.
        weights: The batch's weights, ``(B, E)``, zero for experts not chosen.
        step: ``u``.
    """
    count = (weights > 0).to(bias.dtype).sum(dim=0)  # (E,)
    return bias + step * torch.sign(count.mean() - count)
