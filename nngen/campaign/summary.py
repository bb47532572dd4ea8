"""Summary of a campaign (trials, coverage, rungs, the best candidate) and its status (driver, rate, budget used)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from nngen.analysis.leaderboard import leaderboard
from nngen.analysis.observations import is_quartet
from nngen.analysis.quality.baselines import Baselines, baselines_of
from nngen.analysis.ranking.rows import Row
from nngen.analysis.results import template_note
from nngen.analysis.suspicion import suspicions
from nngen.archive.records import CampaignRecord, StoredTrial, TrialLine, TrialState
from nngen.archive.store import Archive
from nngen.campaign.budget import Budget, Usage, last_budget, read_usage
from nngen.campaign.successive_halving import Ladder, planned
from nngen.campaign_spec import CampaignSpec
from nngen.space import Coverage, coverage
from nngen.types import Outcome

_TURNS = ("campaign.resumed", "campaign.paused", "campaign.continued")
"""The last of these events says whether the driver is paused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """Progress of one rung."""

    epochs: int  # epochs of each of its trainings
    trials: int  # number of candidates that reached it
    done: int  # number of its trials that are done
    promoted: int  # number of candidates promoted from it
    best: float | None  # highest validation accuracy on it


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Result of a campaign, or its state so far."""

    name: str  # name of the campaign
    planned: int  # number of trials if none fails, with rungs and seeds of finalists
    over: bool  # whether every trial is done and none is to come
    states: Mapping[str, int]  # number of trials per state
    outcomes: Mapping[str, int]  # number of finished trials per outcome
    coverage: Coverage | None  # audit of the finished quartets against the campaign's pool
    # trial with the highest validation accuracy on the highest rung, with its test accuracy if revealed; of finalists,
    # the first seed of the one with the highest mean
    best: StoredTrial | None
    suspect: str  # reason why the accuracy of the best is not comparable with that of others; empty for most
    baselines: Baselines  # trivial baselines that the best accuracy stands beside; none in lists of campaigns
    rungs: tuple[Rung, ...]  # progress of the rungs; one without rungs
    finalists: tuple[Row, ...]  # mean and spread over the seeds of the candidates that were trained again, best first
    left_out: Mapping[str, str]  # families that could not be used, with the reason
    template_versions: Mapping[int, int]  # number of assembled candidates per version of the templates
    # number of trials that a recorded table answered in place of a training, by the rule of their verdict
    replayed: Mapping[str, int]
    templates: str  # note on candidates assembled with older templates; empty where there is nothing to note

    @property
    def total(self) -> int:
        """Number of trials, those to come included."""
        there = sum(self.states.values())
        return there if self.over else max(self.planned, there)

    @property
    def done(self) -> int:
        """Number of trials that are done."""
        return self.states[TrialState.DONE.value]

    @property
    def failed(self) -> int:
        """Number of finished trials with an outcome other than valid."""
        return self.done - self.outcomes.get(Outcome.VALID.value, 0)

    def to_dict(self) -> dict[str, Any]:
        """Write the summary as JSON types."""
        best = self.best and {
            "id": self.best.candidate_id,
            "experts": list(self.best.experts),
            "validation_accuracy": self.best.validation_accuracy,
            "test_accuracy": self.best.test_accuracy,
            "suspect": self.suspect,
        }
        return {
            "campaign": self.name,
            "trials": self.total,
            **self.states,
            "failed": self.failed,
            "outcomes": dict(self.outcomes),
            "share": self.coverage and self.coverage.share,
            "verdict": self.coverage and self.coverage.verdict,
            "best": best,
            "baseline_accuracies": self.baselines.to_dict(),
            "over": self.over,
            "rungs": [asdict(rung) for rung in self.rungs],
            "finalists": [row.to_dict() for row in self.finalists],
            "left_out": dict(self.left_out),
            "template_versions": dict(self.template_versions),
            "replayed": dict(self.replayed),
        }


def summarise(archive: Archive, name: str, *, test_labels: bytes | None = None, brief: bool = False) -> Summary:
    """Summarise a campaign; ``brief`` leaves out coverage, baselines and templates, for lists of campaigns.

    With ``test_labels``, the test accuracy of the best trial is computed and stored, once, when all trials are done.

    Raises:
        UsageError: If the campaign does not exist.
    """
    campaign = archive.campaign(name)
    spec, lines = campaign.spec, archive.lines(name, brief=True)
    ladder = Ladder(spec, lines)
    first = [line for line in lines if line.replicate == 0]
    seeds: dict[tuple[int, int], list[TrialLine]] = {}
    for line in lines:
        seeds.setdefault((line.position, line.rung), []).append(line)
    chosen, highest = ladder.finalists, ladder.highest
    finalists = [seeds[line.position, line.rung] for line in first if line.id in chosen]
    best = _best(finalists or [seeds[line.position, line.rung] for line in first if line.id in highest])
    if best and test_labels is not None and ladder.over:
        for line in best:
            reveal_test(archive, archive.trial(line.id), test_labels)
    versions = {} if brief else archive.template_versions(name)
    states = Counter(line.state for line in lines)
    first_of_best = archive.trial(best[0].id) if best else None
    again = finalists if any(len(same) > 1 for same in finalists) else []
    return Summary(
        name=name,
        planned=sum(planned(spec)),
        over=ladder.over,
        states={state.value: states[state] for state in TrialState},
        outcomes=Counter(line.outcome.value for line in lines if line.outcome and line.state is TrialState.DONE),
        coverage=_coverage(archive, campaign, first) if campaign.pool and not (spec.alone or brief) else None,
        best=first_of_best,
        suspect=_suspicion(best, lines),
        baselines=Baselines()
        if brief
        else baselines_of(archive, campaign, first_of_best.fidelity if first_of_best else None),
        rungs=tuple(_rung(spec, first, rung) for rung in range(len(spec.fidelities))),
        finalists=leaderboard(archive.trial(line.id) for same in again for line in same),
        left_out=campaign.left_out,
        template_versions=versions,
        replayed=archive.replayed(name),
        templates=template_note(versions, over=ladder.over or bool(campaign.candidates)),
    )


def _coverage(archive: Archive, campaign: CampaignRecord, first: Iterable[TrialLine]) -> Coverage:
    experts = archive.experts(campaign.spec.name)
    done = (line.position for line in first if line.rung == 0 and line.state is TrialState.DONE)
    quartets = (experts.get(position, ()) for position in done)
    return coverage(sorted(campaign.pool), filter(is_quartet, quartets))


def _best(candidates: Sequence[Sequence[TrialLine]]) -> Sequence[TrialLine]:
    """Return the seeds of the best candidate on validation, the earliest of equals.

    Candidates compare by their mean over all seeds; one that fails with a seed ranks behind others.
    """

    def merit(same: Sequence[TrialLine]) -> tuple[int, float, int]:
        accuracies = [line.validation_accuracy for line in same if line.validation_accuracy is not None]
        return len(accuracies), fmean(accuracies), -same[0].id

    return max(candidates, key=merit, default=())


def _suspicion(best: Sequence[TrialLine], lines: Sequence[TrialLine]) -> str:
    """Return why one of the best candidate's seeds is suspect among the trials of its rung."""
    reasons = suspicions(line for line in lines if best and line.rung == best[0].rung)
    return next((reasons[line.id] for line in best if line.id in reasons), "")


