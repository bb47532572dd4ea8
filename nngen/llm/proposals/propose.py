"""From requests to checked candidates: ask, parse, apply, compare, check, keep; each step typed.

Every proposal is one event of the archive as soon as it is judged, so a run that was killed goes
on with the first one that is missing, and asks for it with the same seed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nngen.archive import Store, StoredCandidate
from nngen.assembly.assemble import Assembler
from nngen.assembly.identity import canonical_hash
from nngen.errors import AssemblyError, PlanError, UsageError
from nngen.lemur.layout import nn_id
from nngen.llm.judging import Judge, require_sandbox
from nngen.llm.prompts import BudgetError, Rendered, estimate_tokens, prompt, render
from nngen.llm.proposals.duplicates import Known
from nngen.llm.proposals.log import Proposal, Stage, proposals, record
from nngen.llm.proposals.parsing import Fault, ReplyError, python_block
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.proposals.regions import REGIONS, find, present, splice
from nngen.llm.rewriters.base import Kind, Message, Reply, Request, Rewriter, Status
from nngen.seeds import derive
from nngen.types import Candidate, Family, Interface, Plan, Verdict

__all__ = ["Parent", "Proposer", "apply", "identify"]

CHUNK = 16
"""Requests asked for together."""

_MAX_TOKENS = {Kind.PLAN: 256, Kind.REGION: 512, Kind.FILE: 24_000}
_MIN_P = {Kind.PLAN: 0.0, Kind.REGION: 0.1, Kind.FILE: 0.1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """What a proposal starts from.

    Attributes:
        accuracy: Mean validation accuracy at the fidelity in use; None where it was not trained so.
    """

    id: str
    source: str
    plan: Plan | None
    accuracy: float | None = None

    @classmethod
    def of(cls, candidate: StoredCandidate, accuracy: float | None = None) -> Parent:
        """Take it from the archive."""
        return cls(id=candidate.id, source=candidate.source, plan=candidate.plan, accuracy=accuracy)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ask:
    """A request with what is needed to read its reply."""

    index: int
    request: Request
    parent: Parent | None
    rendered: Rendered


@dataclass(frozen=True, slots=True, kw_only=True)
class _Over:
    """A request that cannot be made: its prompt is over the budget."""

    index: int
    parent: Parent
    region: str
    message: str


class Proposer:
    """Runs one batch of proposals.

    Args:
        archive: Holds candidates, verdicts and lineage.
        rewriter: Who writes.
        judge: Who checks.
        families: Usable families by name.
        batch: Name of this run; the same name goes on with it.
        space: The plans that may be written; all over the usable families by default.
        count: Counts the tokens of a text, for the prompt's budget.
        repair: Whether a failed proposal is asked for once more, with the message.
        temperature: Of a model's draws.
        watch: Told each proposal as it is kept.
    """

    def __init__(
        self,
        *,
        archive: Store,
        rewriter: Rewriter,
        judge: Judge,
        families: Mapping[str, tuple[Family, Interface]],
        batch: str,
        space: PlanSpace | None = None,
        count: Callable[[str], int] = estimate_tokens,
        repair: bool = False,
        temperature: float = 1.0,
        watch: Callable[[Proposal], None] | None = None,
    ) -> None:
        self.archive, self.rewriter, self.judge, self.families, self.batch = archive, rewriter, judge, families, batch
        self.space = space or PlanSpace(families=tuple(sorted(families)))
        self.count, self.repair, self.temperature, self.watch = count, repair, temperature, watch
        self.assembler = Assembler()
        self.known = Known(archive.candidates())
        for held in proposals(archive):
            if held.written and held.candidate:
                self.known.add_code(held.candidate, held.written, _where(held.parent, held.region))

    def plans(
        self, number: int, values: Mapping[str, Any] | Sequence[Mapping[str, Any]], parents: Sequence[Parent], seed: int
    ) -> tuple[Proposal, ...]:
        """Ask for plans.

        Args:
            number: Of proposals in the batch, those it has already included.
            values: Inputs of the prompt ``plan``, once for all or once for each parent.
            parents: Taken in turn; may be empty.
            seed: Of the batch.
        """
        each = [values] if isinstance(values, Mapping) else list(values)
        filled = [render(prompt("plan"), inputs, self.count) for inputs in each]

        def ask(index: int) -> _Ask:
            parent = parents[index % len(parents)] if parents else None
            rendered = filled[index % len(filled)]
            request = self._request(Kind.PLAN, rendered, seed, index, parent=parent)
            return _Ask(index=index, request=request, parent=parent, rendered=rendered)

        return self._run(Kind.PLAN, number, ask)

    def regions(
        self, number: int, parents: Sequence[Parent], seed: int, names: Sequence[str] = ()
    ) -> tuple[Proposal, ...]:
        """Ask for regions: parents in turn, and for each round of parents the next region.

        Args:
            number: Of proposals in the batch, those it has already included.
            parents: Each region of each is a place to write.
            seed: Of the batch.
            names: Regions to ask for; every one that a parent has by default.

        Raises:
            UsageError: If there is no parent, or none of them has one of these regions.
        """
        spots = _spots(parents, names)

        def ask(index: int) -> _Ask | _Over:
            parent, region = spots[index % len(spots)]
            code = find(parent.source, region)
            accuracy = "" if parent.accuracy is None else f"{parent.accuracy:.4f}"
            values = {"region": region, "purpose": REGIONS[region].purpose, "accuracy": accuracy, "code": code}
            try:
                rendered = render(prompt("region"), values, self.count)
            except BudgetError as error:
                return _Over(index=index, parent=parent, region=region, message=str(error))
            request = self._request(Kind.REGION, rendered, seed, index, parent=parent, code=code, region=region)
            return _Ask(index=index, request=request, parent=parent, rendered=rendered)

        return self._run(Kind.REGION, number, ask)

    def files(self, number: int, parents: Sequence[Parent], seed: int) -> tuple[Proposal, ...]:
        """Ask for whole files.

        Raises:
            UsageError: If there is no parent.
        """
        if not parents:
            raise UsageError("a file is written from a parent: name one with --parent, or train some first")

        def ask(index: int) -> _Ask | _Over:
            parent = parents[index % len(parents)]
            accuracy = "" if parent.accuracy is None else f"{parent.accuracy:.4f}"
            experts = parent.plan.experts if parent.plan else ("four families",)
            values = {"experts": experts, "accuracy": accuracy, "code": parent.source}
            try:
                rendered = render(prompt("file"), values, self.count)
            except BudgetError as error:
                return _Over(index=index, parent=parent, region="", message=str(error))
            request = self._request(Kind.FILE, rendered, seed, index, parent=parent, code=parent.source)
            return _Ask(index=index, request=request, parent=parent, rendered=rendered)

        return self._run(Kind.FILE, number, ask)

    def _request(
        self,
        kind: Kind,
        rendered: Rendered,
        seed: int,
        index: int,
        *,
        parent: Parent | None,
        code: str = "",
        region: str = "",
    ) -> Request:
        return Request(
            kind=kind,
            messages=rendered.messages,
            seed=derive(seed, "proposal", self.batch, index),
            max_tokens=_MAX_TOKENS[kind],
            temperature=self.temperature,
            min_p=_MIN_P[kind],
            space=self.space,
            parent=parent.plan if parent else None,
            code=code,
            region=region,
        )

    def _run(self, kind: Kind, number: int, ask: Callable[[int], _Ask | _Over]) -> tuple[Proposal, ...]:
        require_sandbox(self.rewriter.name, kind, self.judge, trusted=self.rewriter.trusted)
        done = {held.index for held in proposals(self.archive, self.batch)}
        missing = []
        for item in (ask(index) for index in range(number) if index not in done):
            if isinstance(item, _Ask):
                missing.append(item)
            else:
                self._keep(self._unasked(kind, item), None)
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            for asked, reply in zip(chunk, self.rewriter.propose([item.request for item in chunk]), strict=True):
                proposal, candidate = self._judged(asked, reply)
                if self.repair and not self.rewriter.trusted and not proposal.valid and reply.text:
                    proposal, candidate = self._again(asked, proposal, candidate)
                self._keep(proposal, candidate)
        return proposals(self.archive, self.batch)

    def _unasked(self, kind: Kind, item: _Over) -> Proposal:
        return Proposal(
            batch=self.batch,
            index=item.index,
            rewriter=self.rewriter.name,
            kind=kind,
            region=item.region,
            parent=item.parent.id,
            status=Status.NOTHING,
            fault=Fault.BUDGET,
            message=item.message,
        )

    def _again(self, asked: _Ask, first: Proposal, candidate: Candidate | None) -> tuple[Proposal, Candidate | None]:
        """Ask once more; the second try stands, whatever came of it."""
        said = render(prompt("repair"), {"message": first.message[:400]}, self.count).messages[-1].content
        turns = (
            *asked.request.messages,
            Message(role="assistant", content=first.text),
            Message(role="user", content=said),
        )
        request = replace(asked.request, messages=turns, seed=derive(asked.request.seed, "repair"))
        reply = self.rewriter.propose([request])[0]
        if reply.status is not Status.OK and first.fault is None:
            return first, candidate
        second, other = self._judged(replace(asked, request=request), reply)
        return replace(second, repaired=True), other

    def _judged(self, asked: _Ask, reply: Reply) -> tuple[Proposal, Candidate | None]:
        proposal = self._begun(asked, reply)
        if reply.status is not Status.OK:
            fault = Fault.CUT if reply.status is Status.CUT else Fault.SERVER
            return replace(proposal, fault=fault, message=reply.detail), None
        try:
            candidate, written = apply(asked.request, reply.text, asked.parent, self.assembler, self.families)
        except ReplyError as error:
            stage = Stage.PARSED if error.fault in _AFTER_PARSING else Stage.ASKED
            return replace(proposal, stage=stage, fault=error.fault, message=str(error)), None
        place = _where(proposal.parent, proposal.region)
        twin = self.known.twin(candidate, written, place)
        proposal = replace(
            proposal,
            stage=Stage.APPLIED,
            candidate=candidate.id,
            written=written,
            twin=twin.kind if twin else None,
            twin_of=twin.id if twin else "",
            trusted=candidate.plan is not None or (self.rewriter.trusted and _assembled(asked.parent)),
        )
        start = time.perf_counter()
        verdict = self._verdict(candidate, trusted=proposal.trusted)
        proposal = replace(
            proposal,
            stage=Stage.CHECKED if verdict.valid else Stage.APPLIED,
            outcome=verdict.outcome,
            rule=verdict.rule,
            message=verdict.message,
            check_seconds=time.perf_counter() - start,
        )
        return proposal, candidate

    def _verdict(self, candidate: Candidate, *, trusted: bool) -> Verdict:
        """Check a candidate, unless the archive holds what its check found."""
        shape, classes = self.judge.spec.shape, self.judge.classes
        known = self.archive.checked(candidate.id, shape, classes)
        return known if known is not None else self.judge.check(candidate, trusted=trusted)

    def _begun(self, asked: _Ask, reply: Reply) -> Proposal:
        return Proposal(
            batch=self.batch,
            index=asked.index,
            rewriter=self.rewriter.name,
            kind=asked.request.kind,
            region=asked.request.region,
            parent=asked.parent.id if asked.parent else "",
            prompt=asked.rendered.prompt,
            seed=asked.request.seed,
            status=reply.status,
            text=reply.text,
            prompt_tokens=reply.prompt_tokens,
            reply_tokens=reply.reply_tokens,
            seconds=reply.seconds,
        )

    def _keep(self, proposal: Proposal, candidate: Candidate | None) -> None:
        """Keep the candidate and its verdict first, the proposal last: an event that stands is whole."""
        if candidate is not None and proposal.outcome is not None:
            shape, classes = self.judge.spec.shape, self.judge.classes
            prints = {name: self.families[name][0].fingerprint for name in (candidate.plan or _NO_PLAN).experts}
            for name in prints:
                self.archive.add_family(self.families[name][0])
            # LEMUR's id is blind to white space: of two programs that share it, the archive keeps the first.
            if not self.known.clashes(candidate):
                self.archive.add_candidate(candidate, prints)
            if self.archive.checked(candidate.id, shape, classes) is None:
                verdict = Verdict(outcome=proposal.outcome, rule=proposal.rule, message=proposal.message)
                self.archive.add_verdict(candidate.id, verdict, shape=shape, classes=classes)
            self.known.add(candidate, proposal.written, _where(proposal.parent, proposal.region))
        record(self.archive, proposal)
        if self.watch is not None:
            self.watch(proposal)


_NO_PLAN = Plan(experts=())
_AFTER_PARSING = frozenset({Fault.REGION, Fault.UNCHANGED, Fault.ASSEMBLY})


def apply(
    request: Request,
    text: str,
    parent: Parent | None,
    assembler: Assembler,
    families: Mapping[str, tuple[Family, Interface]],
) -> tuple[Candidate, str]:
    """Turn a reply into a candidate.

    Returns:
        The candidate, and the code in it that the rewriter wrote ("" for a plan).

    Raises:
        ReplyError: With the fault, if the reply is no proposal of the kind that was asked for.
    """
    if request.kind is Kind.PLAN:
        assert request.space is not None
        plan = request.space.read(text, request.parent)
        try:
            return assembler.assemble(plan, [families[name] for name in plan.experts]), ""
        except (PlanError, AssemblyError) as error:
            raise ReplyError(Fault.ASSEMBLY, str(error)) from error
    assert parent is not None
    code = python_block(text)
    source = code if request.kind is Kind.FILE else splice(parent.source, request.region, code)
    candidate = identify(source)
    if candidate.canonical == canonical_hash(parent.source):
        raise ReplyError(Fault.UNCHANGED, "the code is the same as before: change something")
    return candidate, code


def identify(source: str) -> Candidate:
    """Name a source that was not assembled."""
    return Candidate(id=f"MoE4-{nn_id(source)}", source=source, canonical=canonical_hash(source))


def _assembled(parent: Parent | None) -> bool:
    """Whether a parent was assembled from a plan: what was spliced before may hold a model's code."""
    return parent is not None and parent.plan is not None


def _where(parent: str, region: str) -> str:
    return f"{parent}/{region}"


def _spots(parents: Sequence[Parent], names: Sequence[str]) -> list[tuple[Parent, str]]:
    unknown = [name for name in names if name not in REGIONS]
    if unknown:
        raise UsageError(f"no region is called {unknown[0]!r}: there are {', '.join(REGIONS)}")
    if not parents:
        raise UsageError("a region is written into a parent: name one with --parent, or train some first")
    had = [set(present(parent.source)) for parent in parents]
    wanted = names or tuple(REGIONS)
    spots = [(parent, name) for name in wanted for parent, regions in zip(parents, had, strict=True) if name in regions]
    if not spots:
        raise UsageError(f"none of the parents has a region {' or '.join(wanted)}: they were not assembled by nngen")
    return spots
