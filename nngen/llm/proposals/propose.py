"""Turns requests into checked candidates: ask, parse, apply, compare, check, record.

Every proposal is one event of the archive as soon as it is checked. A batch that was killed continues
with the first missing proposal, and asks for it with the same seed.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nngen.archive.records import StoredTrial
from nngen.archive.store import Archive
from nngen.assembly.assemble import Assembler
from nngen.assembly.identity import canonical_hash
from nngen.assembly.provenance import source_level
from nngen.campaign.executor import MAX_LOSSES
from nngen.campaign.protocols import CampaignInputs
from nngen.campaign_spec import CampaignSpec
from nngen.errors import AssemblyError, EngineLostError, PlanError, UsageError
from nngen.families.trust import AUTO, check_level, families_level
from nngen.isolation import Isolation
from nngen.lemur.layout import nn_id
from nngen.llm.prompts import BudgetError, Rendered, estimate_tokens, prompt, render
from nngen.llm.proposals.deltas import apply_delta
from nngen.llm.proposals.duplicates import Known
from nngen.llm.proposals.log import Proposal, Stage, proposals, record
from nngen.llm.proposals.parents import Parent
from nngen.llm.proposals.parsing import Fault, ReplyError, diff_block, python_block, well_formed
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.proposals.prompt_context import file_values, parent_values, plan_values, region_values
from nngen.llm.proposals.regions import REGIONS, present, splice
from nngen.llm.rewriters.base import Kind, Message, Reply, Request, Rewriter, Status
from nngen.seeds import derive
from nngen.text import one_line
from nngen.training.engine import CheckJob, Engine
from nngen.types import Candidate, Verdict

_CHUNK = 16  # requests made together, so that a local model decodes them in one batch
_MAX_TOKENS = {Kind.PLAN: 512, Kind.REGION: 512, Kind.FILE: 24_000}
# Code drawn without a floor on rare tokens seldom parses; plans follow a grammar and need none.
_MIN_P = {Kind.PLAN: 0.0, Kind.REGION: 0.1, Kind.FILE: 0.1}
_TEMPLATE_TOKENS = 64  # that a chat template adds to the turns
_NO_LIMIT = 10**9
_AFTER_PARSING = frozenset({Fault.REGION, Fault.CONTEXT, Fault.UNCHANGED, Fault.ASSEMBLY})


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ask:
    """A request, the parent that its reply is applied to, and the proposal as it is known before the reply."""

    request: Request
    parent: Parent | None
    proposal: Proposal


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
        space: Plans that may be written; all plans over the usable families where it is None.
        count: Counts the tokens of a text, for the prompt's budget.
        repair: Whether a failed proposal gets a second attempt, with the error message.
        temperature: Temperature of a model's draws.
        watch: Called with each proposal after it is recorded.
        sandbox: Whether bubblewrap can be used; looked for where it is None.
        isolation: ``auto``, or the level that the user asked for.
        max_reply_tokens: Longest reply; that of the kind where it is None.
    """

    archive: Archive
    rewriter: Rewriter
    engine: Engine
    inputs: CampaignInputs
    spec: CampaignSpec
    batch: str
    space: PlanSpace | None = None
    count: Callable[[str], int] = estimate_tokens
    repair: bool = False
    temperature: float = 1.0
    watch: Callable[[Proposal], None] = lambda _: None
    sandbox: bool | None = None
    isolation: str = AUTO
    max_reply_tokens: int | None = None
    # One assembler for the batch: it keeps the sources that it has transformed.
    _assembler: Assembler = field(default_factory=Assembler)
    _plans: PlanSpace = field(init=False)
    _known: Known = field(init=False)

    def __post_init__(self) -> None:
        self._plans = self.space or PlanSpace(families=tuple(sorted(self.inputs.families)))
        self._known = Known(self.archive.canonicals())
        for row in proposals(self.archive):
            if row.written and row.candidate:
                self._known.add_code(row.candidate, row.written, _place(row))

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
            trials: Trials of one fidelity that the prompt summarises.
            failed: Earlier proposals, whose failures the prompt lists.
        """
        # The effects are fitted once: prompts of one batch differ in their parents alone.
        values = plan_values(trials, self._plans, failed=failed)
        starts: Sequence[Parent | None] = parents or [None]
        questions = [
            self._question(Kind.PLAN, values | parent_values(start, trials, self._plans), start)
            for start in starts[:number]
        ]
        return self._run(Kind.PLAN, number, seed, questions)

    def regions(
        self, number: int, parents: Sequence[Parent], seed: int, names: Sequence[str] = ()
    ) -> tuple[Proposal, ...]:
        """Ask for regions: every parent in turn, then the next region.

        Args:
            number: Proposals in the batch, those already recorded included.
            parents: Candidates whose regions are rewritten.
            seed: Seed of the batch.
            names: Regions to ask for; every region of a parent by default.

        Raises:
            UsageError: If ``parents`` is empty, or none of them has one of these regions.
        """
        questions = [
            self._question(Kind.REGION, region_values(parent, region), parent, region)
            for parent, region in _spots(parents, names)[:number]
        ]
        return self._run(Kind.REGION, number, seed, questions)

    def files(self, number: int, parents: Sequence[Parent], seed: int) -> tuple[Proposal, ...]:
        """Ask for whole files, every parent in turn.

        Raises:
            UsageError: If ``parents`` is empty.
        """
        if not parents:
            raise UsageError("a file is written from a parent: name one with --parent, or train some first")
        questions = [self._question(Kind.FILE, file_values(parent), parent) for parent in parents[:number]]
        return self._run(Kind.FILE, number, seed, questions)

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
        asked: list[_Ask] = []
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
                self._record(replace(proposal, status=Status.NOTHING, fault=Fault.BUDGET, message=message), None)
                continue
            request = Request(
                kind=kind,
                messages=question.rendered.messages,
                seed=proposal.seed,
                max_tokens=self._reply_tokens(kind),
                exact=self.max_reply_tokens is not None,
                temperature=self.temperature,
                min_p=_MIN_P[kind],
                space=self._plans,
                parent=question.parent.plan if question.parent else None,
                code=question.code,
                region=question.region,
            )
            proposal = replace(proposal, prompt=question.rendered.prompt)
            asked.append(_Ask(request=request, parent=question.parent, proposal=proposal))
        # Each chunk is recorded before the next one is sent: a kill loses the replies of one chunk at most.
        for start in range(0, len(asked), _CHUNK):
            chunk = asked[start : start + _CHUNK]
            replies = self.rewriter.propose([ask.request for ask in chunk])
            unanswered = True
            for ask, reply in zip(chunk, replies, strict=True):
                proposal, candidate = self._evaluate(ask, reply)
                if self.repair and not self.rewriter.trusted and not proposal.valid and reply.text:
                    proposal, candidate = self._second_attempt(ask, proposal, candidate)
                self._record(proposal, candidate)
                unanswered = unanswered and proposal.unanswered
            if unanswered:
                break  # the server is down: the next run asks for the rest
        return proposals(self.archive, self.batch)

    def _second_attempt(
        self, ask: _Ask, first: Proposal, candidate: Candidate | None
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
        return self._evaluate(replace(ask, request=request, proposal=proposal), reply)

    def _evaluate(self, ask: _Ask, reply: Reply) -> tuple[Proposal, Candidate | None]:
        """Parse, apply, compare and check one reply."""
        text = well_formed(reply.text)
        proposal = replace(
            ask.proposal,
            status=reply.status,
            text=text,
            prompt_tokens=reply.prompt_tokens,
            reply_tokens=reply.reply_tokens,
            seconds=reply.seconds,
        )
        if reply.status is not Status.OK:
            fault = {Status.CUT: Fault.CUT, Status.TOO_LONG: Fault.BUDGET}.get(reply.status, Fault.SERVER)
            return replace(proposal, fault=fault, message=one_line(reply.detail)), None
        try:
            candidate, written = self._apply(ask, text)
            # Looked up before the candidate itself enters the index.
            twin = self._known.twin(candidate, written, _place(proposal))
        except ReplyError as error:
            stage = Stage.PARSED if error.fault in _AFTER_PARSING else Stage.ASKED
            return replace(proposal, stage=stage, fault=error.fault, message=str(error)), None
        except (SyntaxError, RecursionError) as error:
            # Code that the parser reads may still be nested too deep for those that walk its tree.
            message = "the code is nested too deep" if isinstance(error, RecursionError) else one_line(str(error))
            return replace(proposal, fault=Fault.SYNTAX, message=message), None
        start = time.perf_counter()
        verdict = self._check(candidate)
        proposal = replace(
            proposal,
            stage=Stage.CHECKED if verdict.valid else Stage.APPLIED,
            candidate=candidate.id,
            written=written,
            twin=twin.kind if twin else None,
            twin_of=twin.id if twin else "",
            outcome=verdict.outcome,
            rule=verdict.rule,
            message=verdict.message,
            check_seconds=time.perf_counter() - start,
        )
        return proposal, candidate

    def _apply(self, ask: _Ask, text: str) -> tuple[Candidate, str]:
        """Turn a reply into a candidate and the code in it that the rewriter wrote ("" for a plan).

        Raises:
            ReplyError: If the reply is not a proposal of the kind asked for.
        """
        request = ask.request
        if request.kind is Kind.PLAN:
            plan = self._plans.read(text, request.parent)
            try:
                return self._assembler.assemble(plan, [self.inputs.families[name] for name in plan.experts]), ""
            except (PlanError, AssemblyError) as error:
                raise ReplyError(Fault.ASSEMBLY, str(error)) from error
        assert ask.parent is not None
        before = ask.parent.source
        delta = diff_block(text) if request.kind is Kind.FILE else None
        code = python_block(text) if delta is None else apply_delta(before, delta)
        candidate = identify(code if request.kind is Kind.FILE else splice(before, request.region, code))
        if candidate.canonical == canonical_hash(before):
            raise ReplyError(Fault.UNCHANGED, "the code is the same as before: change something")
        return candidate, code

    def _check(self, candidate: Candidate) -> Verdict:
        """Check a candidate, unless the archive has the verdict of an earlier check."""
        spec = self.spec
        known = self.archive.checked(candidate.id, spec.shape, self.inputs.dataset.classes)
        if known is not None:
            return known
        # A plan was assembled above; any other text counts as foreign unless its bytes say otherwise.
        if candidate.plan is None:
            level = source_level(candidate.source, self.isolation)
        else:
            level = families_level((self.inputs.families[name][0] for name in candidate.plan.experts), self.isolation)
        job = CheckJob(
            candidate=candidate,
            shape=spec.shape,
            classes=self.inputs.dataset.classes,
            hyperparameters=spec.hyperparameters,
            device=spec.device,
            threads=spec.threads,
            memory_mib=spec.memory_mib,
            isolation=level.level,
        )
        # A job that the engine lost says nothing about the candidate; the last attempt raises.
        for _ in range(MAX_LOSSES):
            with contextlib.suppress(EngineLostError):
                return self.engine.check(job)
        return self.engine.check(job)

    def _record(self, proposal: Proposal, candidate: Candidate | None) -> None:
        """Store candidate and verdict first and the proposal last: a recorded proposal is complete."""
        if candidate is not None and proposal.outcome is not None:
            shape, classes = self.spec.shape, self.inputs.dataset.classes
            for name in candidate.plan.experts if candidate.plan else ():
                self.archive.add_family(self.inputs.families[name][0])
            # LEMUR's id ignores white space: of two programs with one id the archive keeps the first.
            if not self._known.clashes(candidate):
                self.archive.add_candidate(candidate, self.inputs.fingerprints)
            if self.archive.checked(candidate.id, shape, classes) is None:
                verdict = Verdict(outcome=proposal.outcome, rule=proposal.rule, message=proposal.message)
                self.archive.add_verdict(candidate.id, verdict, shape=shape, classes=classes)
            self._known.add(candidate, proposal.written, _place(proposal))
        record(self.archive, proposal)
        self.watch(proposal)


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


def identify(source: str) -> Candidate:
    """Make a candidate of a source that was not assembled."""
    return Candidate(id=f"MoE4-{nn_id(source)}", source=source, canonical=canonical_hash(source))


def _place(proposal: Proposal) -> str:
    """Name the parent and the region: only code written for the same place is compared."""
    return f"{proposal.parent}/{proposal.region}"


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
