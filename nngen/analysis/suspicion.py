"""Suspicion: trials whose accuracy is not comparable with that of others, with the reason, for every listing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from nngen.archive.records import BriefScore, StoredTrial, TrialLine, TrialScore

_LEAST = 6
"""Candidates from which on one of them can stand out."""

_GAP = 0.1  # smallest gap in accuracy that counts, however close together the others are

_REACH = 3.0  # gap that counts, in distances of the best of the others from their median


def suspicions(trials: Iterable[TrialLine | TrialScore | StoredTrial | BriefScore]) -> Mapping[int, str]:
    """Find the suspect ones among trials at one fidelity.

    A trial is suspect for the reason that was stored with it, or if its candidate stands far above all others: above a
    gap that is large and three times as wide as the distance from the best below it to their median, with at most a
    tenth of the candidates.

    Returns:
        The reason by the trial's id; other trials are left out.
    """
    trials = tuple(trials)
    best: dict[str, float] = {}
    for trial in trials:
        if trial.candidate_id is not None and trial.validation_accuracy is not None:
            best[trial.candidate_id] = max(trial.validation_accuracy, best.get(trial.candidate_id, 0.0))
    below = _best_below_a_gap(sorted(best.values(), reverse=True))
    reasons = {}
    for trial in trials:
        if trial.suspect:
            reasons[trial.id] = trial.suspect
        elif below is not None and (trial.validation_accuracy or 0.0) > below:
            reasons[trial.id] = f"far above every other trial, of which the best has {below:.4f}"
    return reasons


class Lines(Protocol):
    """Returns all trials of a campaign; the archive's method."""

    def __call__(self, campaign: str, *, brief: bool) -> Iterable[TrialLine]: ...


def stored_suspicions(lines: Lines, trials: Iterable[StoredTrial]) -> Mapping[int, str]:
    """Find the suspect ones of some trials, each among those of its campaign on its rung; the reason by trial id."""
    rungs: dict[tuple[str, int], list[int]] = {}
    for trial in trials:
        if trial.trained:
            rungs.setdefault((trial.campaign, trial.rung), []).append(trial.id)
    found: dict[int, str] = {}
    for (campaign, rung), ids in rungs.items():
        reasons = suspicions(line for line in lines(campaign, brief=True) if line.rung == rung)
        found |= {trial_id: reasons[trial_id] for trial_id in ids if trial_id in reasons}
    return found


def _best_below_a_gap(ranked: list[float]) -> float | None:
    """Return the best accuracy below the gap; None without such a gap. ``ranked`` falls."""
    if len(ranked) < _LEAST:
        return None
    for above in range(1, max(1, len(ranked) // 10) + 1):
        # The median of what is below, read off the order: a slice for each of them would cost the square.
        middle = ranked[(above + len(ranked)) // 2]
        if ranked[above - 1] - ranked[above] > max(_GAP, _REACH * (ranked[above] - middle)):
            return ranked[above]
    return None
