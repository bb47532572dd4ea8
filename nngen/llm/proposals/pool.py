"""Pools of drafts: many plans are drafted, known ones are dropped, and a ranker picks the few that are checked.

Each turn of drafting is one event of the archive, which holds the picked replies: a batch that was killed goes on with
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from nngen.archive.records import Event
from nngen.archive.store import Archive
from nngen.llm.proposals.log import Proposal
from nngen.plan import Plan
from nngen.text import one_line

_EVENT = "drafts"

MIN_RANKED = 8
"""Fewest trained plans that the ranker is fitted to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafts:
    """One turn of drafting."""

    goal: int  # number of new plans that the batch asked for
    writers: Mapping[str, int]  # number of replies by the rewriter that wrote them
    faults: Mapping[str, int]  # number of replies that are not plans, by fault
    known: int  # number of plans that the archive has
    repeated: int  # number of plans that another draft of the turn has
    usable: int  # number of the others, from which was picked
    fitted: int  # number of trained plans that the ranker was fitted to; 0 where the first ones were picked
    trained: int  # number of trained plans at the fidelity
    seconds: float  # time of the rewriter
    reply_tokens: int  # tokens of all replies; 0 without a model
    picked: tuple[Proposal, ...]  # the picked drafts, as they were before their checks
    prompt_tokens: int = 0  # tokens of all prompts; 0 without a model

    @property
    def drafted(self) -> int:
        """Number of replies."""
        return sum(self.writers.values())

    def __str__(self) -> str:
        faults = f"{sum(self.faults.values())} not plans" + (f" ({', '.join(self.faults)})" if self.faults else "")
        few = f"{len(self.picked)} of {self.usable} new ones"
        if self.fitted:
            reason = f"picked the best {few} by a ranker fitted to {self.fitted} trained plans"
        elif self.trained >= MIN_RANKED:
            reason = f"took {few}"
        else:
            trained = f"{self.trained} {'is' if self.trained == 1 else 'are'} trained at this fidelity"
            reason = f"took the first {few}: a ranker needs {MIN_RANKED} trained plans, and {trained}"
        return f"{self.drafted} drafts, {faults}, {self.known} known, {self.repeated} repeated; {reason}"

    def to_dict(self) -> dict[str, Any]:
        """Write it as JSON types, without the picked drafts."""
        data = {name: value for name, value in asdict(self).items() if name != "picked"}
        return {"drafted": self.drafted, "picked": len(self.picked), **data}

    @classmethod
    def from_event(cls, event: Event) -> Self:
        """Read an event that ``store_drafts`` wrote."""
        data = dict(event.detail)
        del data["drafted"]
        data["picked"] = tuple(Proposal.from_dict(row) for row in data["picked"])
        return cls(**data)


def pick(drafts: Sequence[Plan], number: int, trained: Sequence[tuple[Plan, float]]) -> tuple[list[int], int]:
    """Pick drafts by a ranker fitted to trained plans and their accuracies, or the first ones.

    Returns:
        Places of the picked drafts, the best first, and the number of plans that the ranker was fitted to: 0 where
        fewer than ``MIN_RANKED`` are trained or all drafts are picked.
    """
    if len(trained) < MIN_RANKED or len(drafts) <= number:
        return list(range(min(number, len(drafts)))), 0
    # They load scikit-learn.
    from nngen.surrogate.plan_features import plan_features
    from nngen.surrogate.ranker import Ranker

    plans, accuracies = zip(*trained, strict=True)
    features, groups = plan_features([*plans, *drafts])
    ranker = Ranker(groups).fit(features[: len(plans)], np.array(accuracies))
    return ranker.choose(features[len(plans) :], number), len(plans)


def store_drafts(archive: Archive, batch: str, drafts: Drafts) -> None:
    """Write a turn of drafting to the archive as an event."""
    rows = [row.to_dict() for row in drafts.picked]
    archive.log(_EVENT, campaign=batch, **{**drafts.to_dict(), "picked": rows})


def read_drafts(archive: Archive, batch: str) -> tuple[Drafts, ...]:
    """Read the turns of drafting of a batch, in order."""
    found = []
    for event in archive.events(batch, kinds=(_EVENT,)):
        try:
            found.append(Drafts.from_event(event))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            # It counts as a turn that was not made, and among the rows that cannot be read.
            archive.damaged[f"events {event.id}"] = f"not a turn of drafting ({one_line(str(error), 120)})"
    return tuple(found)
