"""Fakes for the campaign's seams, so that its users can be tested without training anything."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nngen.archive import Store
from nngen.campaign.budget import Budget
from nngen.campaign.protocols import Assemble, CampaignInputs, Silent, Watcher
from nngen.campaign.runner import Campaign
from nngen.campaign.spec import CampaignSpec
from nngen.seeds import derive
from nngen.types import Candidate, EpochResult, Family, Interface, Outcome, Plan, Shape, Trial, TrialSpec, Verdict

__all__ = ["FakeData", "FakeEngine", "fake_assemble", "fake_bench", "fake_campaign", "fake_families"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeData:
    """Labels and nothing else, ``(N,)`` each, in [0, classes)."""

    validation: tuple[int, ...] = tuple(range(10)) * 4
    test: tuple[int, ...] = tuple(range(10)) * 5
    classes: int = 10


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

    def check(self, candidate: Candidate, *, shape: Shape, classes: int, **limits: Any) -> Verdict:
        return _verdict(candidate, self.checks, f"{shape} with {classes} classes")

    def train(
        self,
        candidate: Candidate,
        spec: TrialSpec,
        dataset: FakeData,
        on_epoch: Callable[[EpochResult], None] | None = None,
    ) -> Trial:
        self.trained.append(candidate.id)
        verdict = _verdict(candidate, self.trials, "training")
        if not verdict.valid:
            return Trial(candidate_id=candidate.id, spec=spec, verdict=verdict, seconds=0.5)
        skill = derive(spec.seed, candidate.id) / 2**32
        curve = []
        for epoch in range(1, spec.epochs + 1):
            share = skill * epoch / spec.epochs
            accuracy = float((_predict(dataset.validation, share) == np.array(dataset.validation)).mean())
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
            validation_predictions=_predict(dataset.validation, skill).tobytes(),
            test_predictions=_predict(dataset.test, skill).tobytes(),
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


def fake_bench(
    names: Sequence[str] = "ABCDEFG", data: FakeData | None = None, **changes: Any
) -> CampaignInputs[FakeData]:
    """Lay out a bench of families that need only a name."""
    data = data or FakeData()
    made: dict[str, Any] = {
        "families": fake_families(names),
        "dataset": data,
        "data_fingerprint": "d1",
        "classes": data.classes,
        "test_labels": np.array(data.test, dtype="<u2").tobytes(),
    }
    return CampaignInputs(**made | changes)


def fake_campaign(
    archive: Store,
    *,
    engine: FakeEngine | None = None,
    bench: CampaignInputs[FakeData] | None = None,
    assemble: Assemble | None = None,
    watcher: Watcher | None = None,
    budget: Budget | None = None,
    **arguments: Any,
) -> Campaign[FakeData]:
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


def _predict(labels: Sequence[int], share: float) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    """Predict that share of the labels right, the rest off by one."""
    truth = np.array(labels, dtype="<u2")
    wrong = np.arange(len(truth)) >= round(share * len(truth))
    return ((truth + wrong) % 10).astype("<u2")
