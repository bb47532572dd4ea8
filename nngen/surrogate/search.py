"""Search for the best mixtures of a pool that is too large to list."""

from __future__ import annotations

import numpy as np
import torch

from nngen.surrogate.experts import Experts, Ints
from nngen.surrogate.scores import Outputs

BEAM = 500
"""Mixtures that are kept at each size."""


def top_mixtures(experts: Experts, *, beam: int = BEAM, size: int = 4, device: str = "cpu") -> Ints:
    """Find mixtures with a high accuracy of the mean of probabilities, with the experts' first seed, by beam search.

    The best experts, then the best pairs with one of these, and so on; every expert is tried with each of the ``beam``
    mixtures that were kept. Accuracies are compared in float32, on all images.

    Returns:
        Places of the experts, ``(beam, size)`` or fewer, in lexicographic order.
    """
    outputs = Outputs.of(experts, torch.from_numpy(experts.logits[0].copy()), device)
    kept = np.argsort(-experts.accuracies, kind="stable")[:beam, None]
    for _ in range(size - 1):
        right = _extended(outputs, kept).cpu().numpy()  # (B, E)
        np.put_along_axis(right, kept, -1, axis=1)  # an expert is in a mixture once
        # More than the beam, because a mixture of n is found from each of its n parts.
        best = np.argsort(-right, axis=None, kind="stable")[: beam * (kept.shape[1] + 1)]
        rows, added = np.unravel_index(best[right.flat[best] >= 0], right.shape)
        found = np.sort(np.hstack([kept[rows], added[:, None]]), axis=1)
        _, first = np.unique(found, axis=0, return_index=True)
        kept = found[np.sort(first)][:beam]
    return kept[np.lexsort(kept.T[::-1])].astype(np.int64)


def _extended(outputs: Outputs, kept: Ints) -> torch.Tensor:
    """Count the images that each mixture has right with one more expert, ``(B, E)``."""
    images = torch.arange(len(outputs.labels), device=outputs.labels.device)
    right = torch.zeros(len(kept), len(outputs.logits), dtype=torch.int64, device=images.device)
    members = torch.from_numpy(kept).to(images.device)
    for part in outputs.margins(images=images, kind="probabilities"):
        margins = part.float()  # (E, C - 1, n)
        for row, own in enumerate(members):
            right[row] += ((margins + margins[own].sum(0)).amax(1) < 0).sum(1)
    return right
