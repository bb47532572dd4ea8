"""What a campaign came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from nngen.analysis.leaderboard import Row, leaderboard
from nngen.analysis.results import finished_quartets
from nngen.archive import Store, StoredTrial, TrialState
from nngen.campaign.spec import CampaignSpec
from nngen.campaign.successive_halving import finalists, is_over, planned
from nngen.space import Coverage, coverage
from nngen.types import Outcome

__all__ = ["Rung", "Summary", "summarise"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """How a rung stands.

    Attributes:
        trials: Candidates that reached it.
        promoted: Those that went on.
        best: Highest validation accuracy on it.
    """

    epochs: int
    trials: int
    done: int
    promoted: int
    best: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a campaign came to, or stands at.

    Attributes:
        planned: Trials it comes to if none fails; rungs and seeds of finalists included.
        over: Whether every trial is done and none is to come.
        states: Trials per state.
        outcomes: Finished trials per outcome.
        coverage: Audit of what was finished, against the campaign's pool.
        best: The trial with the highest validation accuracy on the highest rung, with its test accuracy if
            revealed; of finalists, the first seed of the one with the highest mean.
        rungs: How the rungs stand; one where there are none.
        finalists: Mean and spread over the seeds of those that were trained again, best first.
        left_out: Families that could not be used, with the reason.
    """

    name: str
    planned: int
    over: bool
    states: Mapping[str, int]
    outcomes: Mapping[str, int]
    coverage: Coverage
    best: StoredTrial | None
    rungs: tuple[Rung, ...]
    finalists: tuple[Row, ...]
    left_out: Mapping[str, str]

    @property
    def total(self) -> int:
        there = sum(self.states.values())
        return there if self.over else max(self.planned, there)

    @property
    def done(self) -> int:
        return self.states[TrialState.DONE.value]

    @property
    def failed(self) -> int:
        return self.done - self.outcomes.get(Outcome.VALID.value, 0)

    def to_dict(self) -> dict[str, Any]:
        """Write the summary as JSON's types."""
        best = self.best and {
            "id": self.best.candidate_id,
            "experts": list(self.best.experts),
            "validation_accuracy": self.best.validation_accuracy,
            "test_accuracy": self.best.test_accuracy,
        }
        return {
            "campaign": self.name,
            "trials": self.total,
            **self.states,
            "failed": self.failed,
            "outcomes": dict(self.outcomes),
            "share": self.coverage.share,
            "verdict": self.coverage.verdict,
            "best": best,
            "over": self.over,
            "rungs": [asdict(rung) for rung in self.rungs],
            "finalists": [row.to_dict() for row in self.finalists],
            "left_out": dict(self.left_out),
        }


def summarise(archive: Store, name: str, *, test_labels: bytes | None = None) -> Summary:
    """Sum a campaign up.

    Args:
        archive: Where it is kept.
        name: The campaign.
        test_labels: Given, the best trial's test accuracy is computed, once, and kept; only for a
            campaign whose trials are all done.

    Raises:
        UsageError: If there is no such campaign.
    """
    campaign = archive.campaign(name)
    spec = CampaignSpec.from_dict(campaign.spec)
    trials = archive.trials(name)
    over = is_over(spec, trials)
    best = _best(spec, trials)
    if best is not None and test_labels is not None and over:
        for seed in _seeds(trials, best):
            _reveal(archive, seed, test_labels)
        trials = archive.trials(name)
        best = _best(spec, trials)
    done = [trial for trial in trials if trial.state is TrialState.DONE]
    again = [trial for first in finalists(spec, trials) for trial in _seeds(trials, first)]
    return Summary(
        name=name,
        planned=planned(spec),
        over=over,
        states={state.value: sum(trial.state is state for trial in trials) for state in TrialState},
        outcomes=Counter(trial.verdict.outcome.value for trial in done if trial.verdict),
        coverage=coverage(
            sorted(campaign.spec["pool"]),
            finished_quartets(trial for trial in done if trial.rung == trial.replicate == 0),
        ),
        best=best,
        rungs=tuple(_rung(spec, trials, rung) for rung in range(len(spec.fidelities))),
        finalists=leaderboard(again) if any(trial.replicate for trial in again) else (),
        left_out=campaign.spec["left_out"],
    )


def _best(spec: CampaignSpec, trials: Sequence[StoredTrial]) -> StoredTrial | None:
    """Find the best on validation, the earliest of equals; finalists by their mean over all seeds."""
    trained = [trial for trial in trials if trial.trained and trial.replicate == 0]
    top = max((trial.rung for trial in trained), default=0)
    judged = finalists(spec, trials) or tuple(trial for trial in trained if trial.rung == top)
    return max(judged, key=lambda trial: (*_merit(_seeds(trials, trial)), -trial.id), default=None)


def _seeds(trials: Sequence[StoredTrial], first: StoredTrial) -> list[StoredTrial]:
    """Give the trials of one candidate on one rung."""
    return [trial for trial in trials if (trial.position, trial.rung) == (first.position, first.rung)]


def _merit(seeds: Sequence[StoredTrial]) -> tuple[int, float]:
    """How many seeds were trained, and their mean: who fails with one seed stands behind who never does."""
    accuracies = [trial.validation_accuracy for trial in seeds if trial.validation_accuracy is not None]
    return len(accuracies), fmean(accuracies)


def _rung(spec: CampaignSpec, trials: Sequence[StoredTrial], rung: int) -> Rung:
    here = [trial for trial in trials if trial.rung == rung and trial.replicate == 0]
    accuracies = (trial.validation_accuracy for trial in here if trial.validation_accuracy is not None)
    return Rung(
        epochs=spec.fidelities[rung],
        trials=len(here),
        done=sum(trial.state is TrialState.DONE for trial in here),
        promoted=sum(trial.rung == rung + 1 and trial.replicate == 0 for trial in trials),
        best=max(accuracies, default=None),
    )


def _reveal(archive: Store, trial: StoredTrial, test_labels: bytes) -> None:
    predicted = np.frombuffer(archive.predictions(trial.id, "test"), dtype="<u2")
    labels = np.frombuffer(test_labels, dtype="<u2")
    if trial.test_accuracy is None and predicted.size and predicted.size == labels.size:
        archive.reveal_test(trial.id, float((predicted == labels).mean()))
