"""The closed loop: propose, check, train, judge and tune, again and again, until the gain is noise.

Every stage is a campaign of the archive whose record names the loop, the cycle and the stage's role, and
continues where it was stopped; so does the loop. The best candidate of a cycle is trained again on fresh
seeds before it counts: the accuracy that selected it is biased upwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from statistics import fmean
from typing import Annotated, Protocol

from more_itertools import interleave_longest

from nngen.analysis.loop_report import LoopCycle, read_cycle
from nngen.archive.records import LoopRole, StoredTrial
from nngen.archive.store import Archive
from nngen.assembly.assemble import Assembler
from nngen.campaign.budget import Budget, last_budget, read_usage
from nngen.campaign.protocols import CampaignInputs, GivenCandidates, Suggestion, Watcher
from nngen.campaign.successive_halving import is_over
from nngen.campaign.summary import reveal_test
from nngen.campaign_spec import CampaignSpec
from nngen.errors import UsageError
from nngen.families.trust import AUTO
from nngen.llm.prompts import estimate_tokens
from nngen.llm.proposals.log import Proposal, proposals, shortfall
from nngen.llm.proposals.parents import (
    Parent,
    at_fidelity,
    islands_of,
    mean_accuracies,
    new_candidates,
    top_parents,
)
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.proposals.pool import read_drafts
from nngen.llm.rewriters.bandit import Several
from nngen.llm.rewriters.base import Kind, Rewriter
from nngen.llm.rewriters.baselines import Uniform
from nngen.plan import Plan
from nngen.ranges import Range, Size, check_ranges
from nngen.seeds import derive
from nngen.text import counted
from nngen.training.engine import Engine

_BEGUN = "loop.begun"


class Tuner(Protocol):
    """Tunes a rewriter on the archive between two cycles."""

    def __call__(self, archive: Archive, cycle: int) -> Rewriter | None:
        """Return the tuned rewriter; None keeps the present one."""
        ...


class _Stopped(Exception):  # noqa: N818  (ends the loop early, without an error)
    """A stage that ended before its last trial; the text is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evolution:
    """A closed loop with all that runs it; ``note`` gets one line after each cycle.

    Attributes:
        spec: Settings of every trial; the name is the loop's, whose stages are the campaigns ``NAME-0``, ``NAME-1``,
            ..., ``NAME-judge-0``, ...; the seed decides every draw; the size has no effect.
        cycles: Most cycles after the start; ``rewriter`` is that of the first.
        start: Plans drawn at random before the first cycle; equal for all rewriters of one seed.
        number: Proposals of a cycle.
        top: Candidates that serve as parents: those of the best accuracies less their errors, fewer children first.
        islands: Groups of candidates that breed apart, with so many parents each; after every second cycle the best of
            one joins the next.
        judges: Fresh seeds that the best candidate is trained on, at least 2.
        patience: Cycles in a row with a gain inside the noise after which the loop stops.
        tune: Tunes the rewriter between cycles.
        budget: Budget of all stages together; None for the one that was set last.
        max_new: Begin no further cycle after so many new candidates, those of the start included.
        max_tokens: Begin no further cycle after so many tokens of prompts and replies.
        kinds: Kinds of proposals, which the cycles take in turn.
        assembler: Assembles the plans of all cycles.
        recorded: Plans of a recorded table, within whose values proposals stay; empty for all values; not stored.
        isolation: ``auto``, or the level that the user asked for in this run; it is not stored.
        max_reply_tokens: Longest reply, as for ``Proposer``; not stored either.
        pool: Plans drafted in a turn, as for ``Proposer``; None for no drafts; not stored either.
        reveal: Whether the test accuracy of the candidate that was judged last is computed once the loop is over.
    """

    spec: CampaignSpec
    archive: Archive
    inputs: CampaignInputs
    engine: Engine
    rewriter: Rewriter
    cycles: Size = 3
    start: Size = 8
    number: Size = 8
    top: Size = 3
    islands: Size = 1
    judges: Annotated[int, Range(low=2, high=10_000, whole=True)] = 2
    patience: Size = 2
    tune: Tuner | None = None
    budget: Budget | None = None
    max_new: Size | None = None
    max_tokens: Size | None = None
    kinds: tuple[Kind, ...] = (Kind.PLAN,)
    recorded: Collection[Plan] = ()
    assembler: Assembler = field(default_factory=Assembler)
    watcher: Watcher = field(default_factory=Watcher)
    note: Callable[[str], None] = lambda _: None
    isolation: str = AUTO
    max_reply_tokens: int | None = None
    pool: Size | None = None
    reveal: bool = False

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def name(self) -> str:
        """Name of the loop."""
        return self.spec.name

    def begin(self) -> LoopCycle | None:
        """Draw, train and judge the common start, or resume it; None if a budget or a command stopped it."""
        found = self._run(cycles=0)
        return found[0] if found else None

    def run(self) -> list[LoopCycle]:
        """Begin or resume the loop.

        Returns:
            The finished cycles, the common start first.

        Raises:
            UsageError: If the loop began with other settings, or no candidate of the start could be trained.
            NngenError: If no request of a cycle was answered; ``SomeFailedError`` if some were not.
            ArchiveError: If another live driver runs a stage, or the archive cannot be written.
            KeyboardInterrupt: After Ctrl-C; running trainings are finished first.
        """
        return self._run(cycles=self.cycles)

    def _run(self, *, cycles: int) -> list[LoopCycle]:
        self._store_settings()
        rewriter, found = self.rewriter, list[LoopCycle]()
        inside = 0
        try:
            found.append(self._cycle(0, Uniform(), None))
            for number in range(1, cycles + 1):
                self._check_limits(number)
                latest = self._cycle(number, rewriter, found[-1])
                found.append(latest)
                # A gain inside the noise of the judging seeds is not progress, whatever its sign.
                inside = inside + 1 if latest.gain is not None and latest.gain <= (latest.noise or 0.0) else 0
                if inside >= self.patience:
                    self.note(f"stopped after cycle {number}: {inside} gains inside the noise")
                    break
                if self.tune is not None and number < cycles:
                    rewriter = _with_tuned(rewriter, self.tune(self.archive, number))
        except _Stopped as reason:
            self.note(str(reason))
        else:
            if self.reveal and cycles:
                self._reveal(found[-1])
        return found

    def _reveal(self, last: LoopCycle) -> None:
        """Report the test accuracy of the candidate that was judged last, over the seeds that judged it."""
        labels = self.inputs.dataset.test_labels.astype("<u2").tobytes()
        trials = self.archive.trials(f"{self.name}-judge-{last.number}")
        known = [found for trial in trials if (found := reveal_test(self.archive, trial, labels)) is not None]
        if known:
            self.note(
                f"test accuracy of {last.judged_candidate}: {fmean(known):.4f} over {counted(len(known), 'seed')}"
            )

    def _store_settings(self) -> None:
        stored = stored_loop(self.archive, self.name)
        if stored is None:
            self.archive.log(_BEGUN, campaign=self.name, spec=self.spec.to_dict())
        # The size has no effect: every stage has its own.
        elif stored != replace(self.spec, size=stored.size):
            raise UsageError(f"loop {self.name} began with other settings: choose another name")
        if self.budget is not None and self.budget != last_budget(self.archive.events(self.name)):
            self.archive.log("budget.set", campaign=self.name, **self.budget.to_dict())

    def _cycle(self, number: int, rewriter: Rewriter, before: LoopCycle | None) -> LoopCycle:
        batch = self._stage_name(number)
        rows = self._propose(batch, number, rewriter)
        if lost := shortfall(rows, self.number if number else self.start):
            raise lost
        seed = derive(self.spec.seed, "evolve", number)
        writers = sorted({row.rewriter for row in rows}) or [rewriter.name]
        label = f"rewriter {', '.join(writers)}"
        trials = self._train(batch, number, LoopRole.CYCLE, new_candidates(self.archive, rows), seed=seed, label=label)
        cycle = read_cycle(self.archive, self.name, number, batch, trials, self._judge(number), before)
        valid = f"{cycle.valid.successes} of {cycle.valid.tries} valid"
        self.note(f"{batch}: {valid}, {cycle.new.successes} new, judged {cycle.judged}")
        return cycle

    def _propose(self, batch: str, number: int, rewriter: Rewriter) -> tuple[Proposal, ...]:
        from nngen.llm.proposals.propose import Proposer

        proposer = Proposer(
            archive=self.archive,
            rewriter=rewriter,
            engine=self.engine,
            inputs=self.inputs,
            spec=self.spec,
            space=PlanSpace.spanned(tuple(self.inputs.families), self.recorded) if self.recorded else None,
            batch=batch,
            assembler=self.assembler,
            count=getattr(rewriter, "tokens", estimate_tokens),
            isolation=self.isolation,
            max_reply_tokens=self.max_reply_tokens,
            # Repeats are drawn anew, so that the start has its number of plans.
            pool=self.pool if number else self.start,
            note=self.note if number else lambda _: None,
        )
        # No part of the start depends on the rewriter, so all loops of one seed begin alike.
        seed = derive(self.spec.seed, "evolve", number)
        if number == 0:
            return proposer.plans(self.start, (), seed)
        cycles = [proposals(self.archive, self._stage_name(cycle)) for cycle in range(number)]
        # The prompt lists the failures of all earlier cycles, so that they are not proposed again.
        earlier = [row for rows in cycles for row in rows]
        kind, trials = self.kinds[(number - 1) % len(self.kinds)], self._trials(before=number)
        parents = self._parents(kind, trials, cycles)
        if not parents:
            raise UsageError(f"{self.name}: no candidate of the start could be trained, so there is none to improve on")
        return proposer.ask(kind, self.number, parents, seed, trials=trials, failed=earlier)

    def _parents(self, kind: Kind, trials: Sequence[StoredTrial], cycles: Sequence[Sequence[Proposal]]) -> list[Parent]:
        """Return the parents of a cycle: the best of each island, then the second of each, and so on."""
        rows = [row for cycle in cycles for row in cycle]
        children = Counter(row.parent for row in rows if row.parent)
        # A plan is made from a plan, code from whatever was assembled or written.
        fitting = {row.candidate for row in rows if kind is not Kind.PLAN or row.kind is Kind.PLAN}
        able = [trial for trial in trials if trial.candidate_id in fitting]
        homes = islands_of(cycles, mean_accuracies(trials), self.islands)
        groups = ([one for one in able if place in homes[one.candidate_id or ""]] for place in range(self.islands))
        best = interleave_longest(*(top_parents(self.archive, group, self.top, children) for group in groups))
        return list({parent.id: parent for parent in best}.values())

    def _check_limits(self, number: int) -> None:
        """End the loop before a cycle if its new candidates or its tokens are used up."""
        stages = [self._stage_name(cycle) for cycle in range(number)]
        rows = [row for stage in stages for row in proposals(self.archive, stage)]
        drafts = [turn for stage in stages for turn in read_drafts(self.archive, stage)]
        # A picked draft is a proposal too, and counts once.
        picked = {(row.batch, row.index) for turn in drafts for row in turn.picked}
        spent = [turn.prompt_tokens + turn.reply_tokens for turn in drafts]
        spent += [row.prompt_tokens + row.reply_tokens for row in rows if (row.batch, row.index) not in picked]
        new = sum(row.new for row in rows)
        for flag, used, most in (("--max-new", new, self.max_new), ("--max-tokens", sum(spent), self.max_tokens)):
            if most is not None and used >= most:
                raise _Stopped(f"{self.name}: {flag} {most} is reached with {used}; a larger one continues the loop")

    def _judge(self, number: int) -> tuple[StoredTrial, ...]:
        """Train the best candidate so far on fresh seeds, the same ones in every cycle."""
        trials = self._trials(before=number + 1)
        best = next(iter(top_parents(self.archive, trials, 1)), None)
        if best is None:
            return ()
        candidate = self.archive.candidate(best.id)
        # Code that a rewriter wrote is trained under the plan that it was made from.
        plan = next(trial.plan for trial in trials if trial.candidate_id == best.id)
        # Equal seeds in every cycle, so that a difference between cycles is one of candidates.
        seeds = [derive(self.spec.seed, "judge", turn) for turn in range(self.judges)]
        source = GivenCandidates(
            suggestions=tuple(Suggestion(plan=plan, candidate=candidate, seed=seed) for seed in seeds)
        )
        stage = f"{self.name}-judge-{number}"
        return self._train(stage, number, LoopRole.JUDGE, source, seed=self.spec.seed, label="judge")

    def _train(
        self, stage: str, cycle: int, role: LoopRole, source: GivenCandidates, *, seed: int, label: str
    ) -> tuple[StoredTrial, ...]:
        """Run one stage as a campaign; a stage that ends early ends the loop."""
        if not source.suggestions:
            return ()
        from nngen.campaign.runner import Campaign

        campaign = Campaign(
            spec=replace(self.spec, name=stage, size=len(source.suggestions), seed=seed, sampler=label),
            archive=self.archive,
            inputs=self.inputs,
            engine=self.engine,
            source=source,
            watcher=self.watcher,
            budget=self._remaining_budget(stage),
            loop=self.name,
            cycle=cycle,
            role=role,
            isolation=self.isolation,
        )
        if not campaign.run().over:
            raise _Stopped(f"{stage} was stopped before its last trial; the same command continues it")
        return self.archive.trials(stage)

    def _remaining_budget(self, stage: str) -> Budget:
        """Compute the loop's budget without the usage of its other stages."""
        records = {record.name: record for record in self.archive.campaigns()}
        # A finished stage runs again without a new trial, so a used-up budget must not stop it.
        if stage in records and is_over(records[stage].spec, self.archive.lines(stage)):
            return last_budget(self.archive.events(stage))
        budget = last_budget(self.archive.events(self.name))
        used = {name: read_usage(self.archive, name) for name, record in records.items() if record.loop == self.name}
        remaining = {}
        for limit, field_name in (("max_trials", "trials"), ("max_hours", "hours"), ("max_cost", "cost")):
            most = getattr(budget, limit)
            if most is None:
                continue
            shares = {name: getattr(spent, field_name) or 0 for name, spent in used.items()}
            # The campaign counts its own usage, so only that of the other stages is taken off.
            if sum(shares.values()) >= most:
                flag = f"--{limit.replace('_', '-')}"
                raise _Stopped(
                    f"{self.name}: the budget of {flag} {most:g} is used up; a larger one continues the loop"
                )
            remaining[limit] = most - sum(share for name, share in shares.items() if name != stage)
        return replace(budget, **remaining)

    def _trials(self, *, before: int) -> list[StoredTrial]:
        """Return the trained trials of earlier cycles; judging trials are held out from proposing."""
        stages = (self.archive.trials(self._stage_name(number)) for number in range(before))
        fidelity = self.spec.trial(0).fidelity(self.inputs.dataset.fingerprint)
        return [trial for trial in at_fidelity(chain(*stages), fidelity) if trial.trained]

    def _stage_name(self, number: int) -> str:
        return f"{self.name}-{number}"


def _with_tuned(rewriter: Rewriter, tuned: Rewriter | None) -> Rewriter:
    """Return the rewriter of the next cycle: the tuned model, or those that asked its base and ask it from now on."""
    if tuned is not None and isinstance(rewriter, Several):
        rewriter.with_tuned(tuned)
        return rewriter
    return tuned or rewriter


def stored_loop(archive: Archive, name: str) -> CampaignSpec | None:
    """Read the settings that a loop began with; None for a loop that has not begun."""
    begun = [event for event in archive.events(name) if event.kind == _BEGUN]
    return CampaignSpec.from_dict(begun[0].detail["spec"]) if begun else None
