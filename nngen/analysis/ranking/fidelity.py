"""Agreement of rankings after few epochs with those after many, from learning curves and from campaigns with rungs.

Kendall's tau-b is computed from the signs of all differences, so that a bootstrap over models is one product of
matrices: in a resample each model has a weight, and pairs of a model with itself are ties.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nngen.archive.records import CampaignRecord, TrialLine
from nngen.families.catalogue import is_base
from nngen.text import counted, public_name
from nngen.types import Record

EPOCHS = (1, 2, 5, 10, 20)
"""Epochs after which rankings are compared with the last one."""

LAST = 50
"""Epochs of the trainings that LEMUR's curves are compared at."""

GOOD = 0.6
"""Tau from which on a ranking is not warned of: four of five pairs in the same order."""

_FEWEST = 5
_TOP = 5
_DRAWS = 1000
_PUBLISHED = Path(__file__).with_name("lemur_fidelity.json")

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Accuracies of one training by epoch; of several at one epoch, those of repeated trainings, the best counts."""

    model: str  # name of the model
    accuracies: Mapping[int, float]  # accuracy by epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Agreement of the rankings after two numbers of epochs."""

    # objects that are ranked: ``families`` (each by the best of its trainings), ``runs`` (all trainings), or the name
    # of a campaign
    what: str
    models: int  # number of different models
    runs: int  # number of accuracies that are ranked
    epochs: int  # epochs of the first ranking
    last: int  # epochs of the second ranking
    tau: float  # Kendall's tau-b of the two
    low: float  # lower end of its 95 % interval (bootstrap over models)
    high: float  # upper end
    top: int  # number of the best five of the second ranking that are among the best five of the first
    regret: float  # accuracy that the first of the first ranking lacks to the best, in the second ranking


def curves_of(records: Iterable[Record]) -> list[Curve]:
    """Join records into curves: equal model and equal hyperparameters are one training."""
    found: dict[tuple[object, ...], dict[int, float]] = defaultdict(dict)
    for record in records:
        points = found[record.model, *sorted(record.hyperparameters.items())]
        points[record.epoch] = max(record.accuracy, points.get(record.epoch, 0.0))
    return [Curve(model=str(key[0]), accuracies=points) for key, points in found.items()]


def by_family(curves: Iterable[Curve], epochs: Iterable[int]) -> list[Curve]:
    """Return one curve for each base family with some at all of the epochs: the best of its trainings at each."""
    best: dict[str, dict[int, float]] = defaultdict(dict)
    for curve in curves:
        if is_base(curve.model):
            points = best[curve.model]
            for epoch, accuracy in curve.accuracies.items():
                points[epoch] = max(accuracy, points.get(epoch, 0.0))
    return whole([Curve(model=name, accuracies=points) for name, points in sorted(best.items())], epochs)


def whole(curves: Iterable[Curve], epochs: Iterable[int]) -> list[Curve]:
    """Return the curves with an accuracy at each of the epochs."""
    epochs = tuple(epochs)
    return [curve for curve in curves if all(epoch in curve.accuracies for epoch in epochs)]


def ranks(curves: Sequence[Curve], epoch: int) -> dict[str, int]:
    """Return the rank of each model after an epoch, from 1; equal ones share the better rank."""
    values = [curve.accuracies[epoch] for curve in curves]
    better = [sum(other > value for other in values) for value in values]
    return {curve.model: 1 + count for curve, count in zip(curves, better, strict=True)}


def agreements(
    curves: Sequence[Curve], *, epochs: Iterable[int] = EPOCHS, last: int = LAST, runs: bool = True
) -> list[Agreement]:
    """Compare the rankings after each number of epochs with the one after the last.

    Families are compared and, with ``runs``, all runs that have these epochs.
    """
    epochs = tuple(epochs)
    families = by_family(curves, (*epochs, last))
    found = []
    for what, chosen in (("families", families), ("runs", whole(curves, range(1, last + 1)) if runs else [])):
        if len(chosen) >= _FEWEST:
            names = [curve.model for curve in chosen]
            later = _column(chosen, last)
            found += [_agreement(what, names, epoch, last, _column(chosen, epoch), later) for epoch in epochs]
    return found


