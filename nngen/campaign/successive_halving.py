"""Promotions to longer training and replications with further seeds, decided by the trials of a campaign alone.

Successive halving (Jamieson and Talwalkar 2016) waits for a rung to be complete and promotes the best of it; ASHA (Li
et al. 2020) promotes each candidate that is among the best so far. Asked again after a kill, both decide the same.
Every rung trains from the beginning, because a mixture's warm-up and cosine stretch over the epochs it is given; with
``rungs_continue`` they stretch over those of the last rung, and each rung goes on where the one before ended.
Failed trials rank last and are never promoted.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from statistics import fmean
from typing import TypeAlias

from nngen.archive.records import Promotion, StoredTrial, TrialLine, TrialState
from nngen.campaign_spec import CampaignSpec

SecondsOf: TypeAlias = Callable[[Sequence[str]], float]
"""Returns the seconds of an epoch of a mixture of some families."""

_Rank: TypeAlias = tuple[float, int, int]
"""Negative accuracy, position and id of a trial: ranks sort best first, the earliest of equals first."""


@dataclass(slots=True)
class _Rung:
    """Trials of one rung with their first seed; ``done``, ``trained`` and ``waiting`` are sorted."""

    trials: int = 0
    done: list[_Rank] = field(default_factory=list)
    trained: list[_Rank] = field(default_factory=list)
    waiting: list[_Rank] = field(default_factory=list)
    """Trained candidates, without the best of them that are on the next rung already."""
    above: set[int] = field(default_factory=set)
    """Positions of the candidates that are on the next rung."""


class Ladder:
    """Rungs of a campaign, kept in order as trials begin and end, so that a decision costs little at any size."""

    def __init__(self, spec: CampaignSpec, trials: Iterable[TrialLine | StoredTrial] = ()) -> None:
        self._spec = spec
        self._rungs = [_Rung() for _ in spec.fidelities]
        self._again: set[tuple[int, int, int]] = set()
        self.total = self.done = 0
        for trial in trials:
            self.add(trial.position, trial.rung, trial.replicate)
            if trial.state is TrialState.DONE:
                self._rank(trial, list.append)
        for rung in self._rungs:
            for ranks in (rung.done, rung.trained, rung.waiting):
                ranks.sort()

    @property
    def over(self) -> bool:
        """Whether every trial is done and none is to come."""
        return self._resting and not self.promotions()

    @property
    def highest(self) -> frozenset[int]:
        """Ids of the trials with an accuracy on the highest rung that has one, with their first seed."""
        return frozenset(rank[-1] for rank in self._top[1])

    @property
    def finalists(self) -> frozenset[int]:
        """Ids of the best of them, which are trained again with other seeds; none without finalists."""
        return frozenset(rank[-1] for rank in self._top[1][: self._spec.finalists])

    def add(self, position: int, rung: int, replicate: int = 0) -> None:
        """Add a trial that is not done."""
        self.total += 1
        if replicate:
            self._again.add((position, rung, replicate))
            return
        self._rungs[rung].trials += 1
        if rung:
            self._rungs[rung - 1].above.add(position)

    def finish(self, trial: TrialLine | StoredTrial) -> None:
        """Rank a trial that is done."""
        self._rank(trial, insort)

    def promotions(self) -> tuple[Promotion, ...]:
        """Decide on promotions, the highest rung first, then on replications; none while there is nothing to decide."""
        for number in reversed(range(len(self._rungs) - 1)):
            if chosen := self._chosen(number):
                return tuple(self._promotion(number, rank) for rank in chosen)
        return self._replications() if self._resting else ()

    @property
    def _resting(self) -> bool:
        return self._rungs[0].trials >= self._spec.size and self.done == self.total

    @property
    def _top(self) -> tuple[int, list[_Rank]]:
        """The highest rung with a trained candidate, and its ranks."""
        trained = ((number, rung.trained) for number, rung in enumerate(self._rungs) if rung.trained)
        return max(trained, default=(0, []))

    def _rank(self, trial: TrialLine | StoredTrial, insert: Callable[[list[_Rank], _Rank], None]) -> None:
        self.done += 1
        if trial.replicate:
            return
        rung, rank = self._rungs[trial.rung], (-(trial.validation_accuracy or 0.0), trial.position, trial.id)
        for ranks in (rung.done, rung.trained, rung.waiting) if trial.trained else (rung.done,):
            insert(ranks, rank)

    def _chosen(self, number: int) -> list[_Rank]:
        rung = self._rungs[number]
        # A campaign that grew has further candidates to come, and may promote to a rung once more.
        if self._spec.scheduler == "halving" and (
            len(rung.done) < rung.trials or self._rungs[0].trials < self._spec.size
        ):
            return []
        places = len(rung.done) // self._spec.reduction_factor
        # A small rung promotes at least one, so that the next rung is not empty.
        if not places and self._resting and not rung.above:
            places = 1
        while rung.waiting and rung.waiting[0][1] in rung.above:
            del rung.waiting[0]
        best = takewhile(lambda rank: bisect_left(rung.trained, rank) < places, rung.waiting)
        return [rank for rank in best if rank[1] not in rung.above]

    def _promotion(self, number: int, rank: _Rank) -> Promotion:
        done = self._rungs[number].done
        reason = {
            "by": self._spec.scheduler,
            "rank": bisect_left(done, rank) + 1,
            "of": len(done),
            "validation_accuracy": -rank[0],
            "epochs": self._spec.fidelities[number + 1],
        }
        return Promotion(trial_id=rank[-1], rung=number + 1, reason=reason)

    def _replications(self) -> tuple[Promotion, ...]:
        number, ranks = self._top
        return tuple(
            Promotion(
                trial_id=trial_id,
                rung=number,
                replicate=replicate,
                reason={"by": "finalists", "rank": place, "validation_accuracy": -negative},
            )
            for replicate in range(1, self._spec.replicates)
            for place, (negative, position, trial_id) in enumerate(ranks[: self._spec.finalists], start=1)
            if (position, number, replicate) not in self._again
        )


def promotions(spec: CampaignSpec, trials: Sequence[TrialLine | StoredTrial]) -> tuple[Promotion, ...]:
    """Decide on promotions and replications by all trials of a campaign."""
    return Ladder(spec, trials).promotions()


def is_over(spec: CampaignSpec, trials: Sequence[TrialLine | StoredTrial]) -> bool:
    """Return whether every trial is done and none is to come."""
    return Ladder(spec, trials).over


def planned(spec: CampaignSpec) -> tuple[int, ...]:
    """Count the trials of a campaign by rung, if none of them fails; the seeds of finalists are on the last."""
    counts = [spec.size]
    for _ in spec.fidelities[1:]:
        counts.append(max(1, counts[-1] // spec.reduction_factor))
    counts[-1] += min(spec.finalists, counts[-1]) * (spec.replicates - 1)
    return tuple(counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Work of a campaign at the start of its driver."""

    done: int  # number of trials that are done
    trials: int  # number of trials in all, if none fails
    epochs: int  # number of epochs to come, over all trials that are not done
    rungs: tuple[int, ...]  # epochs of a training by rung
    continues: bool = False  # whether a rung goes on where the one before ended
    # returns the forecast seconds of an epoch of a mixture of some families; None without a forecast
    seconds_of: SecondsOf | None = None
    typical_s: float = 1.0  # mean of them over the trials to come; 1 without a forecast

    def to_train(self, rung: int, replicate: int = 0) -> int:
        """Return the epochs that a trial trains itself."""
        goes_on = self.continues and rung > 0 and replicate == 0
        return self.rungs[rung] - (self.rungs[rung - 1] if goes_on else 0)


def workload(
    spec: CampaignSpec, trials: Sequence[TrialLine | StoredTrial], seconds_of: SecondsOf | None = None
) -> Workload:
    """Count the work of a campaign with these trials so far, perhaps with a forecast of the seconds of an epoch."""
    ladder, first = Ladder(spec, trials), planned(replace(spec, finalists=0, replicates=1))
    again = planned(spec)[-1] - first[-1]
    to_come = [trial.experts for trial in trials if trial.state is not TrialState.DONE]
    forecast = seconds_of if to_come else None
    work = Workload(
        done=ladder.done,
        trials=ladder.total if ladder.over else max(ladder.total, sum(first) + again),
        epochs=0,
        rungs=tuple(spec.fidelities),
        continues=spec.rungs_continue,
        seconds_of=forecast,
        typical_s=fmean(map(forecast, to_come)) if forecast else 1.0,
    )
    epochs = sum(count * work.to_train(rung) for rung, count in enumerate(first)) + again * work.rungs[-1]
    epochs -= sum(work.to_train(trial.rung, trial.replicate) for trial in trials if trial.state is TrialState.DONE)
    return replace(work, epochs=0 if ladder.over else max(0, epochs))
