"""Candidates around a batch: parents with their mean accuracies at one fidelity, and new proposals to train."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from nngen.analysis.suspicion import suspicions
from nngen.archive.records import StoredCandidate, StoredTrial
from nngen.archive.store import Archive
from nngen.campaign.protocols import GivenCandidates, Suggestion
from nngen.errors import UsageError
from nngen.llm.proposals.evidence import noise_of
from nngen.llm.proposals.log import Funnel, Proposal, funnel
from nngen.plan import Plan
from nngen.types import Fidelity


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """Candidate that a proposal starts from.

    Attributes:
        id: Id of the candidate.
        source: Source of the candidate.
        plan: Plan that it was assembled from; None for code that a rewriter wrote.
        accuracy: Mean validation accuracy at the fidelity in use; None where it was not trained at it.
    """

    id: str
    source: str
    plan: Plan | None
    accuracy: float | None = None

    @classmethod
    def of(cls, candidate: StoredCandidate, accuracy: float | None = None) -> Parent:
        """Make a parent of a stored candidate."""
        return cls(id=candidate.id, source=candidate.source, plan=candidate.plan, accuracy=accuracy)

    @property
    def accuracy_text(self) -> str:
        """Accuracy as prompts show it; empty where it is unknown."""
        return "" if self.accuracy is None else f"{self.accuracy:.4f}"


def at_fidelity(trials: Iterable[StoredTrial], fidelity: Fidelity) -> list[StoredTrial]:
    """Select the trials of a fidelity, suspect ones left out: their accuracies are comparable."""
    alike = [trial for trial in trials if trial.fidelity == fidelity]
    reasons = suspicions(alike)
    return [trial for trial in alike if trial.id not in reasons]


def mean_accuracies(trials: Iterable[StoredTrial]) -> dict[str, float]:
    """Compute the mean validation accuracy of each candidate."""
    return {name: fmean(values) for name, values in _accuracies(trials).items()}


def _accuracies(trials: Iterable[StoredTrial]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for trial in trials:
        if trial.validation_accuracy is not None and trial.candidate_id is not None:
            found[trial.candidate_id].append(trial.validation_accuracy)
    return found


def top_parents(
    archive: Archive, trials: Iterable[StoredTrial], count: int, children: Mapping[str, int] | None = None
) -> list[Parent]:
    """Return the candidates with the highest mean accuracy less its standard error, best first.

    Args:
        archive: Archive with the candidates.
        trials: Trials that can be compared with each other.
        count: Most candidates that are returned.
        children: Number of proposals that were made from each candidate; each doubling costs it the deviation between
            seeds, so that a parent whose children were no better gives way to others.
    """
    known = list(trials)
    found, noise = _accuracies(known), noise_of(known).sd

    def value(name: str) -> float:
        tried = math.log2(1 + (children or {}).get(name, 0))
        return fmean(found[name]) - noise * (1 / math.sqrt(len(found[name])) + tried)

    best = sorted(found, key=lambda name: (-value(name), name))[:count]
    return [Parent.of(archive.candidate(name), fmean(found[name])) for name in best]


def named_parent(archive: Archive, prefix: str, trials: Iterable[StoredTrial]) -> Parent:
    """Find a candidate by the beginning of its id.

    Raises:
        UsageError: If no candidate or several match.
    """
    stored = archive.candidate(prefix)
    return Parent.of(stored, mean_accuracies(trials).get(stored.id))


def new_candidates(archive: Archive, rows: Sequence[Proposal]) -> GivenCandidates:
    """Collect the candidates of the new proposals, in the order in which they were made.

    Raises:
        UsageError: If neither a candidate nor its parent has a plan.
    """
    suggestions = []
    for row in rows:
        if row.new:
            stored = archive.candidate(row.candidate)
            plan = stored.plan or archive.candidate(row.parent).plan
            if plan is None:
                raise UsageError(f"{row.candidate} has no plan and its parent has none: it cannot be trained here")
            suggestions.append(Suggestion(plan=plan, candidate=stored))
    return GivenCandidates(suggestions=tuple(suggestions))


def writer_gains(rows: Iterable[Proposal], trials: Iterable[StoredTrial]) -> dict[str, tuple[float, ...]]:
    """Collect the mean accuracy of each trained child less that of its parent, by the rewriter that wrote it."""
    means = mean_accuracies(trials)
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.new and row.candidate in means and row.parent in means:
            found[row.rewriter].append(means[row.candidate] - means[row.parent])
    return {name: tuple(gains) for name, gains in found.items()}


def trained_funnel(archive: Archive, batch: str, rows: Sequence[Proposal]) -> Funnel:
    """Count the proposals of a batch at each stage; a trial is compared with its parent's at its own fidelity."""
    counted = funnel(rows)
    if batch not in {campaign.name for campaign in archive.campaigns()}:
        return counted
    trials = archive.trials(curves=False)
    done = [trial for trial in trials if trial.campaign == batch and trial.trained]
    fidelities = {trial.fidelity for trial in done if trial.fidelity is not None}
    means = {fidelity: mean_accuracies(at_fidelity(trials, fidelity)) for fidelity in fidelities}
    parents = {row.candidate: row.parent for row in rows if row.candidate}
    before = [
        means[trial.fidelity].get(parents.get(trial.candidate_id or "", "")) if trial.fidelity else None
        for trial in done
    ]
    gains = [(t.validation_accuracy or 0.0) > mean for t, mean in zip(done, before, strict=True) if mean is not None]
    return replace(counted, trained=len(done), compared=len(gains), better=sum(gains) if gains else None)
