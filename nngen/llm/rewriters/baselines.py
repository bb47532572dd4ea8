"""Rewriters without a model: the references that a model has to beat at equal budget."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from random import Random

from nngen.llm.proposals.parsing import fenced
from nngen.llm.rewriters.base import Kind, Reply, Request, RewriterEntry, Status, register
from nngen.llm.rewriters.mutations import mutate_region, redraw_region
from nngen.seeds import derive
from nngen.surrogate.plan_text import plan_text

_TOURNAMENT = 3


class Baseline(ABC):
    """Base class of rewriters without a model; a subclass implements ``write``."""

    name: str
    trusted = True

    @abstractmethod
    def write(self, request: Request, rng: Random) -> str | None:
        """Return the text of a plan or the code of a region; None where nothing can be chosen."""

    def propose(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer each request with a draw from its own seed."""
        return [self._reply(request) for request in requests]

    def _reply(self, request: Request) -> Reply:
        start = time.perf_counter()
        text = self.write(request, Random(derive(request.seed, "baseline")))
        seconds = time.perf_counter() - start
        if text is None:
            return Reply(status=Status.NOTHING, detail="there is nothing here to change", seconds=seconds)
        return Reply(text=text if request.kind is Kind.PLAN else fenced(text), seconds=seconds)


class Uniform(Baseline):
    """Uniform draws: a plan over the same grammar as the model's, or every choice of a region drawn anew."""

    name = "random"

    def write(self, request: Request, rng: Random) -> str | None:
        if request.kind is Kind.PLAN and request.space is not None:
            return plan_text(request.space.draw(rng))
        return redraw_region(request.code, rng) if request.code else None


class Mutate(Baseline):
    """Single changes: one field of the parent plan, or one choice of the region."""

    name = "mutate"

    def write(self, request: Request, rng: Random) -> str | None:
        if request.kind is Kind.PLAN and request.space is not None:
            return plan_text(request.space.mutate(request.parent or request.space.draw(rng), rng))
        return mutate_region(request.code, rng) if request.code else None


class Cross(Baseline):
    """Cross-over of the parent with a good trained plan, the best of three draws."""

    name = "cross"

    def write(self, request: Request, rng: Random) -> str | None:
        if request.kind is not Kind.PLAN or request.space is None:
            return None
        parent = request.parent or request.space.draw(rng)
        others = [row for row in request.lessons.plans if row[0] != parent]
        drawn = rng.sample(others, min(len(others), _TOURNAMENT))
        partner = max(drawn, key=lambda row: row[1])[0] if drawn else request.space.draw(rng)
        return plan_text(request.space.cross(parent, partner, rng))


def register_baseline(kind: type[Baseline], purpose: str) -> None:
    """Register a rewriter under its own name."""
    register(
        RewriterEntry(
            argument=kind.name,
            purpose=purpose,
            matches=lambda argument: argument == kind.name,
            create=lambda _argument, _options: kind(),
            trusted=True,
        )
    )


register_baseline(Uniform, "uniform draws")
register_baseline(Mutate, "one change of the parent")
register_baseline(Cross, "cross-over of the parent with another good plan")
