"""Log of proposals: one event of the archive for each, successful or not."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from nngen.archive.store import Archive
from nngen.errors import NngenError, SomeFailedError, UsageError
from nngen.llm.proposals.parsing import Fault, well_formed
from nngen.llm.rewriters.base import Kind, Reply, Status
from nngen.text import one_line
from nngen.types import Outcome

EVENT = "proposal"
_NO_REPLY = frozenset({Status.TIMEOUT, Status.REFUSED, Status.BUSY, Status.REJECTED, Status.GARBLED, Status.EMPTY})
_MAX_TEXT = 20_000


class Stage(enum.StrEnum):
    """Stages of a proposal, in order."""

    ASKED = "asked"
    PARSED = "parsed"
    APPLIED = "applied"
    CHECKED = "checked"


class TwinKind(enum.StrEnum):
    """Kinds of repetition: same id, same canonical form, or nearly the same code."""

    EXACT = "exact"
    CANONICAL = "canonical"
    NEAR = "near"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One proposal with its result."""

    batch: str
    index: int  # number of the request in its batch, from 0; the batch is named like its campaign
    rewriter: str
    kind: Kind
    region: str = ""  # name of the region; "" for other kinds
    parent: str = ""  # id of the candidate to improve on; "" where there is none
    prompt: str = ""
    seed: int = 0
    stage: Stage = Stage.ASKED  # last stage that the proposal passed
    status: Status = Status.OK  # status of the reply
    fault: Fault | None = None  # reason why the text is not a proposal; None where it is one
    outcome: Outcome | None = None  # outcome of the checks; None where they were not run
    rule: str = ""
    message: str = ""
    candidate: str = ""
    twin: TwinKind | None = None  # kind of duplicate; None for a new candidate
    twin_of: str = ""
    repaired: bool = False  # whether this is the second attempt, after an error message
    text: str = ""
    written: str = ""  # code in the reply, for ``region`` and ``file``
    prompt_tokens: int = 0
    reply_tokens: int = 0
    seconds: float = 0.0
    check_seconds: float = 0.0

    @property
    def valid(self) -> bool:
        """Whether it passed every check."""
        return self.stage is Stage.CHECKED

    @property
    def new(self) -> bool:
        """Whether it passed every check and repeats no candidate."""
        return self.valid and self.twin is None

    @property
    def unanswered(self) -> bool:
        """Whether no reply came back; the batch stays open, and the request is made again on the next run."""
        return self.status in _NO_REPLY or (self.status is Status.CUT and not self.text)

    def reached(self, stage: Stage) -> bool:
        """Whether it passed a stage."""
        stages = list(Stage)
        return stages.index(self.stage) >= stages.index(stage)

    def answered(self, reply: Reply) -> Self:
        """Return the proposal with the text of a reply and its cost."""
        return replace(
            self,
            rewriter=reply.rewriter or self.rewriter,
            status=reply.status,
            text=well_formed(reply.text),
            prompt_tokens=reply.prompt_tokens,
            reply_tokens=reply.reply_tokens,
            seconds=reply.seconds,
        )

    def to_dict(self) -> dict[str, Any]:
        """Write it as JSON types, long texts cut."""
        data = asdict(self) | {"text": self.text[:_MAX_TEXT], "written": self.written[:_MAX_TEXT]}
        data["what"] = data.pop("kind")  # ``kind`` is the event's own
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` wrote."""
        data = dict(data)
        data["kind"] = data.pop("what")
        data.pop("trusted", None)  # of older versions; a candidate's bytes decide now
        data |= {name: well_formed(data[name]) for name in ("text", "written", "message")}
        enums = {"kind": Kind, "stage": Stage, "status": Status, "fault": Fault, "outcome": Outcome, "twin": TwinKind}
        for name, kind in enums.items():
            if data.get(name) is not None:
                data[name] = kind(data[name])
        return cls(**data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Funnel:
    """Number of proposals that reached each stage."""

    asked: int  # requests
    parsed: int  # replies that held a proposal of the kind asked for
    applied: int  # proposals that became a candidate
    checked: int  # candidates that passed every check
    new: int  # valid candidates that repeat none
    repaired: int = 0  # valid candidates of a second attempt
    trained: int = 0  # candidates with an accuracy
    compared: int = 0  # trained candidates whose parent was trained at the same fidelity
    better: int | None = None  # compared candidates above their parent; None where none was compared


def record(archive: Archive, proposal: Proposal) -> None:
    """Write a proposal to the archive as an event."""
    archive.log(EVENT, campaign=proposal.batch, **proposal.to_dict())


def proposals(archive: Archive, batch: str | None = None) -> tuple[Proposal, ...]:
    """Read the proposals of one batch, or of all, in the order in which they were first recorded.

    A request that was made again counts once, with its last result.
    """
    found: dict[tuple[str, int], Proposal] = {}
    for event in archive.events(batch, kinds=(EVENT,)):
        try:
            row = Proposal.from_dict(event.detail)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            # It counts as not asked, and among the rows that cannot be read.
            archive.damaged[f"events {event.id}"] = f"not a proposal ({one_line(str(error), 120)})"
        else:
            found[row.batch, row.index] = row
    return tuple(found.values())


def lineage(archive: Archive, candidate_id: str) -> tuple[str, tuple[str, ...]]:
    """Return the candidate that a proposed one was made from, and those that were made from it; "" without a parent."""
    rows = proposals(archive)
    parent = next((row.parent for row in rows if row.candidate == candidate_id and row.parent != candidate_id), "")
    children = (row.candidate for row in rows if row.parent == candidate_id != row.candidate and row.candidate)
    return parent, tuple(dict.fromkeys(children))


def shortfall(rows: Sequence[Proposal], number: int) -> NngenError | None:
    """Return the error for a batch of ``number`` requests of which some, or all, were not answered; None if whole."""
    if rows and all(row.fault is Fault.BUDGET for row in rows):
        return UsageError(f"no request was made: {rows[-1].message}")
    reason = next((row.message for row in rows if row.unanswered), "no reply")
    answered = {row.index for row in rows if not row.unanswered}
    if not answered:
        return NngenError(f"no reply came back: {reason}; the same command asks again")
    # A server that answers others and rejects this request, or leaves it without a word, will do so again.
    answered |= {row.index for row in rows if row.status in (Status.REJECTED, Status.EMPTY)}
    missing = sum(index not in answered for index in range(number))
    if not missing:
        return None
    return SomeFailedError(f"{missing} of {number} requests have no reply: {reason}; the same command asks again")


def funnel(rows: Iterable[Proposal]) -> Funnel:
    """Count the proposals at each stage; the second attempt of a request replaces the first."""
    rows = list({proposal.index: proposal for proposal in rows}.values())
    return Funnel(
        asked=len(rows),
        parsed=sum(row.reached(Stage.PARSED) for row in rows),
        applied=sum(row.reached(Stage.APPLIED) for row in rows),
        checked=sum(row.valid for row in rows),
        new=sum(row.new for row in rows),
        repaired=sum(row.valid and row.repaired for row in rows),
    )


def to_row(proposal: Proposal) -> dict[str, Any]:
    """Write a row of a table, without the texts."""
    data = asdict(proposal) | {"valid": proposal.valid, "new": proposal.new}
    return {name: value for name, value in data.items() if name not in ("text", "written", "batch")}
