"""Fake engine with computed accuracies, a campaign of proposals on it, and a model with given replies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from nngen.archive import Archive, StoredTrial
from nngen.campaign.protocols import CampaignInputs, Watcher
from nngen.campaign.runner import Campaign
from nngen.campaign_spec import CampaignSpec
from nngen.isolation import Isolation
from nngen.llm.proposals.log import Proposal
from nngen.llm.proposals.parents import new_candidates
from nngen.llm.rewriters.base import Reply, Request
from nngen.training.engine import CheckJob, TrainJob
from nngen.types import EpochResult, Outcome, Shape, Trial, Verdict

SPEC = CampaignSpec(name="trials", size=1, dataset="fake", shape=Shape(1, 8, 8))


class PlanEngine:
    """Engine whose accuracies are sums over families with a little noise from the seed.

    Attributes:
        checked: Ids of checked candidates, in order.
        trained: Ids of trained candidates, in order.
        levels: Isolation level of each job, in order.
        refuse: Text of sources that the check refuses.
    """

    slots = 1

    def __init__(self) -> None:
        self.checked: list[str] = []
        self.trained: list[str] = []
        self.levels: list[Isolation] = []
        self.refuse = ""

    def check(self, job: CheckJob) -> Verdict:
        self.levels.append(job.isolation)
        self.checked.append(job.candidate.id)
        if self.refuse and self.refuse in job.candidate.source:
            return Verdict(outcome=Outcome.SHAPE, rule="shape", message=f"{self.refuse} does not fit")
        return Verdict(outcome=Outcome.VALID)

    def train(self, job: TrainJob, on_epoch: Callable[[EpochResult], None] | None = None) -> Trial:
        candidate = job.candidate
        self.levels.append(job.isolation)
        self.trained.append(candidate.id)
        truth = sum(_worth(name) for name in candidate.plan.experts) if candidate.plan else 0.5
        digest = hashlib.sha256(f"{candidate.id}{job.spec.seed}".encode()).hexdigest()
        accuracy = 0.3 + truth + (int(digest[:4], 16) / 65535 - 0.5) * 0.0005
        return Trial(
            candidate_id=candidate.id,
            spec=job.spec,
            verdict=Verdict(outcome=Outcome.VALID),
            validation_accuracy=accuracy,
            curve=(EpochResult(epoch=1, validation_accuracy=accuracy),),
        )


class Scripted:
    """Model that answers from a list, independent of the request."""

    trusted = False

    def __init__(self, *texts: str | Reply) -> None:
        self.name, self.texts, self.asked = "scripted", list(texts), []

    def propose(self, requests: Sequence[Request]) -> list[Reply]:
        self.asked += requests
        said = [self.texts.pop(0) for _ in requests]
        return [Reply(text=text) if isinstance(text, str) else text for text in said]


def _worth(name: str) -> float:
    return int(hashlib.sha256(name.encode()).hexdigest()[:2], 16) / 2550


def train(
    archive: Archive,
    batch: str,
    rows: Sequence[Proposal],
    engine: PlanEngine,
    inputs: CampaignInputs,
    watcher: Watcher | None = None,
    **changes: Any,
) -> tuple[StoredTrial, ...]:
    """Train the new proposals of a batch as a campaign of its name; ``changes`` are fields of its specification."""
    source = new_candidates(archive, rows)
    spec = CampaignSpec(name=batch, size=len(source.suggestions), dataset="fake", shape=SPEC.shape, **changes)
    campaign = Campaign(
        spec=spec,
        archive=archive,
        inputs=inputs,
        engine=engine,
        source=source,
        watcher=watcher or Watcher(),
        reveal=False,
    )
    campaign.run()
    return archive.trials(batch)
