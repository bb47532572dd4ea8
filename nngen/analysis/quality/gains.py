"""Gains of mixtures over their families alone, paired over the validation images, with intervals.

A family counts where it was trained alone at the mixture's fidelity and under its recipe (``Plan.alone``), as
``nngen campaign run --baselines`` does.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from nngen.analysis.formatting import points, span
from nngen.analysis.statistics import Difference, mean_interval
from nngen.archive.records import CampaignRecord, StoredTrial
from nngen.archive.store import Archive
from nngen.plan import Plan
from nngen.types import Fidelity

Floats: TypeAlias = npt.NDArray[np.float64]
Labels: TypeAlias = npt.NDArray[np.uint16]

_NORMAL = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """A mixture against its families, each trained alone; accuracies are means over seeds."""

    id: str
    experts: tuple[str, ...]
    seeds: int
    accuracy: float
    best: str  # the family with the highest accuracy alone, chosen on the same images
    best_accuracy: float  # accuracy of that family
    over_best: Difference  # the mixture's accuracy less that of its best family, paired over the images
    pooled_accuracy: float | None  # accuracy of the mean of the families' probabilities; None where logits are missing
    over_pooled: Difference | None  # the mixture's accuracy less that of the mean, paired over the images
    parameters: float | None  # its parameters as a multiple of those of its best family
    seconds: float | None  # its seconds of training as a multiple of those of its best family
    # gain over the best family per million parameters that it has more; None without more
    per_million_parameters: float | None
    # gain over the best family per second of training that it takes longer; None where it does not
    per_second: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gains:
    """All mixtures of a campaign whose families were all trained alone, best first."""

    rows: tuple[Gain, ...]
    missing: int  # number of trained mixtures without a result of each family alone

    @property
    def best_alone(self) -> Gain | None:
        """The mixture whose best family is the best of all families alone."""
        return max(self.rows, key=lambda row: row.best_accuracy, default=None)

    @property
    def over_best(self) -> Difference | None:
        """Mean gain over the best family, with Student's interval over the mixtures."""
        return _mean([row.over_best.mean for row in self.rows])

    @property
    def over_pooled(self) -> Difference | None:
        """Mean gain over the mean of the families' predictions, with Student's interval over the mixtures."""
        return _mean([row.over_pooled.mean for row in self.rows if row.over_pooled is not None])

    @property
    def sentences(self) -> tuple[str, ...]:
        """What the rows say together."""
        if self.over_best is None or self.best_alone is None:
            return ()
        better = sum(row.over_best.mean > 0 for row in self.rows)
        top = self.best_alone
        found = [
            f"{len(self.rows):,} mixtures against the best of their own families alone: {_words(self.over_best)};"
            f" {better:,} are better than it",
            f"the best mixture reaches {self.rows[0].accuracy:.4f}, the best family alone, {top.best},"
            f" {top.best_accuracy:.4f}",
        ]
        if self.over_pooled is not None:
            found.insert(1, f"against the mean of their families' predictions: {_words(self.over_pooled)}")
        for word, ratios in (("parameters", "parameters"), ("seconds of training", "seconds")):
            known = [value for row in self.rows if (value := getattr(row, ratios)) is not None]
            if known:
                found.append(f"a mixture takes {median(known):.1f} times the {word} of its best family (median)")
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Write the gains as JSON types."""
        both = {"over_best": self.over_best, "over_pooled": self.over_pooled}
        means = {name: value and asdict(value) for name, value in both.items()}
        return {**means, "missing": self.missing, "mixtures": [asdict(row) for row in self.rows]}


@dataclass(frozen=True, slots=True)
class _Alone:
    """A family alone: its trials' hits per image, their probabilities (None without logits), and its cost."""

    hits: Floats
    probabilities: tuple[npt.NDArray[np.float32] | None, ...]
    parameters: int | None
    seconds: float


def gains(archive: Archive, campaign: CampaignRecord, trials: Iterable[StoredTrial]) -> Gains:
    """Compare the mixtures of a campaign's last rung with their families alone, wherever the archive has them."""
    others = [
        one for one in archive.campaigns() if one.spec.alone and one.data_fingerprint == campaign.data_fingerprint
    ]
    rung = len(campaign.spec.fidelities) - 1
    chosen = [trial for trial in trials if trial.candidate_id and trial.rung == rung and _counts(trial)]
    if not others:
        return Gains(rows=(), missing=len({trial.candidate_id for trial in chosen}))
    labels = np.frombuffer(archive.validation_labels(campaign.data_fingerprint), "<u2")
    seeds: dict[tuple[str, Fidelity], list[StoredTrial]] = defaultdict(list)
    for trial in chosen:
        if trial.candidate_id and trial.fidelity:
            seeds[trial.candidate_id, trial.fidelity].append(trial)
    alone = _families_alone(archive, others, labels, {key for _, key in seeds})
    rows = []
    for (_, fidelity), same in seeds.items():
        members = {name: alone.get((same[0].plan.alone(name), fidelity)) for name in same[0].experts}
        known = {name: member for name, member in members.items() if member is not None}
        hits = _hits(archive, same, labels)
        if known and len(known) == len(members) and hits is not None:
            rows.append(_gain(same, hits, known, labels))
    rows.sort(key=lambda row: (-row.accuracy, row.id))
    return Gains(rows=tuple(rows), missing=len(seeds) - len(rows))


