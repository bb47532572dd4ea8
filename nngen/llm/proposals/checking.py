"""Checks of proposals: a reply becomes a candidate, is compared with what is known, checked and recorded."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from nngen.archive.store import Archive
from nngen.assembly.assemble import Assembler
from nngen.assembly.identity import canonical_hash
from nngen.assembly.provenance import source_level
from nngen.campaign.executor import MAX_LOSSES
from nngen.campaign.protocols import CampaignInputs
from nngen.campaign_spec import CampaignSpec
from nngen.errors import AssemblyError, EngineLostError, PlanError
from nngen.families.trust import AUTO, families_level
from nngen.lemur.layout import nn_id
from nngen.llm.proposals.deltas import apply_delta
from nngen.llm.proposals.duplicates import Known
from nngen.llm.proposals.log import Proposal, Stage, proposals, record
from nngen.llm.proposals.parents import Parent
from nngen.llm.proposals.parsing import Fault, ReplyError, diff_block, python_block
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.proposals.regions import splice
from nngen.llm.rewriters.base import Kind, Reply, Request, Status
from nngen.plan import Plan
from nngen.text import one_line
from nngen.training.engine import CheckJob, Engine
from nngen.types import Candidate, Verdict

_AFTER_PARSING = frozenset({Fault.REGION, Fault.CONTEXT, Fault.UNCHANGED, Fault.ASSEMBLY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request, the parent that its reply is applied to, and the proposal as it is known before the reply."""

    request: Request
    parent: Parent | None
    proposal: Proposal


@dataclass(slots=True, kw_only=True)
class Checker:
    """Turns replies into checked candidates of the archive.

    Attributes:
        archive: Holds candidates, verdicts and the log of proposals.
        engine: Checks the candidates.
        inputs: Usable families and the data set.
        spec: Shape, device, threads and memory limit of the checks.
        plans: Plans that may be written.
        assembler: Assembles them.
        isolation: ``auto``, or the level that the user asked for.
        watch: Called with each proposal after it is recorded.
    """

    archive: Archive
    engine: Engine
    inputs: CampaignInputs
    spec: CampaignSpec
    plans: PlanSpace
    assembler: Assembler
    isolation: str = AUTO
    watch: Callable[[Proposal], None] = lambda _: None
    _known: Known = field(init=False)

    def __post_init__(self) -> None:
        self._known = Known(self.archive.canonicals())
        for row in proposals(self.archive):
            if row.written and row.candidate:
                self._known.add_code(row.candidate, row.written, _place(row))

    def read_plan(self, text: str, request: Request) -> Plan:
        """Read the plan in a reply.

        Raises:
            ReplyError: If the reply does not hold a plan of the space.
        """
        return self.plans.read(text, request.parent)

    def evaluate(self, ask: Ask, reply: Reply) -> tuple[Proposal, Candidate | None]:
        """Parse, apply, compare and check one reply."""
        proposal = ask.proposal.answered(reply)
        if reply.status is not Status.OK:
            fault = {Status.CUT: Fault.CUT, Status.TOO_LONG: Fault.BUDGET}.get(reply.status, Fault.SERVER)
            return replace(proposal, fault=fault, message=one_line(reply.detail)), None
        try:
            candidate, written = self._apply(ask, proposal.text)
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

    def _apply(self, ask: Ask, text: str) -> tuple[Candidate, str]:
        """Turn a reply into a candidate and the code in it that the rewriter wrote ("" for a plan).

        Raises:
            ReplyError: If the reply is not a proposal of the kind asked for.
        """
        request = ask.request
        if request.kind is Kind.PLAN:
            plan = self.read_plan(text, request)
            try:
                return self.assembler.assemble(plan, [self.inputs.families[name] for name in plan.experts]), ""
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

    def store(self, proposal: Proposal, candidate: Candidate | None) -> None:
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


def identify(source: str) -> Candidate:
    """Make a candidate of a source that was not assembled."""
    return Candidate(id=f"MoE4-{nn_id(source)}", source=source, canonical=canonical_hash(source))


def _place(proposal: Proposal) -> str:
    """Name the parent and the region: only code written for the same place is compared."""
    return f"{proposal.parent}/{proposal.region}"
