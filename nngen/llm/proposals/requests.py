"""Requests of a batch of proposals: questions, each a prompt about one place of one parent, and what is sent for them.

``Proposer`` asks the questions of a batch one by one, ``Drafter`` asks them in turn for as many drafts as it wants.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nngen.errors import UsageError
from nngen.families.trust import AUTO, check_level
from nngen.isolation import Isolation
from nngen.llm.prompts import BudgetError, Rendered, prompt, render
from nngen.llm.proposals.log import Proposal
from nngen.llm.proposals.parents import Parent
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.proposals.regions import REGIONS, present
from nngen.llm.rewriters.base import Kind, Lessons, Request, Rewriter

CHUNK = 16
"""Requests made together, so that a local model decodes them in one batch."""

_MAX_TOKENS = {Kind.PLAN: 512, Kind.REGION: 512, Kind.FILE: 24_000}
# Code drawn without a floor on rare tokens seldom parses; plans follow a grammar and need none.
_MIN_P = {Kind.PLAN: 0.0, Kind.REGION: 0.1, Kind.FILE: 0.1}
_TEMPLATE_TOKENS = 64  # that a chat template adds to the turns
_NO_LIMIT = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A prompt about one place of one parent; a batch asks its questions in turn."""

    rendered: Rendered | BudgetError  # the prompt, or the error about its budget
    parent: Parent | None
    code: str = ""  # text that the reply replaces
    region: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Makes the questions of one batch, and the requests for them."""

    kind: Kind
    batch: str
    rewriter: Rewriter
    space: PlanSpace  # plans that may be written
    lessons: Lessons  # results known so far
    count: Callable[[str], int]  # counts the tokens of a text, for the prompt's budget
    temperature: float  # temperature of a model's draws
    max_reply_tokens: int | None  # longest reply; that of the kind where it is None

    def question(self, values: Mapping[str, Any], parent: Parent | None, region: str = "") -> Question:
        """Fill the prompt of the kind with its inputs, within the budget of prompt and model."""
        rendered: Rendered | BudgetError
        chosen = prompt(self.kind.value)
        # A prompt gives way to the context of a small model, of which at most a quarter is kept for the reply.
        context = getattr(self.rewriter, "context", _NO_LIMIT)
        room = context - min(self._reply_tokens, context // 4) - _TEMPLATE_TOKENS
        try:
            rendered = render(chosen, values, self.count, min(chosen.budget, room))
        except BudgetError as error:
            rendered = error
        return Question(rendered=rendered, parent=parent, code=str(values.get("code", "")), region=region)

    def proposal(self, question: Question, index: int, seed: int) -> Proposal:
        """Return the proposal that answers a question, as it is known before the reply."""
        return Proposal(
            batch=self.batch,
            index=index,
            rewriter=self.rewriter.name,
            kind=self.kind,
            region=question.region,
            parent=question.parent.id if question.parent else "",
            prompt=question.rendered.prompt if isinstance(question.rendered, Rendered) else "",
            seed=seed,
        )

    def request(self, question: Question, rendered: Rendered, seed: int) -> Request:
        """Make a request for one reply to a question."""
        return Request(
            kind=self.kind,
            messages=rendered.messages,
            seed=seed,
            max_tokens=self._reply_tokens,
            exact=self.max_reply_tokens is not None,
            temperature=self.temperature,
            min_p=_MIN_P[self.kind],
            space=self.space,
            parent=question.parent.plan if question.parent else None,
            code=question.code,
            region=question.region,
            lessons=self.lessons,
        )

    @property
    def _reply_tokens(self) -> int:
        return self.max_reply_tokens or _MAX_TOKENS[self.kind]


def parents_and_regions(parents: Sequence[Parent], names: Sequence[str]) -> list[tuple[Parent, str]]:
    """Pair parents with the regions to ask for: every parent in turn, then the next region.

    Raises:
        UsageError: If a region is unknown, ``parents`` is empty, or none of them has one of these regions.
    """
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
