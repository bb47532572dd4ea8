"""Ending trials early: those that are, with 95 % confidence, not going on to the next rung.

The last accuracy of a trial is predicted from that after a few epochs, by least squares over the trials of its rung
that are done. Where even the upper end of the prediction is below the accuracies that would go on so far, it ends.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nngen.analysis.formatting import duration
from nngen.archive.records import StoredTrial
from nngen.campaign_spec import CampaignSpec
from nngen.text import counted

ENDED_EARLY = "ended early"
"""Beginning of ``Score.suspect`` of a trial that was ended: its accuracy is not that of its last epoch."""

_FEWEST = 10  # trials of a rung that are done before another one may be ended

_CONFIDENCE = 0.95


class EndedEarlyError(Exception):
    """Ends a training from its callback; the text is the reason."""


class EarlyStop:
    """The rule of one campaign; trials are given with their curves as they end, and those that have at the start."""

    def __init__(self, spec: CampaignSpec, trials: Iterable[StoredTrial] = ()) -> None:
        self._spec = spec
        self._curves: dict[int, list[tuple[float, ...]]] = defaultdict(list)
        self._ended = Counter[int]()
        for trial in trials:
            self.finish(trial)

    def finish(self, trial: StoredTrial) -> None:
        """Learn from a finished trial; of one that was ended early it is known that it does not go on."""
        epochs = self._spec.fidelities[trial.rung]
        if is_ended(trial):
            self._ended[trial.rung] += 1
        elif trial.trained and not trial.replicate and not trial.suspect and len(trial.curve) == epochs:
            self._curves[trial.rung].append(tuple(point.validation_accuracy for point in trial.curve))

    def reason(self, rung: int, accuracies: Sequence[float]) -> str | None:
        """Return why a training on a rung ends now, by its accuracies after each epoch so far; None to go on."""
        if rung + 1 >= len(self._spec.fidelities):
            return None
        known = list(self._curves[rung])  # other threads may add to it
        return _reason(known, accuracies, _places(len(known) + self._ended[rung], self._spec))


def is_ended(trial: StoredTrial) -> bool:
    """Return whether a trial was ended early."""
    return trial.suspect.startswith(ENDED_EARLY)


def _places(done: int, spec: CampaignSpec) -> int:
    return max(done // spec.reduction_factor, 1)


def _reason(known: Sequence[Sequence[float]], accuracies: Sequence[float], places: int) -> str | None:
    from scipy.special import stdtrit

    epoch = len(accuracies)
    if len(known) < max(_FEWEST, places) or epoch >= len(known[0]):
        return None
    early, last = (np.array([curve[place] for curve in known]) for place in (epoch - 1, -1))
    goes_on = sorted(last, reverse=True)[places - 1]
    # Equal accuracies, as at chance level, differ from their rounded mean by a little, of which a slope would be noise.
    spread = float(((early - early.mean()) ** 2).sum()) if np.ptp(early) > 0 else 0.0
    slope = float((early - early.mean()) @ last) / spread if spread > 0 else 0.0
    residuals = last - last.mean() - slope * (early - early.mean())
    df = len(last) - 2
    gap = accuracies[-1] - float(early.mean())
    error = math.sqrt(float(residuals @ residuals) / df * (1 + 1 / len(last) + (gap**2 / spread if spread > 0 else 0)))
    upper = float(last.mean()) + slope * gap + float(stdtrit(df, _CONFIDENCE)) * error
    if upper >= goes_on:
        return None
    return f"{ENDED_EARLY} after epoch {epoch} of {len(known[0])}: at most {upper:.4f}, and {goes_on:.4f} goes on"


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """Time that ending trials early saved, and accuracy that it would have cost."""

    ended: int  # number of trials that were ended
    saved_s: float  # seconds that their further epochs would have taken, at the rate of their first ones
    tested: int  # number of trials that ran to their end, on which the rule is tested with each left out in turn
    wrong: int  # number of those that the rule would have ended although they went on
    regret: float  # accuracy that the best of the tested rung would have lost by it

    @property
    def sentence(self) -> str:
        """The result in one clause."""
        return (
            f"ended early: {counted(self.ended, 'trial')}, which saved about {duration(self.saved_s)}; of"
            f" {self.tested:,} that ran to their end the rule would have ended {self.wrong:,} that went on, and the"
            f" best would have lost {self.regret:.4f}"
        )


def saving(spec: CampaignSpec, trials: Sequence[StoredTrial]) -> Saving | None:
    """Compute what ending trials early saved and cost, by the trials' curves; None where none was ended."""
    ended = [trial for trial in trials if is_ended(trial) and trial.curve]
    if not ended:
        return None
    saved = 0.0
    for trial in ended:
        left = spec.fidelities[trial.rung] - len(trial.curve)
        saved += left * sum(point.seconds for point in trial.curve) / len(trial.curve)
    tested, wrong, regret = 0, 0, 0.0
    for rung, epochs in enumerate(spec.fidelities[:-1]):
        curves = [
            [point.validation_accuracy for point in trial.curve]
            for trial in trials
            if trial.rung == rung and not trial.replicate and not trial.suspect and len(trial.curve) == epochs
        ]
        ranked, kept = sorted((curve[-1] for curve in curves), reverse=True), []
        places = _places(len(curves) + sum(trial.rung == rung for trial in ended), spec)
        for place, curve in enumerate(curves):
            others = [*curves[:place], *curves[place + 1 :]]
            stops = any(_reason(others, curve[:epoch], places) for epoch in range(1, epochs))
            wrong += stops and curve[-1] in ranked[:places]
            kept += [] if stops else [curve[-1]]
        tested += len(curves)
        if ranked:
            regret = max(regret, ranked[0] - max(kept, default=0.0))
    return Saving(ended=len(ended), saved_s=saved, tested=tested, wrong=wrong, regret=regret)
