"""What is asked of a rewriter, what it answers, and what that cost."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from nngen.llm.proposals.plan_space import PlanSpace
from nngen.types import Plan

__all__ = ["Kind", "Message", "Reply", "Request", "Rewriter", "Status", "Usage", "usage"]


class Kind(enum.StrEnum):
    """What a rewriter may write, from small to large."""

    PLAN = "plan"
    REGION = "region"
    FILE = "file"


class Status(enum.StrEnum):
    """What became of one request, before anyone reads the text; the list is closed."""

    OK = "ok"
    CUT = "cut"
    """The reply stopped at the token limit, or the connection broke inside it."""
    TIMEOUT = "timeout"
    REFUSED = "refused"
    """Nobody answers at that address."""
    BUSY = "busy"
    """429 or 5xx, again and again until the attempts were used up."""
    REJECTED = "rejected"
    """The server will not do this at all (401, 404, 400, ...), or the prompt is longer than the model's context."""
    GARBLED = "garbled"
    """The server's answer is not the JSON that was agreed on."""
    NOTHING = "nothing"
    """The rewriter has no proposal of this kind, or wrote no text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a chat; ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str

    def to_dict(self) -> dict[str, str]:
        """Write the turn as chat templates and servers want it."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One proposal asked for.

    Attributes:
        messages: The rendered prompt. Rewriters without a model ignore it.
        seed: Decides every draw made for this request, whatever else is asked in the same batch.
        max_tokens: Longest reply; one that reaches it is cut.
        temperature: Of the softmax that tokens are drawn from; 0 takes the likeliest.
        min_p: Tokens less likely than this share of the likeliest are not drawn, in [0, 1).
        space: What a plan may say; the grammar and both baselines follow it.
        parent: The plan to improve on, where there is one.
        code: The text that the reply replaces, for ``region`` and ``file``.
        region: The region's name, for ``region``.
    """

    kind: Kind
    messages: tuple[Message, ...]
    seed: int
    max_tokens: int = 512
    temperature: float = 1.0
    min_p: float = 0.0
    space: PlanSpace | None = None
    parent: Plan | None = None
    code: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A rewriter's answer to one request.

    Attributes:
        text: What it wrote, without special tokens; empty where ``status`` says so.
        detail: One line on what went wrong.
        prompt_tokens: Tokens read; 0 where no model was asked.
        reply_tokens: Tokens written.
        seconds: This request's share of the wall time of its batch.
        attempts: How often a server was asked.
    """

    text: str = ""
    status: Status = Status.OK
    detail: str = ""
    prompt_tokens: int = 0
    reply_tokens: int = 0
    seconds: float = 0.0
    attempts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The cost of several replies."""

    requests: int
    prompt_tokens: int
    reply_tokens: int
    seconds: float


def usage(replies: Iterable[Reply]) -> Usage:
    """Add up what replies cost."""
    held = list(replies)
    return Usage(
        requests=len(held),
        prompt_tokens=sum(reply.prompt_tokens for reply in held),
        reply_tokens=sum(reply.reply_tokens for reply in held),
        seconds=sum(reply.seconds for reply in held),
    )


@runtime_checkable
class Rewriter(Protocol):
    """Whatever writes proposals: a model here, a model behind HTTP, or no model at all.

    Attributes:
        name: What lineage and reports call it; it names weights and adapter, never a key.
        trusted: Whether all it can write stands in this package's own tables; never so for a model.
    """

    name: str
    trusted: bool

    def propose(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer each request, in order. What goes wrong with one is in its reply, not raised."""
        ...