def rung_agreements(campaigns: Iterable[CampaignRecord], lines: Iterable[TrialLine]) -> list[Agreement]:
    """Compare the rankings of each two rungs of own campaigns, among the candidates that were on both.

    Only the best of a rung go on to the next one, so the taus are lower than those of all candidates would be.
    """
    accuracies: dict[tuple[str, int], dict[int, tuple[float, str]]] = defaultdict(dict)
    for line in lines:
        if line.validation_accuracy is not None and line.replicate == 0:
            name = line.candidate_id or ""
            accuracies[line.campaign, line.rung][line.position] = (line.validation_accuracy, name)
    found = []
    for campaign in campaigns:
        fidelities = campaign.spec.fidelities
        for low in range(len(fidelities)):
            for high in range(low + 1, len(fidelities)):
                first, second = accuracies[campaign.name, low], accuracies[campaign.name, high]
                both = sorted(first.keys() & second.keys())
                if len(both) >= _FEWEST:
                    names = [first[place][1] for place in both]
                    early, later = (np.array([rung[place][0] for place in both]) for rung in (first, second))
                    found.append(_agreement(campaign.name, names, fidelities[low], fidelities[high], early, later))
    return found


def _column(curves: Sequence[Curve], epoch: int) -> Vector:
    return np.array([curve.accuracies[epoch] for curve in curves])


def _agreement(what: str, names: Sequence[str], epochs: int, last: int, early: Vector, later: Vector) -> Agreement:
    tau, low, high = _tau(early, later, names)
    first, second = (set(np.argsort(-values, kind="stable")[:_TOP].tolist()) for values in (early, later))
    chosen = later[early == early.max()].mean()  # equally good first places are equally likely
    return Agreement(
        what=what,
        models=len(set(names)),
        runs=len(names),
        epochs=epochs,
        last=last,
        tau=tau,
        low=low,
        high=high,
        top=len(first & second),
        regret=float(later.max() - chosen),
    )


def _tau(one: Vector, other: Vector, groups: Sequence[str]) -> tuple[float, float, float]:
    """Return Kendall's tau-b with its 95 % percentile interval over resampled groups."""
    signs = [np.sign(values[:, None] - values[None, :]).astype(np.float32) for values in (one, other)]  # (n, n)
    products = signs[0] * signs[1], signs[0] ** 2, signs[1] ** 2
    names = sorted(set(groups))
    place = np.searchsorted(names, groups)
    random = np.random.default_rng(0)
    drawn = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=_DRAWS)
    weights = np.vstack([np.ones(len(groups)), drawn[:, place]]).astype(np.float32)  # (draws + 1, n)
    both, first, second = (((weights @ product) * weights).sum(axis=1) for product in products)
    scale = np.sqrt(first.astype(np.float64) * second)
    taus = np.divide(both, scale, out=np.zeros(len(scale)), where=scale > 0)
    low, high = np.quantile(taus[1:], (0.025, 0.975))
    return float(taus[0]), float(low), float(high)


@cache
def published() -> Mapping[str, Sequence[Sequence[float]]]:
    """Return tau with its interval of LEMUR's families after 1 to 49 epochs, by data set (``eval/fidelity.py``)."""
    found: Mapping[str, Sequence[Sequence[float]]] = json.loads(_PUBLISHED.read_bytes())
    return found


def fidelity_note(dataset: str, epochs: int) -> str:
    """State how families rank after so many epochs, by LEMUR's curves (else CIFAR-10's); "" from ``LAST`` epochs on."""
    if epochs >= LAST:
        return ""
    known = dataset if dataset in published() else "cifar-10"
    tau, low, high = published()[known][epochs - 1]
    other = "" if known == dataset else f"; {public_name(dataset)} itself was not measured"
    plain = (
        f"after {counted(epochs, 'epoch')} families rank like after {LAST} with tau {tau:.2f}"
        f" ({low:.2f} to {high:.2f}; LEMUR, {known}{other})"
    )
    if tau >= GOOD:
        return plain
    enough = next((place for place, row in enumerate(published()[known], start=1) if row[0] >= GOOD), LAST)
    return f"{plain}: a first place, or a family left out, may not last; {enough} epochs reach {GOOD:g}"
