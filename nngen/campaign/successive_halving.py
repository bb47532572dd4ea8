"""Promotions to longer training and replications with further seeds, as pure functions of the trials.

Successive halving (Jamieson and Talwalkar 2016) waits for a rung to be complete and promotes the best of it; ASHA (Li
et al. 2020) promotes each candidate that is among the best so far. Asked again after a kill, both decide the same.
Every rung trains from the beginning, because a mixture's warm-up and cosine stretch over the epochs it is given.
Failed trials rank last and are never promoted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nngen.archive import Promotion, StoredTrial, TrialState
from nngen.campaign_spec import CampaignSpec

__all__ = ["finalists", "is_over", "planned", "promotions"]


def promotions(spec: CampaignSpec, trials: Sequence[StoredTrial]) -> tuple[Promotion, ...]:
    """Decide on promotions and replications by all trials of a campaign; none while there is nothing to decide."""
    first = [trial for trial in trials if trial.replicate == 0]
    resting = len(first) >= spec.size and all(trial.state is TrialState.DONE for trial in trials)
    for rung in reversed(range(len(spec.fidelities) - 1)):
        here = [trial for trial in first if trial.rung == rung]
        above = {trial.position for trial in first if trial.rung == rung + 1}
        if chosen := _chosen(spec, here, above, resting=resting):
            return tuple(_promotion(spec, here, trial) for trial in chosen)
    return _replications(spec, trials) if resting else ()


def is_over(spec: CampaignSpec, trials: Sequence[StoredTrial]) -> bool:
    """Return whether every trial is done and none is to come."""
    drawn = sum(trial.rung == trial.replicate == 0 for trial in trials)
    done = all(trial.state is TrialState.DONE for trial in trials)
    return done and drawn >= spec.size and not promotions(spec, trials)


def planned(spec: CampaignSpec) -> int:
    """Count the trials of a campaign if none of them fails."""
    counts = [spec.size]
    for _ in spec.fidelities[1:]:
        counts.append(max(1, counts[-1] // spec.reduction_factor))
    return sum(counts) + min(spec.finalists, counts[-1]) * (spec.replicates - 1)


def finalists(spec: CampaignSpec, trials: Iterable[StoredTrial]) -> tuple[StoredTrial, ...]:
    """Return the best trials of the highest trained rung, by their first seed; none without finalists."""
    trained = [trial for trial in trials if trial.trained and trial.replicate == 0]
    top = max((trial.rung for trial in trained), default=0)
    return tuple(_ranked(trial for trial in trained if trial.rung == top)[: spec.finalists])


def _chosen(
    spec: CampaignSpec, here: Sequence[StoredTrial], above: set[int], *, resting: bool
) -> tuple[StoredTrial, ...]:
    done = [trial for trial in here if trial.state is TrialState.DONE]
    if spec.scheduler == "halving" and (len(done) < len(here) or above):
        return ()
    places = len(done) // spec.reduction_factor
    # A small rung promotes at least one, so that the next rung is not empty.
    if not places and resting and not above:
        places = 1
    best = _ranked(trial for trial in done if trial.trained)[:places]
    return tuple(trial for trial in best if trial.position not in above)


def _ranked(trials: Iterable[StoredTrial]) -> list[StoredTrial]:
    return sorted(trials, key=lambda trial: (-(trial.validation_accuracy or 0.0), trial.position))


def _promotion(spec: CampaignSpec, here: Sequence[StoredTrial], trial: StoredTrial) -> Promotion:
    done = [other for other in here if other.state is TrialState.DONE]
    reason = {
        "by": spec.scheduler,
        "rank": _ranked(done).index(trial) + 1,
        "of": len(done),
        "validation_accuracy": trial.validation_accuracy,
        "epochs": spec.fidelities[trial.rung + 1],
    }
    return Promotion(trial_id=trial.id, rung=trial.rung + 1, reason=reason)


def _replications(spec: CampaignSpec, trials: Sequence[StoredTrial]) -> tuple[Promotion, ...]:
    there = {(trial.position, trial.rung, trial.replicate) for trial in trials}
    best = finalists(spec, trials)
    return tuple(
        Promotion(
            trial_id=trial.id,
            rung=trial.rung,
            replicate=replicate,
            reason={"by": "finalists", "rank": rank, "validation_accuracy": trial.validation_accuracy},
        )
        for replicate in range(1, spec.replicates)
        for rank, trial in enumerate(best, start=1)
        if (trial.position, trial.rung, replicate) not in there
    )
