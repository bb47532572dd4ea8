"""The closed loop: propose, check, train, judge, build, tune; and again, until the gain is noise.

Every stage has a name made of the loop's and the cycle's number, and every stage goes on where it
was stopped, so the loop does. What a cycle found best is judged on fresh seeds before it counts:
the score that chose it is not the score it is reported with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any, Protocol

from nngen.analysis.statistics import Span, mean_interval, wilson
from nngen.archive import Archive, LoopRole, StoredTrial
from nngen.errors import UsageError
from nngen.llm.bench import Ground
from nngen.llm.prompts import estimate_tokens
from nngen.llm.proposals.log import Proposal, funnel, proposals
from nngen.llm.proposals.parents import at_fidelity, top_parents
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.proposals.prompt_context import plan_values
from nngen.llm.proposals.propose import Proposer
from nngen.llm.rewriters.base import Rewriter
from nngen.llm.rewriters.baselines import Uniform
from nngen.llm.training import Job, LoopStage, run_jobs, train_proposals
from nngen.seeds import derive

__all__ = ["Cycle", "Evolution", "Teacher", "share_interval"]

_Z = 1.959964


class Teacher(Protocol):
    """Tunes a rewriter on what a cycle found; None leaves the rewriter as it is."""

    def __call__(self, archive: Archive, cycle: int) -> Rewriter | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """What one cycle came to.

    Attributes:
        number: From 1; 0 is the common start, plans drawn at random.
        rewriter: Who proposed.
        valid_interval: Wilson's, of the share of proposals that passed every check.
        new_interval: Wilson's, of the share of new ones among the valid.
        accuracies: Validation accuracy of each trial of this cycle.
        mean_interval: Student's, of their mean.
        best: Highest of them; chosen, so too high.
        judged: Mean accuracy of the best candidate so far on fresh seeds.
        gain: Of ``judged`` over the cycle before.
        noise: Half the 95 % interval of that gain.
    """

    number: int
    rewriter: str
    asked: int
    valid: int
    new: int
    valid_interval: Span
    new_interval: Span
    accuracies: tuple[float, ...]
    mean_interval: Span | None
    best: float | None
    judged: float | None
    judged_candidate: str
    gain: float | None
    noise: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evolution:
    """A loop with all that it needs.

    Attributes:
        name: Of the loop; stages are campaigns ``NAME-0``, ``NAME-1``, ..., ``NAME-judge-1``, ...
        start: Plans drawn at random before the first cycle; equal for every rewriter of one seed.
        number: Proposals in a cycle.
        top: Parents taken from the best so far.
        judges: Fresh seeds that the best is judged on; at least 2.
        teach: Tunes the rewriter between cycles.
        patience: Cycles whose gain is inside the noise, one after the other, before the loop stops.
    """

    name: str
    archive: Archive
    ground: Ground
    rewriter: Rewriter
    cycles: int = 3
    start: int = 8
    number: int = 8
    top: int = 3
    judges: int = 2
    seed: int = 0
    patience: int = 2
    teach: Teacher | None = None
    note: Callable[[str], None] = lambda _: None

    def begin(self) -> Cycle:
        """Draw, train and judge the common start alone, or go on with it; it is the same for every rewriter.

        Raises:
            UsageError: If there is too little to judge with.
        """
        if self.judges < 2 or self.cycles < 1:
            raise UsageError("a loop needs at least 1 cycle and 2 judging seeds")
        return self._cycle(0, Uniform(), ())

    def run(self) -> list[Cycle]:
        """Begin, or go on; return the cycles, the common start first.

        Raises:
            UsageError: If there is too little to judge with.
        """
        rewriter, found = self.rewriter, [self.begin()]
        quiet = 0
        for number in range(1, self.cycles + 1):
            found.append(self._cycle(number, rewriter, found))
            latest = found[-1]
            quiet = quiet + 1 if latest.gain is not None and latest.gain <= (latest.noise or 0.0) else 0
            if quiet >= self.patience:
                self.note(f"stopped after cycle {number}: {quiet} gains inside the noise")
                break
            if self.teach is not None and number < self.cycles:
                rewriter = self.teach(self.archive, number) or rewriter
        return found

    def _cycle(self, number: int, rewriter: Rewriter, before: Sequence[Cycle]) -> Cycle:
        batch = self._batch(number)
        held = self._propose(batch, number, rewriter)
        seed = derive(self.seed, "evolve", number)
        trials = train_proposals(
            self.archive,
            batch,
            held,
            self.ground.judge,
            self.ground.families,
            seed,
            stage=LoopStage(loop=self.name, cycle=number, role=LoopRole.CYCLE),
        )
        accuracies = [trial.validation_accuracy for trial in trials if trial.validation_accuracy is not None]
        winner, judged = self._judge(number)
        gain, noise = _gain(before, judged)
        counted = funnel(held)
        cycle = Cycle(
            number=number,
            rewriter=held[0].rewriter if held else rewriter.name,
            asked=counted.asked,
            valid=counted.checked,
            new=counted.new,
            valid_interval=share_interval(counted.checked, counted.asked),
            new_interval=share_interval(counted.new, counted.checked),
            accuracies=tuple(accuracies),
            mean_interval=mean_interval(accuracies),
            best=max(accuracies, default=None),
            judged=fmean(judged) if judged else None,
            judged_candidate=winner,
            gain=gain,
            noise=noise,
        )
        self.note(f"{batch}: {counted.checked} of {counted.asked} valid, {counted.new} new, judged {cycle.judged}")
        return cycle

    def _propose(self, batch: str, number: int, rewriter: Rewriter) -> tuple[Proposal, ...]:
        # The start's name and seed hold no rewriter, so every arm of one seed begins alike.
        proposer = Proposer(
            archive=self.archive,
            rewriter=rewriter,
            judge=self.ground.judge,
            families=self.ground.families,
            batch=batch,
            count=getattr(rewriter, "tokens", estimate_tokens),
        )
        seed = derive(self.seed, "evolve", number)
        if number == 0:
            return proposer.plans(self.start, _nothing_known(proposer.space), (), seed)
        trials = self._trials(before=number)
        parents = top_parents(self.archive, trials, self.top)
        failed = [row for earlier in range(number) for row in proposals(self.archive, self._batch(earlier))]
        values = [
            plan_values(trials, proposer.space, failed=failed, parent=(parent.plan, parent.accuracy))
            for parent in parents
            if parent.plan is not None
        ]
        if not values:
            raise UsageError(f"{self.name}: nothing of the start could be trained, so there is nothing to improve on")
        return proposer.plans(self.number, values, parents, seed)

    def _judge(self, number: int) -> tuple[str, list[float]]:
        """Train the best candidate so far on fresh seeds, the same ones in every cycle."""
        best = top_parents(self.archive, self._trials(before=number + 1), 1)
        if not best or best[0].plan is None:
            return "", []
        jobs = [
            Job(candidate=best[0].id, plan=best[0].plan, seed=derive(self.seed, "judge", turn), trusted=True)
            for turn in range(self.judges)
        ]
        batch = f"{self.name}-judge-{number}"
        ground = self.ground
        trials = run_jobs(
            self.archive,
            batch,
            jobs,
            ground.judge,
            ground.families,
            label="judge",
            seed=self.seed,
            stage=LoopStage(loop=self.name, cycle=number, role=LoopRole.JUDGE),
        )
        return best[0].id, [t.validation_accuracy for t in trials if t.validation_accuracy is not None]

    def _trials(self, *, before: int) -> list[StoredTrial]:
        """Return the loop's own trials of earlier cycles; judging is left out, for it is held out from proposing."""
        names = {self._batch(number) for number in range(before)}
        return [
            trial
            for trial in at_fidelity(self.archive.trials(), self.ground.judge.spec)
            if trial.trained and trial.campaign in names
        ]

    def _batch(self, number: int) -> str:
        return f"{self.name}-{number}"


def _gain(before: Sequence[Cycle], judged: Sequence[float]) -> tuple[float | None, float | None]:
    """Compare the judged mean with the cycle before; the noise is that of the judging seeds."""
    if not before or before[-1].judged is None or not judged:
        return None, None
    spread = variance(judged) if len(judged) > 1 else 0.0
    return fmean(judged) - before[-1].judged, _Z * math.sqrt(2 * spread / len(judged))


def _nothing_known(space: PlanSpace) -> dict[str, Any]:
    return plan_values((), space)


def share_interval(hits: int, trials: int) -> Span:
    """Compute Wilson's 95 % score interval of a share; (0, 1) where there was no trial."""
    rate = wilson(hits, trials)
    return rate.low, rate.high
