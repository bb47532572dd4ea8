"""What a campaign came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nngen.analysis.results import finished_quartets
from nngen.archive import Store, StoredTrial, TrialState
from nngen.space import Coverage, coverage
from nngen.types import Outcome

__all__ = ["Summary", "best_trial", "summarise"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a campaign came to, or stands at.

    Attributes:
        size: Quartets asked for; an adaptive campaign draws them turn by turn.
        states: Trials per state.
        outcomes: Finished trials per outcome.
        coverage: Audit of what was finished, against the campaign's pool.
        best: The trial with the highest validation accuracy, with its test accuracy if revealed.
        left_out: Families that could not be used, with the reason.
    """

    name: str
    size: int
    states: Mapping[str, int]
    outcomes: Mapping[str, int]
    coverage: Coverage
    best: StoredTrial | None
    left_out: Mapping[str, str]

    @property
    def total(self) -> int:
        return max(self.size, sum(self.states.values()))

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
    trials = archive.trials(name)
    done = [trial for trial in trials if trial.state is TrialState.DONE]
    best = best_trial(done)
    if best is not None and test_labels is not None and len(done) == len(trials):
        _reveal(archive, best, test_labels)
        best = best_trial(archive.trials(name))
    return Summary(
        name=name,
        size=campaign.spec["size"],
        states={state.value: sum(trial.state is state for trial in trials) for state in TrialState},
        outcomes=Counter(trial.verdict.outcome.value for trial in done if trial.verdict),
        coverage=coverage(sorted(campaign.spec["pool"]), finished_quartets(done)),
        best=best,
        left_out=campaign.spec["left_out"],
    )


def best_trial(trials: list[StoredTrial] | tuple[StoredTrial, ...]) -> StoredTrial | None:
    """Find the highest validation accuracy; the earliest of equals."""
    trained = [trial for trial in trials if trial.validation_accuracy is not None]
    return max(trained, key=lambda trial: (trial.validation_accuracy or 0.0, -trial.id), default=None)


def _reveal(archive: Store, trial: StoredTrial, test_labels: bytes) -> None:
    predicted = np.frombuffer(archive.predictions(trial.id, "test"), dtype="<u2")
    labels = np.frombuffer(test_labels, dtype="<u2")
    if trial.test_accuracy is None and predicted.size and predicted.size == labels.size:
        archive.reveal_test(trial.id, float((predicted == labels).mean()))
