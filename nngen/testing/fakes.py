"""Fakes of an engine, a data set, families and an assembler, for tests that train nothing.

They fit wherever the real ones do::

    engine = FakeEngine(checks={"A": Outcome.SHAPE}, slots=2)
    with Archive.in_memory() as archive:
        summary = fake_campaign(archive, engine=engine, size=20).run()
    assert summary.outcomes["shape"] == 10
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nngen.archive import Archive, CampaignRecord
from nngen.assembly.identity import TEMPLATE_VERSION
from nngen.campaign.protocols import CampaignInputs
from nngen.campaign.runner import Campaign
from nngen.campaign_spec import CampaignSpec
from nngen.datasets.dataset import Dataset
from nngen.lemur.layout import nn_id
from nngen.plan import Plan
from nngen.seeds import derive
from nngen.training.engine import CheckJob, TrainJob
from nngen.types import Candidate, EpochResult, Family, Interface, Outcome, Shape, Trial, Verdict

__all__ = [
    "FakeEngine",
    "fake_assemble",
    "fake_campaign",
    "fake_dataset",
    "fake_families",
    "fake_inputs",
    "fake_record",
]


def fake_dataset(classes: int = 10, fingerprint: str = "d1") -> Dataset:
    """Make a data set of blank images, 1x8x8; the files that a worker would read do not exist."""
    train, validation, test = (np.arange(count * classes) % classes for count in (1, 4, 5))
    return Dataset(
        name="fake",
        classes=classes,
        fingerprint=fingerprint,
        default_shape=Shape(1, 8, 8),
        mean=(0.5,),
        std=(0.5,),
        folder=Path("fake"),
        train_images=_blank(train),
        train_labels=train,
        validation_images=_blank(validation),
        validation_labels=validation,
        test_images=_blank(test),
        test_labels=test,
    )


def _blank(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    return np.zeros((len(labels), 1, 8, 8), np.uint8)


@dataclass(slots=True, kw_only=True)
class FakeEngine:
    """An engine that computes accuracies from the candidate's id and the seed alone.

    Attributes:
        checks: Outcome of the check of candidates with a family, by its name; all others are valid.
        trials: Outcome of the training of candidates with a family, by its name; all others are trained.
        slots: Number of trainings at once.
        trained: Ids of the candidates in the order in which they were trained.
    """

    checks: Mapping[str, Outcome] = field(default_factory=dict)
    trials: Mapping[str, Outcome] = field(default_factory=dict)
    slots: int = 1
    trained: list[str] = field(default_factory=list)

    def check(self, job: CheckJob) -> Verdict:
        return _verdict(job.candidate, self.checks, f"{job.shape} with {job.classes} classes")

    def train(self, job: TrainJob, on_epoch: Callable[[EpochResult], None] | None = None) -> Trial:
        candidate, spec, dataset = job.candidate, job.spec, job.dataset
        self.trained.append(candidate.id)
        verdict = _verdict(candidate, self.trials, "training")
        if not verdict.valid:
            return Trial(candidate_id=candidate.id, spec=spec, verdict=verdict, seconds=0.5)
        skill = derive(spec.seed, candidate.id) / 2**32
        curve = []
        for epoch in range(1, spec.epochs + 1):
            share = skill * epoch / spec.epochs
            accuracy = float((_predict(dataset.validation_labels, share) == dataset.validation_labels).mean())
            point = EpochResult(
                epoch=epoch,
                validation_accuracy=accuracy,
                train_loss=2 - share,
                seconds=0.5,
                usage=(0.25,) * 4,
                entropy=1.0,
                samples=len(dataset.train_labels),
            )
            curve.append(point)
            if on_epoch is not None:
                on_epoch(point)
        logits = np.eye(dataset.classes, dtype="<f2")[_predict(dataset.validation_labels, skill)]
        return Trial(
            candidate_id=candidate.id,
            spec=spec,
            verdict=verdict,
            validation_logits=logits.tobytes() if job.logits else b"",
            validation_accuracy=curve[-1].validation_accuracy,
            curve=tuple(curve),
            validation_predictions=_predict(dataset.validation_labels, skill).tobytes(),
            test_predictions=_predict(dataset.test_labels, skill).tobytes(),
            parameters=1000 + len(candidate.source),
            seconds=0.5 * spec.epochs,
            peak_mib=100.0,
            environment={"engine": "fake"},
        )


def fake_families(names: Sequence[str]) -> dict[str, tuple[Family, Interface]]:
    """Make usable families from names."""
    hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    return {
        name: (Family(name=name, source=f"# {name}\n", fingerprint=found, best=None), Interface(low=8))
        for name, found in hashes.items()
    }


def fake_inputs(names: Sequence[str] = "ABCDEFG", **changes: Any) -> CampaignInputs:
    """Make the inputs of a campaign: families that have only a name, and a data set of blank images.

    Args:
        names: Names of the families.
        changes: Fields of ``CampaignInputs`` to be given in their place.
    """
    made: dict[str, Any] = {"families": fake_families(names), "dataset": fake_dataset()}
    return CampaignInputs(**made | changes)


def fake_campaign(archive: Archive, **changes: Any) -> Campaign:
    """Make a campaign of six quartets with two epochs each, from fakes wherever nothing else is given.

    A campaign that stores real trials without training anything::

        with Archive.in_memory() as archive:
            summary = fake_campaign(archive, size=12, sampler="balanced").run()
            assert summary.done == 12

    Args:
        archive: Archive that holds the campaign.
        changes: Fields of ``Campaign`` and of ``CampaignSpec``, mixed; they have no name in common.
    """
    parts, arguments = _split(changes, Campaign)
    spec: dict[str, Any] = {"name": "one", "size": 6, "shape": Shape(1, 8, 8), "epochs": 2} | arguments
    fakes: dict[str, Any] = {"inputs": fake_inputs(), "engine": FakeEngine(), "assemble": fake_assemble}
    return Campaign(archive=archive, spec=CampaignSpec(**spec), **fakes | parts)


def fake_record(name: str = "one", **changes: Any) -> CampaignRecord:
    """Make the record of a campaign without trials, to be added to an archive.

    Args:
        name: Name of the campaign.
        changes: Fields of ``CampaignRecord`` and of ``CampaignSpec``, mixed; they have no name in common.
    """
    parts, arguments = _split(changes, CampaignRecord)
    spec: dict[str, Any] = {"name": name, "size": 1, "shape": Shape(1, 8, 8)} | arguments
    return CampaignRecord(spec=CampaignSpec(**spec), **parts)


def _split(changes: Mapping[str, Any], kind: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separate the fields of a dataclass from the other names."""
    own = {item.name for item in fields(kind)} & changes.keys()
    return {name: changes[name] for name in own}, {name: changes[name] for name in changes.keys() - own}


def fake_assemble(plan: Plan, experts: Sequence[tuple[Family, Interface]]) -> Candidate:
    """Assemble a plan to a source that only lists the names of its experts."""
    source = f"EXPERTS = {[family.name for family, _ in experts]!r}\n"
    canonical = hashlib.sha256(source.encode()).hexdigest()
    found = f"MoE4-{nn_id(source)}"
    return Candidate(id=found, source=source, canonical=canonical, plan=plan, template_version=TEMPLATE_VERSION)


def _verdict(candidate: Candidate, found: Mapping[str, Outcome], where: str) -> Verdict:
    experts = candidate.plan.experts if candidate.plan else ()
    for name, outcome in found.items():
        if name in experts:
            return Verdict(outcome=outcome, rule="fake", message=f"{name} at {where}")
    return Verdict(outcome=Outcome.VALID)


def _predict(labels: npt.NDArray[np.int64], share: float) -> npt.NDArray[np.uint16]:
    """Predict so large a share of the labels correctly, the rest off by one."""
    truth = labels.astype("<u2")
    wrong = np.arange(len(truth)) >= round(share * len(truth))
    return ((truth + wrong) % 10).astype("<u2")
