"""Candidate source for the campaign that trains a batch's proposals, and the batch's funnel with its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nngen.archive import Archive
from nngen.campaign.protocols import Suggestion
from nngen.campaign.selection import GivenCandidates
from nngen.errors import UsageError
from nngen.isolation import Isolation
from nngen.llm.proposals.log import Funnel, Proposal, funnel
from nngen.llm.proposals.parents import at_fidelity, mean_accuracies
from nngen.types import TrialSpec


def new_candidates(archive: Archive, rows: Sequence[Proposal]) -> GivenCandidates:
    """Collect the candidates of the new proposals, in the order in which they were made.

    Assembled code runs in a process of its own; code that a model wrote, or that was spliced into it, in the sandbox.

    Args:
        archive: Archive that holds the candidates.
        rows: Proposals of one batch; those that are not new are left out.

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
            isolation = Isolation.PROCESS if row.trusted else Isolation.SANDBOX
            suggestions.append(Suggestion(plan=plan, candidate=stored, isolation=isolation))
    return GivenCandidates(suggestions=tuple(suggestions))


def trained_funnel(archive: Archive, batch: str, rows: Sequence[Proposal], spec: TrialSpec) -> Funnel:
    """Count the proposals at each stage, trials included.

    Args:
        archive: Archive that holds the trials.
        batch: Name of the batch and of its campaign.
        rows: Proposals of the batch.
        spec: Fidelity at which candidates and parents are compared.
    """
    counted = funnel(rows)
    if batch not in {campaign.name for campaign in archive.campaigns()}:
        return counted
    done = [trial for trial in archive.trials(batch) if trial.validation_accuracy is not None]
    means = mean_accuracies(at_fidelity(archive.trials(), spec))
    parents = {row.candidate: row.parent for row in rows if row.candidate}
    gains = []
    for trial in done:
        before = means.get(parents.get(trial.candidate_id or "", ""))
        if before is not None and trial.validation_accuracy is not None:
            gains.append(trial.validation_accuracy > before)
    return replace(counted, trained=len(done), compared=len(gains), better=sum(gains) if gains else None)
