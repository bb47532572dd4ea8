"""Scores of many mixtures at once, from the outputs of their experts trained alone.

No mixture is trained. Most scores are the accuracy of a weighted sum of the experts' outputs, and a sum of weighted
outputs for a block of mixtures is one matrix product, ``(Q, E) @ (E, ...)``. Blocks of images and mixtures keep the
memory constant, on the CPU and on a card. Arithmetic is in float64: float16 logits are added up exactly, so that the
accuracies do not depend on the sizes of the blocks.

What is fitted (weights, gate, stacking) is fitted on one half of the validation images and scored on the other, both
ways. An image counts as right if its class has more than every other class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from nngen.surrogate.experts import Experts, Floats, Ints

SCORES: Mapping[str, str] = {
    "mean_single": "mean accuracy of the experts alone",
    "best_single": "accuracy of the best expert alone",
    "second_single": "accuracy of the second-best expert alone",
    "mean_probabilities": "accuracy of the mean of the experts' probabilities",
    "mean_logits": "accuracy of the mean of the experts' logits",
    "convex_weights": "accuracy of the probabilities with weights fitted by expectation-maximisation",
    "ridge_gate": "accuracy of the probabilities with weights by image, from a ridge regression of each expert's hits",
    "stacking": "accuracy of a ridge regression on the experts' log-probabilities",
    "oracle": "share of images that at least one expert has right",
    "disagreement": "share of images that one expert of a pair has right and the other wrong (mean over pairs)",
    "double_fault": "share of images that both experts of a pair have wrong (mean over pairs)",
    "q_statistic": "Yule's Q of the hits of a pair of experts (mean over pairs)",
    "speed": "accuracy after epoch 1 as a share of that after epoch 5 (mean over the experts)",
    "parameters": "parameters of the experts in millions",
}
"""Scores by name."""

_STEPS = 20  # iterations of expectation-maximisation; more change the accuracy of few mixtures, and by single images

_RELAXATION = 1.8  # power of each step in place of 1; below 2 it leads to the same weights in about half of the steps

_PENALTY = 0.1  # penalty of the ridge regressions, as a share of the mean variance of what they are fitted to

_TEMPERATURES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_MOST_STACKED = 32  # classes up to which stacking is fitted: its cost rises with the cube of their number

_COLUMNS = 4096
_CELLS = {"cpu": 2**16, "cuda": 2**25}  # numbers in a block, which fits the cache of a core

_TINY = 1e-300

Progress: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    """Images that something is fitted to, and images that it is scored on."""

    fit: Tensor
    scored: Tensor


def halves(images: int) -> tuple[Half, Half]:
    """Split images at random into two halves, each of which is fitted to once; the same split in every call."""
    order = torch.from_numpy(np.random.default_rng(0).permutation(images))
    one, other = order[: images // 2].sort().values, order[images // 2 :].sort().values
    return Half(fit=one, scored=other), Half(fit=other, scored=one)


def all_mixtures(experts: int, size: int = 4) -> Ints:
    """List all sets of so many experts by their places, ``(Q, size)``, in lexicographic order."""
    return np.array(list(combinations(range(experts), size)), dtype=np.int64)


def score_mixtures(
    experts: Experts, mixtures: Ints, *, device: str = "cpu", progress: Progress | None = None
) -> dict[str, Floats]:
    """Compute every score of ``SCORES`` for mixtures, averaged over the experts' seeds, and of ``UNTRAINED`` if known.

    Args:
        experts: The experts.
        mixtures: Places of the experts of each mixture, ``(Q, K)``.
        device: ``cpu`` or ``cuda``.
        progress: Receives (done, total).

    Returns:
        Scores by name, each ``(Q,)``; nan where one cannot be computed: ``ridge_gate`` without features of the
        images, and ``stacking`` with more than 32 classes.
    """
    found = _of_singles(experts, mixtures)
    sums: dict[str, Floats] = {}
    for seed, logits in enumerate(experts.logits):
        if progress is not None:
            progress(seed, len(experts.logits))
        scored = _of_outputs(Outputs.of(experts, torch.from_numpy(logits.copy()), device), mixtures)
        sums = {name: sums.get(name, 0.0) + values for name, values in scored.items()}
    found |= {name: values / len(experts.logits) for name, values in sums.items()}
    untrained = {name: values[mixtures].mean(axis=1) for name, values in experts.untrained.items()}
    return {name: found[name] for name in SCORES} | untrained


def _of_singles(experts: Experts, mixtures: Ints) -> dict[str, Floats]:
    """Compute the scores that are made of one number an expert."""
    alone = np.sort(experts.accuracies[mixtures], axis=1)
    return {
        "mean_single": alone.mean(axis=1),
        "best_single": alone[:, -1],
        "second_single": alone[:, -2],
        "speed": experts.speed[mixtures].mean(axis=1),
        "parameters": experts.parameters[mixtures].sum(axis=1) / 1e6,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Outputs of experts with one seed, on the device."""

    logits: Tensor  # logits, ``(E, N, C)``, float16
    labels: Tensor  # class of each image, ``(N,)``
    hits: Tensor  # whether an expert is right, ``(E, N)``, as 0 and 1
    features: Tensor | None  # pooled features of the images, ``(N, F)``; None where there are none

    @classmethod
    def of(cls, experts: Experts, logits: Tensor, device: str) -> Outputs:
        labels, logits = torch.from_numpy(experts.labels).to(device), logits.to(device)
        features = None if experts.features is None else torch.from_numpy(experts.features).to(device)
        hits = (logits.argmax(2) == labels).double()
        return cls(logits=logits, labels=labels, hits=hits, features=features)

    def margins(self, *, images: Tensor, kind: str, factors: Tensor | None = None) -> Iterator[Tensor]:
        """Yield the outputs of the other classes less that of the right one, ``(E, C - 1, n)``, image by image block.

        Args:
            images: Numbers of the images.
            kind: ``probabilities`` or ``logits``.
            factors: Weight of each expert for each of these images, ``(E, len(images))``; none by default.
        """
        classes = self.logits.shape[2]
        others = torch.arange(classes - 1, device=self.logits.device)
        size = max(1, _COLUMNS // (classes - 1))
        for start in range(0, len(images), size):
            chosen = images[start : start + size]
            values, labels = self.logits[:, chosen].double(), self.labels[chosen]
            if kind == "probabilities":
                values = values.softmax(2)
            places = others + (others >= labels[:, None])  # (n, C - 1): every class but the right one
            right = values.gather(2, labels[None, :, None].expand(len(values), -1, 1))
            parts = values.gather(2, places.expand(len(values), -1, -1)) - right
            if factors is not None:
                parts = parts * factors[:, start : start + size, None]
            yield parts.transpose(1, 2).contiguous()

    def accuracy(self, weights: Tensor, images: Tensor, kind: str, factors: Tensor | None = None) -> Tensor:
        """Return the accuracy of the experts' outputs under weights, ``(Q, E)`` to ``(Q,)``."""
        right = torch.zeros(len(weights), dtype=torch.int64, device=weights.device)
        for part in self.margins(images=images, kind=kind, factors=factors):
            flat = part.flatten(1)
            rows = max(1, _CELLS[weights.device.type] // flat.shape[1])
            for start in range(0, len(weights), rows):
                sums = (weights[start : start + rows] @ flat).reshape(-1, *part.shape[1:])  # (q, C - 1, n)
                right[start : start + rows] += (sums.amax(1) < 0).sum(1)
        return right.double() / len(images)


def _of_outputs(outputs: Outputs, mixtures: Ints) -> dict[str, Floats]:
    """Compute the scores that depend on the outputs image by image."""
    device = outputs.logits.device
    members = torch.from_numpy(mixtures).to(device)
    chosen = torch.zeros(len(members), len(outputs.logits), dtype=torch.float64, device=device)
    chosen.scatter_(1, members, 1.0)  # (Q, E)
    images = torch.arange(len(outputs.labels), device=device)
    found = {
        "mean_probabilities": outputs.accuracy(chosen, images, "probabilities"),
        "mean_logits": outputs.accuracy(chosen, images, "logits"),
        "oracle": _oracle(chosen, outputs.hits),
        **_of_pairs(outputs.hits, members),
    }
    fitted: dict[str, list[Tensor]] = {"convex_weights": [], "ridge_gate": [], "stacking": []}
    nothing = torch.full((len(members),), torch.nan, dtype=torch.float64, device=device)
    for half in halves(len(images)):
        fit, scored = half.fit.to(device), half.scored.to(device)
        truth = (
            outputs.logits[:, fit].double().softmax(2)[:, torch.arange(len(fit), device=device), outputs.labels[fit]]
        )
        weights = convex_weights(truth, chosen)
        fitted["convex_weights"].append(outputs.accuracy(weights, scored, "probabilities"))
        factors = None
        if outputs.features is not None:
            factors = gate_factors(outputs.features, outputs.hits, truth, fit=fit, scored=scored)
        gated = nothing if factors is None else outputs.accuracy(chosen, scored, "probabilities", factors)
        fitted["ridge_gate"].append(gated)
        few = outputs.logits.shape[2] <= _MOST_STACKED
        fitted["stacking"].append(_stacking(outputs, members, fit, scored) if few else nothing)
    sizes = [len(half.scored) / len(images) for half in halves(len(images))]
    for name, parts in fitted.items():
        found[name] = sum((part * size for part, size in zip(parts, sizes, strict=True)), torch.zeros_like(nothing))
    return {name: values.cpu().numpy() for name, values in found.items()}


def _oracle(chosen: Tensor, hits: Tensor) -> Tensor:
    rows = max(1, 8 * _CELLS[hits.device.type] // hits.shape[1])
    return torch.cat([((part @ hits) > 0).double().mean(1) for part in torch.split(chosen, rows)])


def _of_pairs(hits: Tensor, members: Tensor) -> dict[str, Tensor]:
    """Compute the diversity of pairs (Kuncheva and Whitaker 2003), as means over the pairs of each mixture."""
    images = hits.shape[1]
    both, neither = hits @ hits.T / images, (1 - hits) @ (1 - hits).T / images
    one = hits @ (1 - hits).T / images
    odds, against = both * neither, one * one.T
    tables = {
        "disagreement": one + one.T,
        "double_fault": neither,
        # Without any hit or without any miss the odds are not known: no association is assumed.
        "q_statistic": (odds - against) / (odds + against).clamp_min(_TINY),
    }
    pairs = list(combinations(range(members.shape[1]), 2))
    return {
        name: sum((table[members[:, a], members[:, b]] for a, b in pairs), torch.zeros_like(members[:, 0].double()))
        / len(pairs)
        for name, table in tables.items()
    }


def convex_weights(truth: Tensor, chosen: Tensor) -> Tensor:
    """Fit convex weights of the experts of each mixture by expectation-maximisation, for all mixtures together.

    Args:
        truth: Probability that each expert gives to the right class of each image, ``(E, N)``.
        chosen: Experts of each mixture, ``(Q, E)``, as 0 and 1.

    Returns:
        Weights, ``(Q, E)``; each row sums to 1 and is zero outside of the mixture. They rise the likelihood from the
        equal weights on in 20 steps.
    """
    rows = max(1, 8 * _CELLS[truth.device.type] // truth.shape[1])
    found = []
    for part in torch.split(chosen, rows):
        weights = part / part.sum(1, keepdim=True)
        for _ in range(_STEPS):
            # An expert's responsibility over its weight, averaged over the images; over-relaxed by the power.
            ratio = (weights @ truth).clamp_min(_TINY).reciprocal() @ truth.T / truth.shape[1]
            weights = weights * ratio**_RELAXATION
            weights = weights / weights.sum(1, keepdim=True)
        found.append(weights)
    return torch.cat(found)


def gate_factors(features: Tensor, hits: Tensor, truth: Tensor, *, fit: Tensor, scored: Tensor) -> Tensor:
    """Fit a closed-form gate: the hits of each expert are regressed on features of the images (2603.29765).

    A mixture's gate is the softmax over its own experts; its denominator is the same for all classes of an image, so
    that the factors without it give the same decisions for every mixture.

    Args:
        features: Features of the images, ``(N, F)``.
        hits: Whether each expert is right, ``(E, N)``.
        truth: Probability of the right class of the images in ``fit``, ``(E, len(fit))``.
        fit: Images to fit to.
        scored: Images to return factors for.

    Returns:
        Factors, ``(E, len(scored))``.
    """
    mean, scale = features[fit].mean(0), features[fit].std(0).clamp_min(1e-6)
    known, asked = (features[fit] - mean) / scale, (features[scored] - mean) / scale
    goal = hits[:, fit].T
    gram = known.T @ known + _PENALTY * len(fit) * torch.eye(known.shape[1], dtype=known.dtype, device=known.device)
    slopes = torch.linalg.solve(gram, known.T @ (goal - goal.mean(0)))  # (F, E)
    competence = {True: goal.mean(0) + known @ slopes, False: goal.mean(0) + asked @ slopes}

    def likelihood(temperature: float) -> float:
        gate = (competence[True] / temperature).softmax(1)
        return float((gate * truth.T).sum(1).clamp_min(_TINY).log().mean())

    best = max(_TEMPERATURES, key=likelihood)
    values = competence[False] / best
    factors: Tensor = (values - values.amax(1, keepdim=True)).exp().T
    return factors


def _stacking(outputs: Outputs, members: Tensor, fit: Tensor, scored: Tensor) -> Tensor:
    """Return the accuracy of ridge regressions from the experts' log-probabilities to the classes, ``(Q,)``.

    One matrix of products of all experts holds the normal equations of every mixture.
    """
    classes, size = outputs.logits.shape[2], members.shape[1]
    # By class, so that the images of one class are one slice.
    scored = scored[outputs.labels[scored].argsort(stable=True)]
    logs = outputs.logits.double().log_softmax(2).clamp_min(-20).transpose(1, 2)  # (E, C, N)
    known, asked = logs[:, :, fit].flatten(0, 1), logs[:, :, scored]
    mean = known.mean(1, keepdim=True)
    known = known - mean
    goal = torch.nn.functional.one_hot(outputs.labels[fit], classes).double()
    gram, moment = known @ known.T, known @ (goal - goal.mean(0))
    bounds = [0, *torch.bincount(outputs.labels[scored], minlength=classes).cumsum(0).tolist()]
    places = (members[:, :, None] * classes + torch.arange(classes, device=members.device)).flatten(1)  # (Q, K * C)
    eye = torch.eye(size * classes, dtype=torch.float64, device=members.device)
    rows = max(1, 4 * _CELLS[members.device.type] // (size * classes * len(scored)))
    right = []
    for part, own in zip(torch.split(members, rows), torch.split(places, rows), strict=True):
        inner = gram[own[:, :, None], own[:, None]]  # (q, K * C, K * C)
        penalty = _PENALTY * inner.diagonal(dim1=1, dim2=2).mean(1)
        slopes = torch.linalg.solve(inner + penalty[:, None, None] * eye, moment[own])  # (q, K * C, C)
        shift = goal.mean(0) - (mean[own].transpose(1, 2) @ slopes)[:, 0]  # (q, C)
        values = slopes.transpose(1, 2) @ asked[part].flatten(1, 2) + shift[:, :, None]  # (q, C, n)
        best = values.amax(1)
        hits = [
            (values[:, label, low:high] >= best[:, low:high]).sum(1)
            for label, (low, high) in enumerate(pairwise(bounds))
        ]
        right.append(torch.stack(hits).sum(0))
    return torch.cat(right).double() / len(scored)
