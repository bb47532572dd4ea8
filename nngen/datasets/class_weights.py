"""Weights of classes in training: how often the images of each class are drawn in an epoch.

The weights act through the images that are drawn and not through the loss, so that they hold for every file, whatever
loss it computes. An epoch draws as many images as without weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nngen.errors import UsageError
from nngen.text import did_you_mean, split_names

if TYPE_CHECKING:  # torch is loaded in the worker alone
    from torch import Generator, Tensor

NONE, BALANCED = "none", "balanced"

_FORMS = "none, balanced, or weights of classes as cat=2,dog=0.5 (1 for the others)"
_MOST = 1e6


def parse(text: str) -> dict[str, float]:
    """Read weights by class; empty for ``none`` and ``balanced``.

    Raises:
        UsageError: If the text has none of the forms, or a weight is not a positive number.
    """
    weights: dict[str, float] = {}
    for part in split_names(text) if text not in (NONE, BALANCED) else ():
        name, sign, number = part.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not (sign and name and 1 / _MOST <= weight <= _MOST):
            raise UsageError(f"--class-weights is {_FORMS}, not {text[:60]!r}")
        weights[name.strip()] = weight
    if not weights and text not in (NONE, BALANCED):
        raise UsageError(f"--class-weights is {_FORMS}, not {text[:60]!r}")
    return weights


def class_weights(
    text: str, labels: npt.NDArray[np.int64], classes: int, names: Sequence[str] = ()
) -> tuple[float, ...]:
    """Return the weight of an image of each class; none where all images count alike.

    Args:
        text: Weights as they are typed.
        labels: ``(N,)`` classes of the training images.
        classes: Number of classes.
        names: Names of the classes in the order of their numbers; their numbers by default.

    Raises:
        UsageError: If the text has no valid form, or names a class that does not exist.
    """
    typed = parse(text)
    if text == NONE:
        return ()
    if text == BALANCED:
        counts = np.bincount(labels, minlength=classes)
        return tuple((len(labels) / (classes * np.maximum(counts, 1))).tolist())
    known = tuple(names) or tuple(map(str, range(classes)))
    for name in typed:
        if name not in known:
            otherwise = f"there are {', '.join(known[:5])}{', ...' if len(known) > 5 else ''}"
            raise UsageError(
                f"--class-weights: no class is called {name!r}: {did_you_mean(name, known, otherwise=otherwise)}"
            )
    return tuple(typed.get(name, 1.0) for name in known)


def weighted_order(labels: Tensor, weights: Sequence[float], generator: Generator) -> Tensor:
    """Draw the images of one epoch, as many as there are, in random order.

    Each class gets its share; of its images each is drawn equally often, to within once, before any is drawn again.

    Args:
        labels: ``(N,)`` int64, on the CPU.
        weights: Weight of an image of each class.
        generator: Source of randomness, on the CPU.

    Returns:
        ``(N,)`` indices.
    """
    import torch

    found, counts = torch.unique(labels, return_counts=True)
    shares = counts.double() * torch.tensor(weights, dtype=torch.double)[found]
    exact = shares * (len(labels) / shares.sum())
    quotas = exact.long()
    # Images that rounding leaves over go to the classes with the largest remainders.
    left = len(labels) - int(quotas.sum())
    quotas[torch.argsort(exact - quotas, descending=True, stable=True)[:left]] += 1
    drawn = []
    for label, quota in zip(found.tolist(), quotas.tolist(), strict=True):
        members = torch.nonzero(labels == label).flatten()
        turns = [members[torch.randperm(len(members), generator=generator)] for _ in range(-(-quota // len(members)))]
        drawn += [torch.cat(turns)[:quota]] if turns else []
    order = torch.cat(drawn)
    return order[torch.randperm(len(order), generator=generator)]