def _counts(trial: StoredTrial) -> bool:
    return trial.trained and not trial.suspect


def _families_alone(
    archive: Archive, campaigns: Iterable[CampaignRecord], labels: Labels, fidelities: Collection[Fidelity]
) -> Mapping[tuple[Plan, Fidelity], _Alone]:
    """Return the families that some campaigns trained alone at some fidelities."""
    found: dict[tuple[Plan, Fidelity], dict[int, StoredTrial]] = defaultdict(dict)
    for campaign in campaigns:
        for trial in archive.trials(campaign.name, curves=False):
            if _counts(trial) and (fidelity := trial.fidelity) is not None and fidelity in fidelities:
                found[trial.plan, fidelity].setdefault(trial.seed, trial)
    known = {}
    for key, seeds in found.items():
        same = list(seeds.values())
        hits = _hits(archive, same, labels)
        if hits is not None:
            known[key] = _Alone(
                hits,
                tuple(_probabilities(archive.logits(trial.id), len(labels)) for trial in same),
                same[0].parameters,
                fmean(trial.seconds or 0.0 for trial in same),
            )
    return known


def _gain(same: Sequence[StoredTrial], hits: Floats, members: Mapping[str, _Alone], labels: Labels) -> Gain:
    best = max(members, key=lambda name: float(members[name].hits.mean()))
    own, pooled = members[best], _pooled(list(members.values()), labels)
    seconds, parameters = fmean(trial.seconds or 0.0 for trial in same), same[0].parameters
    over_best = paired(hits, own.hits)
    more = (parameters - own.parameters) / 1e6 if parameters and own.parameters else 0.0
    return Gain(
        id=same[0].candidate_id or "",
        experts=same[0].experts,
        seeds=len(same),
        accuracy=float(hits.mean()),
        best=best,
        best_accuracy=float(own.hits.mean()),
        over_best=over_best,
        pooled_accuracy=None if pooled is None else float(pooled.mean()),
        over_pooled=None if pooled is None else paired(hits, pooled),
        parameters=parameters / own.parameters if parameters and own.parameters else None,
        seconds=seconds / own.seconds if own.seconds else None,
        per_million_parameters=over_best.mean / more if more > 0 else None,
        per_second=over_best.mean / (seconds - own.seconds) if seconds > own.seconds else None,
    )


def _hits(archive: Archive, same: Sequence[StoredTrial], labels: Labels) -> Floats | None:
    """Return the share of the seeds that are right, per image; None where predictions are missing."""
    predicted = [np.frombuffer(archive.predictions(trial.id, "validation"), "<u2") for trial in same]
    if not len(labels) or any(len(classes) != len(labels) for classes in predicted):
        return None
    hits: Floats = np.mean([classes == labels for classes in predicted], axis=0, dtype=np.float64)
    return hits


def _probabilities(logits: bytes, images: int) -> npt.NDArray[np.float32] | None:
    if not logits:
        return None
    values = np.frombuffer(logits, "<f2").astype(np.float32).reshape(images, -1)
    powers: npt.NDArray[np.float32] = np.exp(values - values.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def _pooled(members: Sequence[_Alone], labels: Labels) -> Floats | None:
    """Return the hits of the mean of the members' probabilities, averaged over their seeds; None without logits."""
    turns = zip(*(member.probabilities for member in members), strict=False)  # as many as all of them have
    hits = []
    for turn in turns:
        known = [values for values in turn if values is not None]
        if len(known) == len(turn):
            hits.append(np.sum(known, axis=0).argmax(axis=1) == labels)
    return np.mean(hits, axis=0, dtype=np.float64) if hits else None


def paired(ones: Floats, others: Floats) -> Difference:
    """Return the mean difference over the images with its interval, for these trained nets on other such images."""
    difference = ones - others
    half = _NORMAL * float(difference.std(ddof=1)) / math.sqrt(len(difference)) if len(difference) > 1 else None
    mean = float(difference.mean())
    return Difference(mean=mean, low=None if half is None else mean - half, high=None if half is None else mean + half)


def _words(difference: Difference) -> str:
    interval = f" ({span(difference)})" if difference.low is not None else ""
    return f"{points(difference.mean)} points{interval}"


def _mean(values: Sequence[float]) -> Difference | None:
    if not values:
        return None
    low, high = mean_interval(values) or (None, None)
    return Difference(mean=fmean(values), low=low, high=high)
