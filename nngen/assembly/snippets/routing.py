"""Choice of experts per image, for gates that do more than blend; in the generated files whose plan needs it.

``B`` images, ``E`` experts, ``C`` classes.
"""

# Two blank lines separate the definitions, and each stands alone: ``nngen.assembly.render`` copies them one by one.

from __future__ import annotations

from typing import NamedTuple

import torch

__all__ = ["Routing", "top_k_weights"]


class Routing(NamedTuple):
    """Decision of the gate about a batch.

    Attributes:
        weights: ``(B, E)``; zero for experts that were not chosen.
        clean: Logits, ``(B, E)``.
        noisy: The same with the noise of training, ``(B, E)``.
        spread: Standard deviation of that noise, ``()`` or ``(E,)``.
    """

    weights: torch.Tensor
    clean: torch.Tensor
    noisy: torch.Tensor
    spread: torch.Tensor


def top_k_weights(logits: torch.Tensor, bias: torch.Tensor, k: int) -> torch.Tensor:
    """Weigh the ``k`` experts with the largest ``logits + bias`` by a softmax, all others by zero.

    Shazeer et al. 2017. With one expert per image, its weight is its share of the softmax over all (Fedus et al.
    2021): over itself alone it would be 1, and the gate would not learn.

    Args:
        logits: ``(B, E)``.
        bias: Added for the choice but not for the weights, ``(E,)``.
        k: Experts per image.

    Returns:
        Weights, ``(B, E)``.
    """
    best = torch.topk(logits + bias, k, dim=-1).indices
    chosen = torch.zeros_like(logits, dtype=torch.bool).scatter(1, best, True)
    if k == 1:
        return torch.softmax(logits, dim=-1) * chosen
    return torch.softmax(logits.masked_fill(~chosen, float("-inf")), dim=-1)
