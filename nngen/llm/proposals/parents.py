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
from nngen.llm.proposals.log import Funnel, Proposal, funnel, proposals
from nngen.plan import Plan
from nngen.types import Fidelity

_MIGRATION = 2  # cycles from one migration between islands to the next


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """Candidate that a proposal starts from."""

    id: str  # id of the candidate
    source: str  # source of the candidate
    plan: Plan | None  # plan that it was assembled from; None for code that a rewriter wrote
    # mean validation accuracy at the fidelity in use; None where it was not trained at it
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
        UsageError: If neither a candidate nor one that it was made from has a plan.
    """
    suggestions = []
    for row in rows:
        if row.new:
            stored = archive.candidate(row.candidate)
            plan = stored.plan or _inherited_plan(archive, row.parent)
            if plan is None:
                raise UsageError(f"{row.candidate} was made from no plan: it cannot be trained here")
            suggestions.append(Suggestion(plan=plan, candidate=stored))
    return GivenCandidates(suggestions=tuple(suggestions))


def _inherited_plan(archive: Archive, name: str) -> Plan | None:
    """Return the plan of a candidate, or of the nearest one that its code was made from."""
    plan, parents = archive.candidate(name).plan, dict[str, str]()
    if plan is None:
        for row in proposals(archive):
            parents.setdefault(row.candidate, row.parent)  # the first one made it, later ones repeat it
    while plan is None and (name := parents.get(name, "")):
        plan = archive.candidate(name).plan
    return plan


def islands_of(
    cycles: Sequence[Sequence[Proposal]], accuracies: Mapping[str, float], number: int
) -> dict[str, set[int]]:
    """Assign the new candidates of a loop to islands, which breed apart.

    Those without a parent are dealt out in turn, and a child belongs to an island of its parent. After every second
    cycle the best candidate of each island joins the next one as well.

    Args:
        cycles: Proposals of each cycle, the common start first.
        accuracies: Mean accuracy of each trained candidate.
        number: Number of islands.
    """
    homes: dict[str, set[int]] = {}
    for cycle, rows in enumerate(cycles):
        for row in (row for row in rows if row.new):
            own = sorted(homes.get(row.parent, range(number)))
            homes.setdefault(row.candidate, {own[row.index % len(own)]})
        if cycle and cycle % _MIGRATION == 0:
            there = [[name for name in homes if place in homes[name] and name in accuracies] for place in range(number)]
            best = [max(names, key=lambda name: (accuracies[name], name), default="") for names in there]
            for place, name in enumerate(best):
                if name:
                    homes[name].add((place + 1) % number)
    return homes


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
