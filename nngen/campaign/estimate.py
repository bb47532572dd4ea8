"""Estimate of what a campaign takes before it runs: time, disk and money, and the trainings that memory refuses.

The seconds of an epoch come from stored trials on the same data with the same settings, or else from the measurements
of the families (``nngen.families.probe``), which add up over the experts of a mixture.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from statistics import fmean
from typing import Any

from nngen.analysis.cost import FamilySeconds, family_seconds, forecast
from nngen.archive.records import CampaignRecord, TrialLine, TrialScore, TrialState
from nngen.archive.store import Archive
from nngen.campaign.protocols import CampaignInputs
from nngen.campaign.successive_halving import planned
from nngen.campaign_spec import CampaignSpec
from nngen.families.probe import Progress, training_costs
from nngen.families.profile import TrainingCost
from nngen.families.trust import AUTO
from nngen.space.pool import EXPERTS
from nngen.text import counted
from nngen.training.memory_model import largest_batch, predict, refusal
from nngen.types import BYTES_PER_CLASS, Family, Interface

_MIB = 2**20
_HOUR_S = 3600.0

SPREAD = 2.0
"""Factor to both sides of a forecast from measurements of families alone: a margin, not a measured interval."""

_MOST_TRIALS = 2_000  # stored trials that the pace is computed from; more would not change it

_STATES = 3
"""Copies of the weights in a checkpoint: themselves and the optimizer's two moments."""

_TEMPLATE_BYTES = 30_000  # bytes of a mixture's file besides the sources of its families


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A training to come."""

    experts: tuple[str, ...]  # families of its mixture; empty where they are not known yet
    epochs: int  # passes over the training images


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds of an epoch, by family."""

    families: FamilySeconds  # the seconds
    spread: float | None  # factor to both sides that the sum may be wrong by; None where ``families`` says it
    basis: str  # origin of the seconds, as a phrase

    def of(self, experts: Sequence[str]) -> float:
        """Return the seconds of an epoch of a mixture; of an unknown one, those of four typical families."""
        return self.families.of(experts) if experts else EXPERTS * self.families.typical

    def seconds(self, work: Sequence[Work]) -> tuple[float, float, float]:
        """Return the seconds of some trainings one after the other: expected, and the ends of their interval."""
        expected = math.fsum(one.epochs * self.of(one.experts) for one in work)
        if self.spread is not None:
            return expected, expected / self.spread, expected * self.spread
        epochs = round(fmean(one.epochs for one in work)) if work else 1
        found = forecast([one.experts for one in work], self.families, epochs=epochs)
        half = (found.high - found.hours) * _HOUR_S
        return expected, max(0.0, expected - half), expected + half


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a campaign takes."""

    name: str  # name of the campaign
    trials: int  # number of trainings to come, if none fails
    epochs: int  # number of their epochs in all
    workers: int  # trainings at a time
    hours: float | None  # hours that it runs; None where nothing is known of its pace
    low: float | None  # lower end of their interval
    high: float | None  # upper end of their interval
    basis: str  # origin of the hours, as a phrase
    # cost at the price of an hour, with the ends of its interval; None without a price
    money: tuple[float, float, float] | None
    archive_mib: float  # space in the archive
    weights_mib: float  # space of the weights that are kept at the end
    checkpoints_mib: float  # space of checkpoints while it runs
    refused: Mapping[str, str]  # reason of each mixture that memory does not suffice for, by its families
    # batch of each mixture that is trained in smaller batches than asked for, by its families
    smaller: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Write the estimate as JSON types."""
        return asdict(self)


def work_to_come(spec: CampaignSpec, lines: Sequence[TrialLine], drawn: Iterable[Sequence[str]]) -> list[Work]:
    """List the trainings of a campaign that are not done, if none fails; ``drawn`` are the families it tries next."""
    new = [tuple(experts) for experts in drawn]
    found = []
    for rung, (count, whole) in enumerate(zip(planned(spec), spec.fidelities, strict=True)):
        epochs = whole - (spec.fidelities[rung - 1] if spec.rungs_continue and rung else 0)
        here = [line for line in lines if line.rung == rung]
        known = [line.experts for line in here if line.state is not TrialState.DONE] + (new if rung == 0 else [])
        later = max(0, count - len(here) - (len(new) if rung == 0 else 0))
        found += [Work(experts=experts, epochs=epochs) for experts in (*known, *[()] * later)]
    return found


def measure_pace(
    archive: Archive,
    spec: CampaignSpec,
    inputs: CampaignInputs,
    names: Collection[str],
    *,
    costs: Mapping[str, TrainingCost] | None = None,
    wanted: str = AUTO,
    progress: Progress | None = None,
) -> Pace | None:
    """Return the seconds that families add to an epoch of a campaign; measured here where no stored trial has them.

    Returns:
        The seconds; None where there are neither trials nor measurements, as for a card before the first trial.
    """
    stored = family_seconds(_alike(archive, spec, inputs.dataset.fingerprint))
    if stored is not None and set(names) <= stored.seconds.keys():
        count = counted(stored.trials, "trial")
        return Pace(families=stored, spread=None, basis=f"{count} of this archive with the same data and settings")
    if spec.device != "cpu":
        return None
    if costs is None:
        pairs, classes = _pairs(inputs, names), inputs.dataset.classes
        costs = training_costs(pairs, spec.shape, classes=classes, wanted=wanted, progress=progress)
    images = inputs.dataset.training_images(spec.train_size)
    seconds = {
        name: epoch_seconds(cost, images, spec.batch, spec.threads) for name, cost in costs.items() if name in names
    }
    if not seconds or seconds.keys() < set(names):
        return None
    families = FamilySeconds(seconds=seconds, typical=fmean(seconds.values()), error=0.0, trials=1)
    count = counted(len(seconds), "family", "families")
    return Pace(families=families, spread=SPREAD, basis=f"measurements of {count} on this machine")


