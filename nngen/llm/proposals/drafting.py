"""Drafting of plans: a rewriter writes many in turns, known ones are dropped, and the best become proposals.

``Proposer`` drafts where it has a pool. ``nngen.llm.proposals.pool`` has the ranker and the log of the turns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

from more_itertools import chunked

from nngen.archive.store import Archive
from nngen.llm.prompts import Rendered
from nngen.llm.proposals.checking import Ask, Checker
from nngen.llm.proposals.log import Proposal, proposals
from nngen.llm.proposals.parents import Parent
from nngen.llm.proposals.parsing import ReplyError
from nngen.llm.proposals.pool import Drafts, pick, read_drafts, store_drafts
from nngen.llm.proposals.requests import CHUNK, Question, Requests
from nngen.llm.rewriters.base import Kind, Reply, Request
from nngen.plan import Plan
from nngen.seeds import derive

_TURNS = 4  # of drafting, until as many plans as were asked for are new


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafter:
    """Drafts the plans of one batch."""

    archive: Archive
    checker: Checker  # reads the drafts, checks and records the picked ones
    requests: Requests  # requests for plans
    pool: int  # plans that are drafted in one turn
    note: Callable[[str], None]  # called with one line on each turn

    def draft(self, number: int, seed: int, questions: Sequence[Question]) -> None:
        """Draft plans and check the best, until so many are new or the turns are used up."""
        batch = self.requests.batch
        parents = {question.parent.id: question.parent for question in questions if question.parent}
        turns = list(read_drafts(self.archive, batch))
        while True:
            rows = {row.index: row for row in proposals(self.archive, batch) if not row.unanswered}
            # Drafts cost a model minutes, so a run that was killed goes on with those that it had picked.
            for row in (row for turn in turns for row in turn.picked if row.index not in rows):
                rows[row.index] = self._check_draft(row, parents)
            missing = number - sum(row.new for row in rows.values())
            if missing <= 0 or sum(turn.goal == number for turn in turns) >= _TURNS:
                return
            free = (index for index in count() if index not in rows)
            latest = self._turn(missing, number, derive(seed, "drafts", batch, len(turns)), questions, free)
            if not latest.drafted:
                return
            store_drafts(self.archive, batch, latest)
            self.note(f"{batch}: {latest}")
            turns.append(latest)

    def _check_draft(self, row: Proposal, parents: Mapping[str, Parent]) -> Proposal:
        parent = parents.get(row.parent)
        if parent is None and row.parent:
            parent = Parent.of(self.archive.candidate(row.parent))
        request = Request(kind=Kind.PLAN, messages=(), seed=row.seed, parent=parent.plan if parent else None)
        spent = {name: getattr(row, name) for name in ("prompt_tokens", "reply_tokens", "seconds")}
        checked, candidate = self.checker.evaluate(
            Ask(request=request, parent=parent, proposal=row), Reply(text=row.text, **spent)
        )
        self.checker.store(checked, candidate)
        return checked

    def _turn(self, missing: int, goal: int, seed: int, questions: Sequence[Question], free: Iterator[int]) -> Drafts:
        """Ask for one turn of drafts and pick among them; ``free`` yields the numbers of the picked ones."""
        usable: dict[Plan, Proposal] = {}
        writers, faults = Counter[str](), Counter[str]()
        known = repeated = tokens = read = 0
        seconds = 0.0
        for request, row in self._replies(max(self.pool, missing), seed, questions):
            writers[row.rewriter] += 1
            seconds, tokens, read = seconds + row.seconds, tokens + row.reply_tokens, read + row.prompt_tokens
            try:
                plan = self.checker.read_plan(row.text, request)
            except ReplyError as error:
                faults[error.fault.value] += 1
                continue
            if self.archive.knows(plan):
                known += 1
            elif plan in usable:
                repeated += 1
            else:
                usable[plan] = row
        places, fitted = pick(list(usable), missing, self.requests.lessons.plans)
        drafts = list(usable.values())
        return Drafts(
            goal=goal,
            writers=dict(writers),
            faults=dict(faults),
            known=known,
            repeated=repeated,
            usable=len(usable),
            fitted=fitted,
            trained=len(self.requests.lessons.plans),
            seconds=seconds,
            reply_tokens=tokens,
            prompt_tokens=read,
            picked=tuple(replace(drafts[place], index=next(free)) for place in places),
        )

    def _replies(self, number: int, seed: int, questions: Sequence[Question]) -> Iterator[tuple[Request, Proposal]]:
        """Ask for drafts, whose seeds follow from their place; requests without a reply are left out."""
        asked = [(question, question.rendered) for question in questions if isinstance(question.rendered, Rendered)]
        places = range(number if asked else 0)
        for chunk in chunked(places, CHUNK):
            chosen = [(*asked[place % len(asked)], derive(seed, place)) for place in chunk]
            requests = [self.requests.request(*one) for one in chosen]
            replies = self.requests.rewriter.propose(requests)
            lost = 0
            for (question, _, own), request, reply in zip(chosen, requests, replies, strict=True):
                row = self.requests.proposal(question, 0, own).answered(reply)  # picked ones get their index
                lost += row.unanswered
                if not row.unanswered:
                    yield request, row
            if lost == len(chosen):
                return  # the server is down
            if not self.requests.rewriter.trusted:
                self.note(f"{self.requests.batch}: {chunk[-1] + 1} of {number} drafts")
