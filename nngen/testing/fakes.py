"""Fakes for the campaign's seams, so that its users can be tested without training anything."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nngen.archive import Store
from nngen.campaign.budget import Budget
from nngen.campaign.protocols import Assemble, CampaignInputs, Silent, Watcher
from nngen.campaign.runner import Campaign
from nngen.campaign.spec import CampaignSpec
from nngen.datasets.dataset import Dataset
from nngen.plan import Plan
from nngen.seeds import derive
from nngen.training.engine import CheckJob, TrainJob
from nngen.types import Candidate, EpochResult, Family, Interface, Outcome, Shape, Trial, Verdict

__all__ = ["FakeEngine", "fake_assemble", "fake_bench", "fake_campaign", "fake_dataset", "fake_families"]


def fake_dataset(classes: int = 10) -> Dataset:
    """Make a data set of blank images, 1x8x8; the files that a worker would read do not exist."""
    train, validation, test = (np.arange(count * classes) % classes for count in (1, 4, 5))
    return Dataset(
        name="fake",
        classes=classes,
        fingerprint="d1",
        natural=False,
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
    """Gives each candidate an accuracy that depends on its id and seed alone.

    Attributes:
        checks: What the check finds, by a family's name; valid where none fits.
        trials: Likewise what training finds.
        slots: Trainings at once.
        trained: Ids in the order in which they were trained.
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
            )
            curve.append(point)
            if on_epoch is not None:
                on_epoch(point)
        return Trial(
            candidate_id=candidate.id,
            spec=spec,
            verdict=verdict,
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
    """Make usable families out of names."""
    return {
        name: (
            Family(name=name, source=f"# {name}\n", fingerprint=hashlib.sha256(name.encode()).hexdigest(), best=None),
            Interface(low=8),
        )
        for name in names
    }


def fake_bench(names: Sequence[str] = "ABCDEFG", **changes: Any) -> CampaignInputs:
    """Make campaign inputs with families that have only a name."""
    data = fake_dataset()
    made: dict[str, Any] = {
        "families": fake_families(names),
        "dataset": data,
        "data_fingerprint": data.fingerprint,
        "classes": data.classes,
        "test_labels": data.test_labels.astype("<u2").tobytes(),
    }
    return CampaignInputs(**made | changes)


def fake_campaign(
    archive: Store,
    *,
    engine: FakeEngine | None = None,
    bench: CampaignInputs | None = None,
    assemble: Assemble | None = None,
    watcher: Watcher | None = None,
    budget: Budget | None = None,
    **arguments: Any,
) -> Campaign:
    """Make a campaign of six quartets, two epochs each; ``arguments`` are those of ``CampaignSpec``."""
    given: dict[str, Any] = {"name": "one", "size": 6, "shape": Shape(1, 8, 8), "epochs": 2} | arguments
    return Campaign(
        spec=CampaignSpec(**given),
        archive=archive,
        bench=bench or fake_bench(),
        engine=engine or FakeEngine(),
        assemble=assemble or fake_assemble,
        watcher=watcher or Silent(),
        budget=budget,
    )


def fake_assemble(plan: Plan, experts: Sequence[tuple[Family, Interface]]) -> Candidate:
    """Write a plan out as a list of its experts' names."""
    source = f"EXPERTS = {[family.name for family, _ in experts]!r}\n"
    digest = hashlib.md5("".join(source.split()).encode(), usedforsecurity=False).hexdigest()
    canonical = hashlib.sha256(source.encode()).hexdigest()
    return Candidate(id=f"MoE4-{digest}", source=source, canonical=canonical, plan=plan)


def _verdict(candidate: Candidate, found: Mapping[str, Outcome], where: str) -> Verdict:
    experts = candidate.plan.experts if candidate.plan else ()
    for name, outcome in found.items():
        if name in experts:
            return Verdict(outcome=outcome, rule="fake", message=f"{name} at {where}")
    return Verdict(outcome=Outcome.VALID)


def _predict(labels: npt.NDArray[np.int64], share: float) -> npt.NDArray[np.uint16]:
    """Predict that share of the labels right, the rest off by one."""
    truth = labels.astype("<u2")
    wrong = np.arange(len(truth)) >= round(share * len(truth))
    return ((truth + wrong) % 10).astype("<u2")
