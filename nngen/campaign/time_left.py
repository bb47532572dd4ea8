"""Estimate of the time that a campaign still takes, from the epochs to come and the pace of those that are done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from nngen.archive.records import StoredTrial
from nngen.campaign.successive_halving import Workload
from nngen.types import EpochResult

TRAINING = ("train", "runs")
"""Stages of a trial in which it trains, as its own driver and as another process report them."""


@dataclass(slots=True, kw_only=True)
class _Running:
    """A training that runs: when it began, when its last epoch ended, epochs seen and left, and the cost of one."""

    began: float
    last: float
    left: int
    cost: float
    seen: int = 0


class TimeLeft:
    """Estimates the time left of a campaign from what its watcher receives.

    The work is counted in costs: the forecast seconds of each epoch, or 1 an epoch without a forecast. Trainings that
    run count with their own pace (seconds per cost), those to come with the mean pace. Until the first epoch is done,
    the forecast is the estimate. Results that are copied from identical work, and trials that fail before they train,
    reduce the work without changing the pace.
    """

    def __init__(self, work: Workload, clock: Callable[[], float] = time.monotonic) -> None:
        self._work, self._clock, self._seconds_of = work, clock, work.seconds_of
        self._to_come = work.epochs * work.typical_s
        self._running: dict[int, _Running] = {}
        self._spent, self._done, self._parallel = 0.0, 0.0, 1

    def _cost(self, trial: StoredTrial) -> float:
        return self._seconds_of(trial.experts) if self._seconds_of is not None else 1.0

    def started(self, trial: StoredTrial) -> None:
        """Count a training that begins."""
        if trial.id in self._running:
            return
        now, epochs, cost = self._clock(), self._work.to_train(trial.rung, trial.replicate), self._cost(trial)
        self._running[trial.id] = _Running(began=now, last=now, left=epochs, cost=cost)
        self._to_come -= epochs * cost
        if not self._done and not any(run.seen for run in self._running.values()):
            self._parallel = len(self._running)

    def epoch(self, trial: StoredTrial, result: EpochResult) -> None:
        """Count an epoch of a training."""
        self.started(trial)
        # Counted here, not where a training begins: the next one begins before the result of the last one is stored.
        self._parallel = max(self._parallel, len(self._running))
        run = self._running[trial.id]
        run.last, run.seen = self._clock(), run.seen + 1
        run.left = max(0, self._work.rungs[trial.rung] - result.epoch)

    def requeued(self, trial: StoredTrial) -> None:
        """Count a training that has to begin again."""
        if (run := self._running.pop(trial.id, None)) is not None:
            self._to_come += self._work.to_train(trial.rung, trial.replicate) * run.cost

    def finished(self, trial: StoredTrial) -> None:
        """Count a trial that is done."""
        run = self._running.pop(trial.id, None)
        if run is None:
            self._to_come -= self._work.to_train(trial.rung, trial.replicate) * self._cost(trial)
        elif run.seen:
            self._spent += self._clock() - run.began
            self._done += run.seen * run.cost

    def seconds(self) -> float | None:
        """Return the estimated seconds left; None before the first epoch, without a forecast."""
        now, running = self._clock(), self._running.values()
        done = self._done + sum(run.seen * run.cost for run in running)
        if not done and self._seconds_of is None:
            return None
        pace = (self._spent + sum(run.last - run.began for run in running)) / done if done else 1.0
        # Each running training is its own lower bound: other workers cannot take its epochs over.
        own = [
            max(0.0, run.left * ((run.last - run.began) / run.seen if run.seen else pace * run.cost) - (now - run.last))
            for run in running
        ]
        return max([(max(0.0, self._to_come) * pace + sum(own)) / self._parallel, *own])
