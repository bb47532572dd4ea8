"""Where proposals come from: one event of the archive each, success or not."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Self

from nngen.archive import Event, Store
from nngen.llm.proposals.duplicates import TwinKind
from nngen.llm.proposals.parsing import Fault
from nngen.llm.rewriters.base import Kind, Status
from nngen.types import Outcome

__all__ = ["EVENT", "Funnel", "Proposal", "Stage", "funnel", "proposals", "record", "to_row"]

EVENT = "proposal"
_LONGEST = 20_000


class Stage(enum.StrEnum):
    """How far a proposal came."""

    ASKED = "asked"
    PARSED = "parsed"
    APPLIED = "applied"
    CHECKED = "checked"


_ORDER = list(Stage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One proposal and what became of it.

    Attributes:
        batch: Name of the run that asked for it.
        index: Its number there, from 0.
        rewriter: Who wrote it.
        region: The region's name; "" for other kinds.
        parent: Id of the candidate it was to improve on; "" where there was none.
        prompt: Name, version and digest of the prompt.
        seed: Of the request.
        stage: The last stage it passed.
        status: What came back from the rewriter.
        fault: Why the text was no proposal; None where it was one.
        outcome: Of the checks; None where they were not run.
        rule: That refused it.
        message: One line on what went wrong.
        candidate: Its id, from ``applied`` on.
        twin: In which way it is held already; None if it is new.
        twin_of: Of which candidate.
        repaired: Whether this is the second try, after a message.
        trusted: Whether all code in it stands in this package's own tables and templates; else it is run
            in the sandbox only.
        text: What the rewriter wrote.
        written: The code it wrote, for ``region`` and ``file``.
    """

    batch: str
    index: int
    rewriter: str
    kind: Kind
    region: str = ""
    parent: str = ""
    prompt: str = ""
    seed: int = 0
    stage: Stage = Stage.ASKED
    status: Status = Status.OK
    fault: Fault | None = None
    outcome: Outcome | None = None
    rule: str = ""
    message: str = ""
    candidate: str = ""
    twin: TwinKind | None = None
    twin_of: str = ""
    repaired: bool = False
    trusted: bool = False
    text: str = ""
    written: str = ""
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
        """Whether it passed every check and repeats nothing."""
        return self.valid and self.twin is None

    def reached(self, stage: Stage) -> bool:
        """Whether it passed a stage."""
        return _ORDER.index(self.stage) >= _ORDER.index(stage)

    def to_dict(self) -> dict[str, Any]:
        """Write it as JSON's types, long texts cut."""
        data = asdict(self) | {"text": self.text[:_LONGEST], "written": self.written[:_LONGEST]}
        data["what"] = data.pop("kind")  # an event has a kind of its own
        return data

    @classmethod
    def from_event(cls, event: Event) -> Self:
        """Read what ``record`` wrote."""
        data = dict(event.detail)
        data["kind"] = data.pop("what")
        enums = {"kind": Kind, "stage": Stage, "status": Status, "fault": Fault, "outcome": Outcome, "twin": TwinKind}
        for name, kind in enums.items():
            if data.get(name) is not None:
                data[name] = kind(data[name])
        return cls(**data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Funnel:
    """How many proposals came how far. ``better`` is None where nothing could be compared.

    Attributes:
        repaired: Of the valid ones, how many needed the second try.
        compared: Trained ones whose parent was trained in the same way.
    """

    asked: int
    parsed: int
    applied: int
    checked: int
    new: int
    repaired: int = 0
    trained: int = 0
    compared: int = 0
    better: int | None = None


def record(archive: Store, proposal: Proposal) -> None:
    """Keep a proposal."""
    archive.log(EVENT, campaign=proposal.batch, **proposal.to_dict())


def proposals(archive: Store, batch: str | None = None) -> tuple[Proposal, ...]:
    """Read the proposals of a run, or of all, in the order in which they were kept."""
    return tuple(Proposal.from_event(event) for event in archive.events(batch) if event.kind == EVENT)


def funnel(held: Iterable[Proposal]) -> Funnel:
    """Count how far proposals came; first and second tries of one request are one."""
    last = {proposal.index: proposal for proposal in held}
    rows = list(last.values())
    return Funnel(
        asked=len(rows),
        parsed=sum(row.reached(Stage.PARSED) for row in rows),
        applied=sum(row.reached(Stage.APPLIED) for row in rows),
        checked=sum(row.valid for row in rows),
        new=sum(row.new for row in rows),
        repaired=sum(row.valid and row.repaired for row in rows),
    )


def to_row(proposal: Proposal) -> dict[str, Any]:
    """Write what a table shows: no texts."""
    data = asdict(proposal) | {"valid": proposal.valid, "new": proposal.new}
    return {name: value for name, value in data.items() if name not in ("text", "written", "batch")}
