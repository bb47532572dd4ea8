"""Batches of proposals: prompts are made, a rewriter is asked, and each reply is checked and recorded.

Every proposal is one event of the archive as soon as it is checked. A batch that was killed continues with the first
missing proposal, and asks for it with the same seed. With a pool, a rewriter drafts many plans of which a few become
proposals (``nngen.llm.proposals.pool``).
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from more_itertools import chunked

from nngen.archive.records import StoredTrial
from nngen.archive.store import Archive
from nngen.assembly.assemble import Assembler
from nngen.campaign.protocols import CampaignInputs
from nngen.campaign_spec import CampaignSpec
from nngen.errors import UsageError
from nngen.families.trust import AUTO, check_level
from nngen.isolation import Isolation
from nngen.llm.prompts import BudgetError, Rendered, estimate_tokens, prompt, render
from nngen.llm.proposals.checking import Ask, Checker
from nngen.llm.proposals.log import Proposal, proposals
from nngen.llm.proposals.parents import Parent, writer_gains
from nngen.llm.proposals.parsing import Fault, ReplyError, well_formed
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.proposals.pool import Drafts, pick, read_drafts, store_drafts
from nngen.llm.proposals.prompt_context import file_values, parent_values, plan_means, plan_values, region_values
from nngen.llm.proposals.regions import REGIONS, present
from nngen.llm.rewriters.base import Kind, Lessons, Message, Reply, Request, Rewriter, Status
from nngen.plan import Plan
from nngen.seeds import derive
from nngen.training.engine import Engine
from nngen.types import Candidate

_CHUNK = 16  # requests made together, so that a local model decodes them in one batch
_TURNS = 4  # of drafting, until as many plans as were asked for are new
_MAX_TOKENS = {Kind.PLAN: 512, Kind.REGION: 512, Kind.FILE: 24_000}
# Code drawn without a floor on rare tokens seldom parses; plans follow a grammar and need none.
_MIN_P = {Kind.PLAN: 0.0, Kind.REGION: 0.1, Kind.FILE: 0.1}
_TEMPLATE_TOKENS = 64  # that a chat template adds to the turns
_NO_LIMIT = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """A prompt about one place of one parent; a batch asks its questions in turn.

    Attributes:
        rendered: The prompt, or the error about its budget.
        code: Text that the reply replaces.
    """

    rendered: Rendered | BudgetError
    parent: Parent | None
    code: str = ""
    region: str = ""


@dataclass(slots=True, kw_only=True)
class Proposer:
    """Runs one batch of proposals.

    Attributes:
        archive: Holds candidates, verdicts and the log of proposals.
        rewriter: Writes the proposals.
        engine: Checks the candidates.
        inputs: Usable families and the data set.
        spec: Shape, device, threads and memory limit of the checks.
        batch: Name of the batch; a batch of the same name is continued.
        assembler: Assembles the plans; shared by batches, it transforms each family once.
        space: Plans that may be written; all plans over the usable families where it is None.
        count: Counts the tokens of a text, for the prompt's budget.
        repair: Whether a failed proposal gets a second attempt, with the error message.
        temperature: Temperature of a model's draws.
        watch: Called with each proposal after it is recorded.
        sandbox: Whether bubblewrap can be used; looked for where it is None.
        isolation: ``auto``, or the level that the user asked for.
        max_reply_tokens: Longest reply; that of the kind where it is None.
        pool: Plans that are drafted in one turn, the best of which become proposals; None for no drafts.
        note: Called with one line on each turn of drafting.
    """

    archive: Archive
    rewriter: Rewriter
    engine: Engine
    inputs: CampaignInputs
    spec: CampaignSpec
    batch: str
    assembler: Assembler = field(default_factory=Assembler)
    space: PlanSpace | None = None
    count: Callable[[str], int] = estimate_tokens
    repair: bool = False
    temperature: float = 1.0
    watch: Callable[[Proposal], None] = lambda _: None
    sandbox: bool | None = None
    isolation: str = AUTO
    max_reply_tokens: int | None = None
    pool: int | None = None
    note: Callable[[str], None] = lambda _: None
    _plans: PlanSpace = field(init=False)
    _checker: Checker = field(init=False)
    _lessons: Lessons = field(init=False)

    def __post_init__(self) -> None:
        self._plans = self.space or PlanSpace(families=tuple(sorted(self.inputs.families)))
        self._lessons = Lessons()
        self._checker = Checker(
            archive=self.archive,
            engine=self.engine,
            inputs=self.inputs,
            spec=self.spec,
            plans=self._plans,
            assembler=self.assembler,
            isolation=self.isolation,
            watch=self.watch,
        )

    def ask(
        self,
        kind: Kind,
        number: int,
        parents: Sequence[Parent],
        seed: int,
        names: Sequence[str] = (),
        *,
        trials: Sequence[StoredTrial] = (),
        failed: Sequence[Proposal] = (),
    ) -> tuple[Proposal, ...]:
        """Ask for proposals of a kind; arguments as for ``plans`` and ``regions``."""
        if kind is Kind.PLAN:
            return self.plans(number, parents, seed, trials=trials, failed=failed)
        if kind is Kind.REGION:
            return self.regions(number, parents, seed, names, trials=trials)
        return self.files(number, parents, seed, trials=trials)

    def plans(
        self,
        number: int,
        parents: Sequence[Parent],
        seed: int,
        *,
        trials: Sequence[StoredTrial] = (),
        failed: Sequence[Proposal] = (),
    ) -> tuple[Proposal, ...]:
        """Ask for plans.

        Args:
            number: Proposals in the batch, those already recorded included.
            parents: Plans to improve on, taken in turn; may be empty.
            seed: Seed of the batch.
            trials: Trials of one fidelity that the prompt summarises and the ranker of drafts is fitted to.
            failed: Earlier proposals, whose failures the prompt lists.
        """
        self._learn(trials)
        # The effects are fitted once: prompts of one batch differ in their parents alone.
        values = plan_values(trials, self._plans, failed=failed)
        starts: Sequence[Parent | None] = parents or [None]
        questions = [
            self._question(Kind.PLAN, values | parent_values(start, trials, self._plans), start)
            for start in starts[:number]
        ]
        if self.pool is None:
            return self._run(Kind.PLAN, number, seed, questions)
        return self._run_with_drafts(number, seed, questions)

    def regions(
        self,
        number: int,
        parents: Sequence[Parent],
        seed: int,
        names: Sequence[str] = (),
        *,
        trials: Sequence[StoredTrial] = (),
    ) -> tuple[Proposal, ...]:
        """Ask for regions: every parent in turn, then the next region.

        Args:
            number: Proposals in the batch, those already recorded included.
            parents: Candidates whose regions are rewritten.
            seed: Seed of the batch.
            names: Regions to ask for; every region of a parent by default.
            trials: Trials of one fidelity that a bandit over rewriters learns from.

        Raises:
            UsageError: If ``parents`` is empty, or none of them has one of these regions.
        """
        self._learn(trials)
        questions = [
            self._question(Kind.REGION, region_values(parent, region), parent, region)
            for parent, region in _spots(parents, names)[:number]
        ]
        return self._run(Kind.REGION, number, seed, questions)

    def files(
        self, number: int, parents: Sequence[Parent], seed: int, *, trials: Sequence[StoredTrial] = ()
    ) -> tuple[Proposal, ...]:
        """Ask for whole files, every parent in turn; arguments as for ``regions``.

        Raises:
            UsageError: If ``parents`` is empty.
        """
        if not parents:
            raise UsageError("a file is written from a parent: name one with --parent, or train some first")
        self._learn(trials)
        questions = [self._question(Kind.FILE, file_values(parent), parent) for parent in parents[:number]]
        return self._run(Kind.FILE, number, seed, questions)

    def _learn(self, trials: Sequence[StoredTrial]) -> None:
        gains = writer_gains(proposals(self.archive), trials)
        self._lessons = Lessons(plans=tuple(plan_means(trials)), gains=gains)

    def _question(self, kind: Kind, values: Mapping[str, Any], parent: Parent | None, region: str = "") -> _Question:
        rendered: Rendered | BudgetError
        chosen = prompt(kind.value)
        # A prompt gives way to the context of a small model, of which at most a quarter is kept for the reply.
        context = getattr(self.rewriter, "context", _NO_LIMIT)
        room = context - min(self._reply_tokens(kind), context // 4) - _TEMPLATE_TOKENS
        try:
            rendered = render(chosen, values, self.count, min(chosen.budget, room))
        except BudgetError as error:
            rendered = error
        return _Question(rendered=rendered, parent=parent, code=str(values.get("code", "")), region=region)

    def _reply_tokens(self, kind: Kind) -> int:
        return self.max_reply_tokens or _MAX_TOKENS[kind]

    def _run(self, kind: Kind, number: int, seed: int, questions: Sequence[_Question]) -> tuple[Proposal, ...]:
        require_sandbox(self.rewriter.name, kind, self.isolation, available=self.sandbox)
        # Seed and question follow from the index, so what is missing is asked as it would have been at first.
        done = {row.index for row in proposals(self.archive, self.batch) if not row.unanswered}
        asked: list[Ask] = []
        for index in (index for index in range(number) if index not in done):
            question = questions[index % len(questions)]
            proposal = Proposal(
                batch=self.batch,
                index=index,
                rewriter=self.rewriter.name,
                kind=kind,
                region=question.region,
                parent=question.parent.id if question.parent else "",
                seed=derive(seed, "proposal", self.batch, index),
            )
            if isinstance(question.rendered, BudgetError):
                message = str(question.rendered)
                self._checker.store(replace(proposal, status=Status.NOTHING, fault=Fault.BUDGET, message=message), None)
                continue
            request = self._request(kind, question, question.rendered, proposal.seed)
            proposal = replace(proposal, prompt=question.rendered.prompt)
            asked.append(Ask(request=request, parent=question.parent, proposal=proposal))
        # Each chunk is recorded before the next one is sent: a kill loses the replies of one chunk at most.
        for start in range(0, len(asked), _CHUNK):
            chunk = asked[start : start + _CHUNK]
            replies = self.rewriter.propose([ask.request for ask in chunk])
            unanswered = True
            for ask, reply in zip(chunk, replies, strict=True):
                proposal, candidate = self._checker.evaluate(ask, reply)
                if self.repair and not self.rewriter.trusted and not proposal.valid and reply.text:
                    proposal, candidate = self._second_attempt(ask, proposal, candidate)
                self._checker.store(proposal, candidate)
                unanswered = unanswered and proposal.unanswered
            if unanswered:
                break  # the server is down: the next run asks for the rest
        return proposals(self.archive, self.batch)

    def _request(self, kind: Kind, question: _Question, rendered: Rendered, seed: int) -> Request:
        return Request(
            kind=kind,
            messages=rendered.messages,
            seed=seed,
            max_tokens=self._reply_tokens(kind),
            exact=self.max_reply_tokens is not None,
            temperature=self.temperature,
            min_p=_MIN_P[kind],
            space=self._plans,
            parent=question.parent.plan if question.parent else None,
            code=question.code,
            region=question.region,
            lessons=self._lessons,
        )

    def _run_with_drafts(self, number: int, seed: int, questions: Sequence[_Question]) -> tuple[Proposal, ...]:
        """Draft plans and check the best, until so many are new or the turns are used up."""
        parents = {question.parent.id: question.parent for question in questions if question.parent}
        turns = list(read_drafts(self.archive, self.batch))
        while True:
            rows = {row.index: row for row in proposals(self.archive, self.batch) if not row.unanswered}
            # Drafts cost a model minutes, so a run that was killed goes on with those that it had picked.
            for row in (row for turn in turns for row in turn.picked if row.index not in rows):
                rows[row.index] = self._check_draft(row, parents)
            missing = number - sum(row.new for row in rows.values())
            if missing <= 0 or sum(turn.goal == number for turn in turns) >= _TURNS:
                break
            free = (index for index in count() if index not in rows)
            latest = self._draft(missing, number, derive(seed, "drafts", self.batch, len(turns)), questions, free)
            if not latest.drafted:
                break
            store_drafts(self.archive, self.batch, latest)
            self.note(f"{self.batch}: {latest}")
            turns.append(latest)
        # What no draft became, because the server is down or all that it writes is known, is asked for one by one.
        return self._run(Kind.PLAN, number, seed, questions)

    def _check_draft(self, row: Proposal, parents: Mapping[str, Parent]) -> Proposal:
        parent = parents.get(row.parent)
        if parent is None and row.parent:
            parent = Parent.of(self.archive.candidate(row.parent))
        request = Request(kind=Kind.PLAN, messages=(), seed=row.seed, parent=parent.plan if parent else None)
        spent = {name: getattr(row, name) for name in ("prompt_tokens", "reply_tokens", "seconds")}
        checked, candidate = self._checker.evaluate(
            Ask(request=request, parent=parent, proposal=row), Reply(text=row.text, **spent)
        )
        self._checker.store(checked, candidate)
        return checked

    def _draft(self, missing: int, goal: int, seed: int, questions: Sequence[_Question], free: Iterator[int]) -> Drafts:
        """Ask for one turn of drafts and pick among them; ``free`` yields the numbers of the picked ones."""
        usable: dict[Plan, Proposal] = {}
        writers, faults = Counter[str](), Counter[str]()
        known = repeated = tokens = read = 0
        seconds = 0.0
        for request, row in self._replies(max(self.pool or 0, missing), seed, questions):
            writers[row.rewriter] += 1
            seconds, tokens, read = seconds + row.seconds, tokens + row.reply_tokens, read + row.prompt_tokens
            try:
                plan = self._checker.read_plan(row.text, request)
            except ReplyError as error:
                faults[error.fault.value] += 1
                continue
            if self.archive.knows(plan):
                known += 1
            elif plan in usable:
                repeated += 1
            else:
                usable[plan] = row
        places, fitted = pick(list(usable), missing, self._lessons.plans)
        drafts = list(usable.values())
        return Drafts(
            goal=goal,
            writers=dict(writers),
            faults=dict(faults),
            known=known,
            repeated=repeated,
            usable=len(usable),
            fitted=fitted,
            trained=len(self._lessons.plans),
            seconds=seconds,
            reply_tokens=tokens,
            prompt_tokens=read,
            picked=tuple(replace(drafts[place], index=next(free)) for place in places),
        )

    def _replies(self, number: int, seed: int, questions: Sequence[_Question]) -> Iterator[tuple[Request, Proposal]]:
        """Ask for drafts, whose seeds follow from their place; requests without a reply are left out."""
        asked = [(question, question.rendered) for question in questions if isinstance(question.rendered, Rendered)]
        places = range(number if asked else 0)
        for chunk in chunked(places, _CHUNK):
            chosen = [(*asked[place % len(asked)], derive(seed, place)) for place in chunk]
            requests = [self._request(Kind.PLAN, *one) for one in chosen]
            replies = self.rewriter.propose(requests)
            lost = 0
            for (question, rendered, own), request, reply in zip(chosen, requests, replies, strict=True):
                row = Proposal(
                    batch=self.batch,
                    index=0,  # given to those that are picked
                    rewriter=reply.rewriter or self.rewriter.name,
                    kind=Kind.PLAN,
                    parent=question.parent.id if question.parent else "",
                    prompt=rendered.prompt,
                    seed=own,
                    status=reply.status,
                    text=well_formed(reply.text),
                    prompt_tokens=reply.prompt_tokens,
                    reply_tokens=reply.reply_tokens,
                    seconds=reply.seconds,
                )
                lost += row.unanswered
                if not row.unanswered:
                    yield request, row
            if lost == len(chosen):
                return  # the server is down
            if not self.rewriter.trusted:
                self.note(f"{self.batch}: {chunk[-1] + 1} of {number} drafts")

    def _second_attempt(
        self, ask: Ask, first: Proposal, candidate: Candidate | None
    ) -> tuple[Proposal, Candidate | None]:
        """Ask once more with the error message; the second attempt replaces the first, whatever its result."""
        error = render(prompt("repair"), {"message": first.message[:400]}, self.count).messages[-1].content
        # The model sees its own reply and the error, as in a dialogue with its user.
        turns = (Message(role="assistant", content=first.text), Message(role="user", content=error))
        seed = derive(ask.request.seed, "repair")
        request = replace(ask.request, messages=(*ask.request.messages, *turns), seed=seed)
        reply = self.rewriter.propose([request])[0]
        # A first attempt that at least became a candidate stands where no second reply was returned.
        if reply.status is not Status.OK and first.fault is None:
            return first, candidate
        proposal = replace(ask.proposal, seed=seed, repaired=True)
        return self._checker.evaluate(replace(ask, request=request, proposal=proposal), reply)


def require_sandbox(name: str, kind: Kind, isolation: str = AUTO, *, available: bool | None = None) -> None:
    """Refuse proposals of code without a sandbox: plans are data, and all else was not assembled here.

    Args:
        name: Name of the rewriter.
        kind: Kind of its proposals.
        isolation: ``auto``, or the level that the user asked for.
        available: Whether bubblewrap can be used; looked for by default.

    Raises:
        UsageError: If the kind is code, no other level was asked for, and bubblewrap is missing.
    """
    check_level(isolation)
    if kind is Kind.PLAN or isolation not in (AUTO, Isolation.SANDBOX):
        return
    if available is False or (available is None and shutil.which("bwrap") is None):
        raise UsageError(
            f"{name} would write code ({kind}), and code that nngen did not assemble runs in a sandbox only: "
            "apt-get install bubblewrap, or ask for --kind plan"
        )


def _spots(parents: Sequence[Parent], names: Sequence[str]) -> list[tuple[Parent, str]]:
    unknown = [name for name in names if name not in REGIONS]
    if unknown:
        raise UsageError(f"no region is called {unknown[0]!r}: choose {', '.join(REGIONS)}")
    if not parents:
        raise UsageError("a region is written into a parent: name one with --parent, or train some first")
    # Regions outside, parents inside: a short batch already asks every parent.
    there = [set(present(parent.source)) for parent in parents]
    wanted = names or tuple(REGIONS)
    spots = [(parent, name) for name in wanted for parent, found in zip(parents, there, strict=True) if name in found]
    if not spots:
        raise UsageError(f"none of the parents has a region {' or '.join(wanted)}: they were not assembled by nngen")
    return spots
