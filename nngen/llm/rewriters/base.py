"""Protocol of a rewriter, its requests and replies, and the registry of rewriters."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

from nngen.llm.proposals.plan_space import PlanSpace
from nngen.plan import Plan

Turn: TypeAlias = Mapping[str, str]
"""One turn of a chat in the form of chat templates and servers: ``role`` and ``content``."""


class Kind(enum.StrEnum):
    """Kinds of proposals, from small to large."""

    PLAN = "plan"
    REGION = "region"
    FILE = "file"


class Status(enum.StrEnum):
    """Result of one request before its text is parsed; a closed list."""

    OK = "ok"
    CUT = "cut"
    """The reply stopped at the token limit, or the connection broke inside it."""
    TIMEOUT = "timeout"
    REFUSED = "refused"
    """No server accepts connections at the address."""
    BUSY = "busy"
    """429 or 5xx at every attempt."""
    REJECTED = "rejected"
    """The server refuses the request (401, 404, 400, ...)."""
    TOO_LONG = "too-long"
    """The prompt is longer than the model's context."""
    GARBLED = "garbled"
    """The server's answer is not the agreed JSON."""
    EMPTY = "empty"
    """The server's reply holds no text."""
    NOTHING = "nothing"
    """The rewriter has no proposal of this kind, or the model refuses to write one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a chat; ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str

    def to_dict(self) -> dict[str, str]:
        """Write the turn in the form of chat templates and servers."""
        return {"role": self.role, "content": self.content}


def without_system(turns: Sequence[Turn]) -> list[Turn]:
    """Put the system's text in front of the first user turn, for models that know no system turn."""
    if len(turns) < 2 or turns[0]["role"] != "system":
        return list(turns)
    first, second, *rest = turns
    return [{**second, "content": "\n\n".join(filter(None, (first["content"], second["content"])))}, *rest]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    """Results of the archive at one fidelity, for rewriters that learn from them without a model.

    Attributes:
        plans: Trained plans with their mean validation accuracies, in the order of their first trials.
        gains: Accuracies of trained children less those of their parents, by the name of the rewriter.
    """

    plans: tuple[tuple[Plan, float], ...] = ()
    gains: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Request for one proposal.

    Attributes:
        seed: Seed of every draw made for this request, independent of the other requests of a batch.
        max_tokens: Longest reply; one that reaches it is cut.
        exact: Whether the user set ``max_tokens``; if not, a model that reasons before it answers may take more.
        temperature: Temperature of the softmax that tokens are drawn from; 0 takes the most likely token.
        min_p: Share of the most likely token's probability below which tokens are not drawn, in [0, 1).
        space: Plans that may be written; followed by the grammar and both baselines.
        code: Text that the reply replaces, for ``region`` and ``file``.
        region: Name of the region, for ``region``.
        lessons: Results known so far; the same for all requests of a batch.
    """

    kind: Kind
    messages: tuple[Message, ...]
    seed: int
    max_tokens: int = 512
    exact: bool = False
    temperature: float = 1.0
    min_p: float = 0.0
    space: PlanSpace | None = None
    parent: Plan | None = None
    code: str = ""
    region: str = ""
    lessons: Lessons = field(default_factory=Lessons)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Answer of a rewriter to one request.

    Attributes:
        text: Text without special tokens; may be empty unless ``status`` is ``ok``.
        detail: One line about the failure; empty where there is none.
        prompt_tokens: Tokens read; 0 where no model was used.
        seconds: This request's share of the wall time of its batch.
        attempts: Number of times a server was asked.
        rewriter: Name of the rewriter that wrote it, where one rewriter asks several; else empty.
    """

    text: str = ""
    status: Status = Status.OK
    detail: str = ""
    prompt_tokens: int = 0
    reply_tokens: int = 0
    seconds: float = 0.0
    attempts: int = 1
    rewriter: str = ""


@runtime_checkable
class Rewriter(Protocol):
    """Source of proposals: a local model, a model behind HTTP, or a baseline without a model.

    Attributes:
        name: Name in the log and in reports: weights and adapter, never a key.
        trusted: Whether everything it can write stands in this package's own tables; false for every model.
    """

    name: str
    trusted: bool

    def propose(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer each request, in order; a failure is the reply's status and is not raised."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options for opening a rewriter.

    Attributes:
        adapter: Folder of a peft adapter, for a model in this process.
        model: Name of the model, for a server.
        device: ``cpu`` or ``cuda``, for a model in this process.
        batch: Replies decoded together.
        quantize: Whether a model in this process is loaded in 4 bits (CUDA only).
        chat_template: File with a Jinja chat template, for a model in this process that has none.
        model_share: Share of requests that the model of a hybrid answers, in (0, 1]; None for its default.
    """

    adapter: Path | None = None
    model: str = ""
    device: str = "cpu"
    batch: int = 16
    quantize: bool = False
    chat_template: str = ""
    model_share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriterEntry:
    """Entry of the registry of rewriters.

    Attributes:
        argument: The ``--rewriter`` argument as the help shows it: a name, or a form such as ``http://HOST:PORT``.
        purpose: What the rewriter is, for the help.
        matches: Whether a ``--rewriter`` argument selects this entry; entries are asked in order.
        takes: Options, among ``adapter``, ``model``, ``quantize``, ``chat_template`` and ``model_share``, that the
            rewriter uses; others are refused.
        trusted: Value of ``Rewriter.trusted``, known before the rewriter is opened.
        tunable: Whether the argument names weights that this process can tune.
    """

    argument: str
    purpose: str
    matches: Callable[[str], bool]
    create: Callable[[str, Options], Rewriter]
    takes: frozenset[str] = frozenset()
    trusted: bool = False
    tunable: bool = False


REWRITERS: list[RewriterEntry] = []
"""Registered rewriters, in the order in which they are matched."""


def register(entry: RewriterEntry) -> RewriterEntry:
    """Add a rewriter; help, error messages and ``--rewriter`` know it from now on."""
    REWRITERS.append(entry)
    return entry