def epoch_seconds(cost: TrainingCost, images: int, batch: int, threads: int) -> float:
    """Return the seconds that a family adds to an epoch over so many images."""
    return images * cost.image_s / threads + math.ceil(images / batch) * cost.step_s


def _alike(archive: Archive, spec: CampaignSpec, fingerprint: str) -> Iterable[TrialScore]:
    """Iterate over trained trials on the same data whose epochs take as long, at most so many."""
    same = ("shape", "train_size", "batch", "augment", "device", "threads")
    names = [
        one.name
        for one in archive.campaigns()
        if one.data_fingerprint == fingerprint
        and not one.spec.rungs_continue  # its seconds are of fewer epochs than its specification's
        and all(getattr(one.spec, key) == getattr(spec, key) for key in same)
    ]
    return islice((trial for name in names for trial in archive.scores(name) if trial.experts), _MOST_TRIALS)


def _pairs(inputs: CampaignInputs, names: Collection[str]) -> list[tuple[Family, Interface]]:
    return [inputs.families[name] for name in sorted(names) if name in inputs.families]


def estimate(
    record: CampaignRecord,
    work: Sequence[Work],
    *,
    archive: Archive,
    inputs: CampaignInputs,
    workers: int,
    memory_mib: float,
    price_per_hour: float | None = None,
    wanted: str = AUTO,
    progress: Progress | None = None,
) -> Estimate:
    """Estimate trainings, ``workers`` at a time with ``memory_mib`` each; families not measured yet are measured."""
    spec, price = record.spec, price_per_hour
    names = {name for one in work for name in one.experts}
    if any(not one.experts for one in work):
        names |= set(record.pool)
    costs = training_costs(
        _pairs(inputs, names), spec.shape, classes=inputs.dataset.classes, wanted=wanted, progress=progress
    )
    pace = measure_pace(archive, spec, inputs, names, costs=costs, wanted=wanted) if names else None
    found = _hours(pace, work, workers)
    refused, smaller = _memory(spec, {one.experts for one in work}, costs, inputs, memory_mib)
    weights = _weights_mib(work, costs)
    kept = len(work) if math.isinf(spec.weights_kept) else min(len(work), int(spec.weights_kept))
    return Estimate(
        name=record.name,
        trials=len(work),
        epochs=sum(one.epochs for one in work),
        workers=workers,
        hours=found and found[0],
        low=found and found[1],
        high=found and found[2],
        basis=pace.basis if pace else "not known before the first epoch",
        money=None if price is None or found is None else (price * found[0], price * found[1], price * found[2]),
        archive_mib=_archive_bytes(spec, work, inputs) / _MIB,
        weights_mib=kept * weights,
        checkpoints_mib=min(workers, len(work)) * _STATES * weights if max(spec.fidelities) > 1 else 0.0,
        refused=refused,
        smaller=smaller,
    )


def _hours(pace: Pace | None, work: Sequence[Work], workers: int) -> tuple[float, float, float] | None:
    """Return the hours of some trainings, so many at a time: expected, and the ends of their interval."""
    if pace is None or not work:
        return None
    expected, low, high = pace.seconds(work)
    # Trainings side by side share the time, and the last ends no earlier than the longest of them.
    longest = max(one.epochs * pace.of(one.experts) for one in work)
    share = max(1 / workers, longest / expected if expected else 0.0) / _HOUR_S
    return expected * share, low * share, high * share


def _memory(
    spec: CampaignSpec,
    mixtures: Collection[tuple[str, ...]],
    costs: Mapping[str, TrainingCost],
    inputs: CampaignInputs,
    memory_mib: float,
) -> tuple[dict[str, str], dict[str, int]]:
    """Return the mixtures that memory does not suffice for, and the smaller batches of others."""
    refused, smaller = {}, {}
    images = inputs.dataset.training_images(spec.train_size)
    for experts in sorted(mixtures):
        found = predict(experts, costs, spec.trial(seed=0), images)
        if found is None:
            continue
        title = ", ".join(experts)
        if (verdict := refusal(found, memory_mib)) is not None:
            refused[title] = verdict.message
        elif (batch := largest_batch(found, spec.batch, memory_mib)) < spec.batch:
            smaller[title] = batch
    return refused, smaller


def _weights_mib(work: Sequence[Work], costs: Mapping[str, TrainingCost]) -> float:
    """Return the mean size of the weights of a mixture."""
    if not costs:
        return 0.0
    typical = fmean(cost.weights_mib for cost in costs.values())
    sizes = [
        sum(costs[name].weights_mib if name in costs else typical for name in one.experts) or EXPERTS * typical
        for one in work
    ]
    return fmean(sizes) if sizes else 0.0


def _archive_bytes(spec: CampaignSpec, work: Sequence[Work], inputs: CampaignInputs) -> float:
    """Return the bytes of sources, predictions and logits."""
    data = inputs.dataset
    predictions = BYTES_PER_CLASS * (len(data.validation_labels) + len(data.test_labels))
    if spec.alone:
        predictions += 2 * data.classes * len(data.validation_labels)
    sources = {name: len(family.source) for name, (family, _) in inputs.families.items()}
    typical = EXPERTS * fmean(sources.values()) if sources else 0.0
    files = [sum(sources.get(name, 0) for name in one.experts) or typical for one in work]
    return math.fsum(size + _TEMPLATE_BYTES + predictions for size in files)
