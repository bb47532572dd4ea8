"""Batches of proposals: prompts are made, a rewriter is asked, and each reply is checked and recorded.

Every proposal is one event of the archive as soon as it is checked. A batch that was killed continues with the first
missing proposal, and asks for it with the same seed. With a pool, a rewriter drafts many plans of which a few become
proposals (``nngen.llm.proposals.drafting``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from nngen.archive.records import StoredTrial
from nngen.archive.store import Archive
from nngen.assembly.assemble import Assembler
from nngen.campaign.protocols import CampaignInputs
from nngen.campaign_spec import CampaignSpec
from nngen.errors import UsageError
from nngen.families.trust import AUTO
from nngen.llm.prompts import BudgetError, estimate_tokens, prompt, render
from nngen.llm.proposals.checking import Ask, Checker
from nngen.llm.proposals.drafting import Drafter
from nngen.llm.proposals.log import Proposal, proposals
from nngen.llm.proposals.parents import Parent, writer_gains
from nngen.llm.proposals.parsing import Fault
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.proposals.prompt_context import file_values, parent_values, plan_means, plan_values, region_values
from nngen.llm.proposals.requests import CHUNK, Question, Requests, parents_and_regions, require_sandbox
from nngen.llm.rewriters.base import Kind, Lessons, Message, Rewriter, Status
from nngen.seeds import derive
from nngen.training.engine import Engine
from nngen.types import Candidate


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

    def __post_init__(self) -> None:
        self._plans = self.space or PlanSpace(families=tuple(sorted(self.inputs.families)))
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
        requests = self._requests(Kind.PLAN, trials)
        # The effects are fitted once: prompts of one batch differ in their parents alone.
        values = plan_values(trials, self._plans, failed=failed)
        starts: Sequence[Parent | None] = parents or [None]
        questions = [
            requests.question(values | parent_values(start, trials, self._plans), start) for start in starts[:number]
        ]
        if self.pool is not None:
            Drafter(
                archive=self.archive,
                checker=self._checker,
                requests=requests,
                pool=self.pool,
                note=self.note,
            ).draft(number, seed, questions)
        # What no draft became, because the server is down or all that it writes is known, is asked for one by one.
        return self._run(requests, number, seed, questions)

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
        requests = self._requests(Kind.REGION, trials)
        questions = [
            requests.question(region_values(parent, region), parent, region)
            for parent, region in parents_and_regions(parents, names)[:number]
        ]
        return self._run(requests, number, seed, questions)

    def files(
        self, number: int, parents: Sequence[Parent], seed: int, *, trials: Sequence[StoredTrial] = ()
    ) -> tuple[Proposal, ...]:
        """Ask for whole files, every parent in turn; arguments as for ``regions``.

        Raises:
            UsageError: If ``parents`` is empty.
        """
        if not parents:
            raise UsageError("a file is written from a parent: name one with --parent, or train some first")
        requests = self._requests(Kind.FILE, trials)
        questions = [requests.question(file_values(parent), parent) for parent in parents[:number]]
        return self._run(requests, number, seed, questions)

    def _requests(self, kind: Kind, trials: Sequence[StoredTrial]) -> Requests:
        gains = writer_gains(proposals(self.archive), trials)
        return Requests(
            kind=kind,
            batch=self.batch,
            rewriter=self.rewriter,
            space=self._plans,
            lessons=Lessons(plans=tuple(plan_means(trials)), gains=gains),
            count=self.count,
            temperature=self.temperature,
            max_reply_tokens=self.max_reply_tokens,
        )

    def _run(self, requests: Requests, number: int, seed: int, questions: Sequence[Question]) -> tuple[Proposal, ...]:
        require_sandbox(self.rewriter.name, requests.kind, self.isolation, available=self.sandbox)
        # Seed and question follow from the index, so what is missing is asked as it would have been at first.
        done = {row.index for row in proposals(self.archive, self.batch) if not row.unanswered}
        asked: list[Ask] = []
        for index in (index for index in range(number) if index not in done):
            question = questions[index % len(questions)]
            proposal = requests.proposal(question, index, derive(seed, "proposal", self.batch, index))
            if isinstance(question.rendered, BudgetError):
                message = str(question.rendered)
                self._checker.store(replace(proposal, status=Status.NOTHING, fault=Fault.BUDGET, message=message), None)
                continue
            request = requests.request(question, question.rendered, proposal.seed)
            asked.append(Ask(request=request, parent=question.parent, proposal=proposal))
        # Each chunk is recorded before the next one is sent: a kill loses the replies of one chunk at most.
        for start in range(0, len(asked), CHUNK):
            chunk = asked[start : start + CHUNK]
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
