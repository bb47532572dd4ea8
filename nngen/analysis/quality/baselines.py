"""Trivial baselines beside the best accuracy: the most frequent class, the best family alone, LEMUR's record."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from nngen.archive.records import CampaignRecord
from nngen.archive.store import Archive
from nngen.text import counted
from nngen.types import Fidelity, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Baselines:
    """Accuracies that need no mixture; each is None where it is not known."""

    majority: float | None = None  # share of the most frequent class among the validation images
    majority_class: str = ""  # name of that class
    alone: float | None = None  # best validation accuracy of a family alone at the fidelity of the best
    family: str = ""  # name of that family
    record: Record | None = None  # LEMUR's best record of the pool's families on the data set, on LEMUR's test split

    @property
    def lines(self) -> tuple[str, ...]:
        """The known baselines, one clause each."""
        found = []
        if self.majority is not None:
            found.append(f"{self.majority:.4f} always the most frequent class, {self.majority_class}")
        if self.alone is not None:
            found.append(f"{self.alone:.4f} the best family alone, {self.family}, trained alike")
        if self.record is not None:
            epochs = counted(self.record.epoch, "epoch")
            found.append(f"{self.record.accuracy:.4f} LEMUR's record, {self.record.model}, {epochs}, its test split")
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Write the baselines as JSON types."""
        plain = asdict(self)
        if self.record is not None:
            plain["record"] = {name: getattr(self.record, name) for name in ("model", "dataset", "epoch", "accuracy")}
        return plain


def baselines_of(archive: Archive, campaign: CampaignRecord, fidelity: Fidelity | None) -> Baselines:
    """Find the baselines of a campaign to show beside accuracies of a fidelity; None where nothing was trained."""
    labels = np.frombuffer(archive.validation_labels(campaign.data_fingerprint), "<u2")
    share, name = None, ""
    if len(labels):
        counts = np.bincount(labels)
        most = int(counts.argmax())
        names = archive.class_names(campaign.data_fingerprint)
        share, name = float(counts[most] / len(labels)), names[most] if most < len(names) else str(most)
    alone = _best_alone(archive, campaign, fidelity) if fidelity is not None else None
    return Baselines(
        majority=share,
        majority_class=name,
        alone=alone and alone[0],
        family=alone[1] if alone else "",
        record=_record(archive, campaign),
    )


def _best_alone(archive: Archive, campaign: CampaignRecord, fidelity: Fidelity) -> tuple[float, str] | None:
    others = [
        one.name
        for one in archive.campaigns()
        if one.spec.alone and one.data_fingerprint == campaign.data_fingerprint and one.name != campaign.name
    ]
    seeds: dict[str, list[float]] = defaultdict(list)
    for score in (score for name in others for score in archive.scores(name)):
        if score.fidelity == fidelity and score.validation_accuracy is not None and not score.suspect:
            seeds[score.experts[0]].append(score.validation_accuracy)
    return max(((fmean(accuracies), name) for name, accuracies in seeds.items()), default=None)


def _record(archive: Archive, campaign: CampaignRecord) -> Record | None:
    """Return LEMUR's best record of the pool on the data set: from its families, or from imported results."""
    name = campaign.spec.dataset
    known = [record for record in archive.recorded(campaign.pool.values()) if record.dataset == name]
    known = known or [one for one in archive.external.records(dataset=name) if one.model in campaign.pool]
    return max(known, key=lambda record: record.accuracy, default=None)
