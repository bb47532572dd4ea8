"""Trains what was proposed, as a campaign of the archive that goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from nngen import __version__
from nngen.archive import CampaignRecord, LoopRole, NewTrial, Store, StoredTrial, TrialState
from nngen.archive.records import copied_result
from nngen.campaign_spec import CampaignSpec
from nngen.errors import UsageError
from nngen.isolation import Isolation
from nngen.llm.judging import EngineJudge, Judge
from nngen.llm.proposals.log import Funnel, Proposal, funnel
from nngen.llm.proposals.parents import at_fidelity, mean_accuracies
from nngen.plan import Plan
from nngen.seeds import derive
from nngen.types import Candidate, Family, Interface

__all__ = ["Job", "LoopStage", "run_jobs", "train_proposals", "trained_funnel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One trial to run: a candidate of the archive with a seed; ``plan`` is its own or its parent's.

    Attributes:
        trusted: As in ``Proposal``.
    """

    candidate: str
    plan: Plan
    seed: int
    trusted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopStage:
    """Place of a campaign in a closed loop."""

    loop: str
    cycle: int
    role: LoopRole


def train_proposals(
    archive: Store,
    batch: str,
    held: Sequence[Proposal],
    judge: Judge,
    families: Mapping[str, tuple[Family, Interface]],
    seed: int,
    watch: Callable[[StoredTrial], None] | None = None,
    stage: LoopStage | None = None,
) -> tuple[StoredTrial, ...]:
    """Train the new proposals of a batch, in the order in which they were made.

    Args:
        archive: Gets a campaign of the batch's name.
        batch: The name.
        held: The batch's proposals; those that are not new are passed over.
        judge: Trains and scores.
        families: Usable families by name.
        seed: Of the batch; a trial's seed follows from it and the candidate's id.
        watch: Told each trial when it is done.
        stage: Place of the batch in a closed loop; None outside of loops.

    Raises:
        UsageError: If the batch was trained before with other proposals.
    """
    chosen = [proposal for proposal in held if proposal.new]
    jobs = [
        Job(candidate=p.candidate, plan=_plan(archive, p), seed=derive(seed, "trial", p.candidate), trusted=p.trusted)
        for p in chosen
    ]
    writer = chosen[0].rewriter if chosen else ""
    return run_jobs(
        archive, batch, jobs, judge, families, label=f"rewriter {writer}", seed=seed, watch=watch, stage=stage
    )


def run_jobs(
    archive: Store,
    batch: str,
    jobs: Sequence[Job],
    judge: Judge,
    families: Mapping[str, tuple[Family, Interface]],
    *,
    label: str,
    seed: int,
    watch: Callable[[StoredTrial], None] | None = None,
    stage: LoopStage | None = None,
) -> tuple[StoredTrial, ...]:
    """Run trials as a campaign of the archive; one that was begun goes on.

    Raises:
        UsageError: If the campaign was begun with other jobs.
    """
    if not jobs:
        return ()
    with archive.lock(batch):
        _begin(archive, batch, jobs, judge, families, label=label, seed=seed, stage=stage)
        archive.requeue(batch)
        for trial in archive.trials(batch, state=TrialState.READY):
            _train(archive, trial, jobs[trial.position], judge)
            if watch is not None:
                watch(archive.trial(trial.id))
    return archive.trials(batch)


def trained_funnel(archive: Store, batch: str, held: Sequence[Proposal], judge: Judge) -> Funnel:
    """Count how far a batch came, trials included."""
    counted = funnel(held)
    if batch not in {campaign.name for campaign in archive.campaigns()}:
        return counted
    done = [trial for trial in archive.trials(batch) if trial.validation_accuracy is not None]
    means = mean_accuracies(at_fidelity(archive.trials(), judge.spec))
    parents = {proposal.candidate: proposal.parent for proposal in held if proposal.candidate}
    gains = []
    for trial in done:
        before = means.get(parents.get(trial.candidate_id or "", ""))
        if before is not None and trial.validation_accuracy is not None:
            gains.append(trial.validation_accuracy > before)
    return replace(counted, trained=len(done), compared=len(gains), better=sum(gains) if gains else None)


def _plan(archive: Store, proposal: Proposal) -> Plan:
    plan = archive.candidate(proposal.candidate).plan or archive.candidate(proposal.parent).plan
    if plan is None:
        raise UsageError(f"{proposal.candidate} has no plan and its parent none either: it cannot be trained here")
    return plan


def _begin(
    archive: Store,
    batch: str,
    jobs: Sequence[Job],
    judge: Judge,
    families: Mapping[str, tuple[Family, Interface]],
    *,
    label: str,
    seed: int,
    stage: LoopStage | None,
) -> None:
    known = {campaign.name: campaign for campaign in archive.campaigns()}
    ids = tuple(job.candidate for job in jobs)
    if batch in known:
        if known[batch].candidates != ids:
            raise UsageError(f"batch {batch} was trained before with other proposals: choose another --name")
        return
    spec = judge.spec
    record = CampaignRecord(
        spec=CampaignSpec(
            name=batch,
            size=len(jobs),
            sampler=label,
            dataset=spec.dataset,
            shape=spec.shape,
            epochs=spec.epochs,
            seed=seed,
            batch=spec.batch,
            lr=spec.lr,
            device=spec.device,
            threads=spec.threads,
            time_limit_s=spec.time_limit_s,
            memory_mib=spec.memory_mib,
        ),
        pool={name: family.fingerprint for name, (family, _) in sorted(families.items())},
        data_fingerprint=_fingerprint(judge),
        classes=judge.classes,
        candidates=ids,
        nngen=__version__,
        loop=stage.loop if stage else None,
        cycle=stage.cycle if stage else None,
        role=stage.role if stage else None,
    )
    archive.add_campaign(
        record,
        [NewTrial(plan=job.plan, candidate_id=job.candidate, isolation=_level(job), seed=job.seed) for job in jobs],
    )


def _level(job: Job) -> Isolation:
    return Isolation.PROCESS if job.trusted else Isolation.SANDBOX


def _fingerprint(judge: Judge) -> str:
    return judge.dataset.fingerprint if isinstance(judge, EngineJudge) else ""


def _train(archive: Store, trial: StoredTrial, job: Job, judge: Judge) -> None:
    stored = archive.candidate(job.candidate)
    candidate = Candidate(id=stored.id, source=stored.source, canonical=stored.canonical, plan=stored.plan)
    archive.start_trial(trial.id)
    spec = replace(judge.spec, seed=job.seed)
    known = archive.same_trial(candidate.id, spec, _fingerprint(judge))
    if known is not None and known.verdict is not None:
        predictions = (archive.predictions(known.id, split) for split in ("validation", "test"))
        archive.finish_trial(trial.id, copied_result(known, *predictions), copied_from=known.id)
        return
    result = judge.train(candidate, spec.seed, trusted=job.trusted)
    archive.finish_trial(trial.id, replace(result, environment={"nngen": __version__, **result.environment}))
