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
    """Results of the archive at one fidelity, for rewriters that learn from them without a model."""

    # trained plans with their mean validation accuracies, in the order of their first trials
    plans: tuple[tuple[Plan, float], ...] = ()
    # accuracies of trained children less those of their parents, by the name of the rewriter
    gains: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Request for one proposal."""

    kind: Kind
    messages: tuple[Message, ...]
    seed: int  # seed of every draw made for this request, independent of the other requests of a batch
    max_tokens: int = 512  # longest reply; one that reaches it is cut
    # whether the user set ``max_tokens``; if not, a model that reasons before it answers may take more
    exact: bool = False
    temperature: float = 1.0  # temperature of the softmax that tokens are drawn from; 0 takes the most likely token
    min_p: float = 0.0  # share of the most likely token's probability below which tokens are not drawn, in [0, 1)
    space: PlanSpace | None = None  # plans that may be written; followed by the grammar and both baselines
    parent: Plan | None = None
    code: str = ""  # text that the reply replaces, for ``region`` and ``file``
    region: str = ""  # name of the region, for ``region``
    lessons: Lessons = field(default_factory=Lessons)  # results known so far; the same for all requests of a batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Answer of a rewriter to one request."""

    text: str = ""  # text without special tokens; may be empty unless ``status`` is ``ok``
    status: Status = Status.OK
    detail: str = ""  # one line about the failure; empty where there is none
    prompt_tokens: int = 0  # tokens read; 0 where no model was used
    reply_tokens: int = 0
    seconds: float = 0.0  # this request's share of the wall time of its batch
    attempts: int = 1  # number of times a server was asked
    rewriter: str = ""  # name of the rewriter that wrote it, where one rewriter asks several; else empty


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
    """Options for opening a rewriter."""

    adapter: Path | None = None  # folder of a peft adapter, for a model in this process
    model: str = ""  # name of the model, for a server
    device: str = "cpu"  # ``cpu`` or ``cuda``, for a model in this process
    batch: int = 16  # replies decoded together
    quantize: bool = False  # whether a model in this process is loaded in 4 bits (CUDA only)
    chat_template: str = ""  # file with a Jinja chat template, for a model in this process that has none
    # share of requests that the model of a hybrid answers, in (0, 1]; None for its default
    model_share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriterEntry:
    """Entry of the registry of rewriters."""

    argument: str  # the ``--rewriter`` argument as the help shows it: a name, or a form such as ``http://HOST:PORT``
    purpose: str  # what the rewriter is, for the help
    matches: Callable[[str], bool]  # whether a ``--rewriter`` argument selects this entry; entries are asked in order
    create: Callable[[str, Options], Rewriter]
    # options, among ``adapter``, ``model``, ``quantize``, ``chat_template`` and ``model_share``, that the rewriter
    # uses; others are refused
    takes: frozenset[str] = frozenset()
    trusted: bool = False  # value of ``Rewriter.trusted``, known before the rewriter is opened
    tunable: bool = False  # whether the argument names weights that this process can tune


REWRITERS: list[RewriterEntry] = []
"""Registered rewriters, in the order in which they are matched."""


def register(entry: RewriterEntry) -> RewriterEntry:
    """Add a rewriter; help, error messages and ``--rewriter`` know it from now on."""
    REWRITERS.append(entry)
    return entry