def _rung(spec: CampaignSpec, first: Sequence[TrialLine], rung: int) -> Rung:
    here = [line for line in first if line.rung == rung]
    accuracies = (line.validation_accuracy for line in here if line.validation_accuracy is not None)
    return Rung(
        epochs=spec.fidelities[rung],
        trials=len(here),
        done=sum(line.state is TrialState.DONE for line in here),
        promoted=sum(line.rung == rung + 1 for line in first),
        best=max(accuracies, default=None),
    )


def reveal_test(archive: Archive, trial: StoredTrial, test_labels: bytes) -> float | None:
    """Return the test accuracy of a trial, computed from its predictions once; None for a trial without any.

    Args:
        archive: Archive of the trial, which stores the accuracy.
        trial: The trial.
        test_labels: Classes of the test images, as little-endian uint16.
    """
    predicted = np.frombuffer(archive.predictions(trial.id, "test"), dtype="<u2")
    labels = np.frombuffer(test_labels, dtype="<u2")
    if trial.test_accuracy is None and predicted.size and predicted.size == labels.size:
        return archive.reveal_test(trial.id, float((predicted == labels).mean()))
    return trial.test_accuracy


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Progress of a campaign."""

    driver: int | None  # process id of its driver; None without one
    paused: bool  # whether the driver is paused
    budget: Budget  # limits that were set last
    spent: Usage  # usage until the last event
    per_hour: float | None  # trials done per hour of running, over the whole campaign; None before the first
    promotions: int  # number of decisions to train a candidate longer or with another seed
    lost: int  # number of trials that the engine lost and that were tried again

    @property
    def word(self) -> str:
        """``running``, ``paused`` or ``not being run``."""
        return "not being run" if self.driver is None else "paused" if self.paused else "running"

    def to_dict(self) -> dict[str, Any]:
        """Write the status as JSON types."""
        plain = {name: getattr(self, name) for name in ("driver", "paused", "per_hour", "promotions", "lost")}
        return plain | {"budget": self.budget.to_dict(), "spent": asdict(self.spent)}


def read_status(archive: Archive, name: str) -> Status:
    """Read the progress of a campaign, up to its last event.

    Raises:
        UsageError: If the campaign does not exist.
    """
    archive.campaign(name)
    turns = archive.events(name, kinds=_TURNS)
    used, driver = read_usage(archive, name), archive.driver(name)
    return Status(
        driver=driver,
        paused=driver is not None and bool(turns) and turns[-1].kind == "campaign.paused",
        budget=last_budget(archive.events(name, kinds=("budget.set",))),
        spent=used,
        per_hour=used.trials / used.hours if used.trials and used.hours else None,
        promotions=archive.count_events(name, "trial.promoted"),
        lost=sum("reason" in event.detail for event in archive.events(name, kinds=("trial.requeued",))),
    )
