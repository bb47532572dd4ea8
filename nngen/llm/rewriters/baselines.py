"""Rewriters without a model: whoever claims that a model helps must beat both at equal budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from random import Random

from nngen.llm.proposals.plan_space import plan_text
from nngen.llm.rewriters.base import Kind, Reply, Request, Status
from nngen.llm.rewriters.mutations import mutate_region, redraw_region
from nngen.seeds import derive

__all__ = ["Mutate", "Uniform"]


class Uniform:
    """Draws uniformly: a plan over the same grammar as the model, a region with every choice in it drawn anew."""

    name = "random"
    trusted = True

    def propose(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer each request with a draw from its own seed."""
        return [_timed(self._draw, request) for request in requests]

    def _draw(self, request: Request, rng: Random) -> str | None:
        if request.kind is Kind.PLAN and request.space is not None:
            return plan_text(request.space.draw(rng))
        return redraw_region(request.code, rng) if request.code else None


class Mutate:
    """Changes one thing: one field of the parent plan, one choice of the region."""

    name = "mutate"
    trusted = True

    def propose(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer each request with one change, drawn from its own seed."""
        return [_timed(self._change, request) for request in requests]

    def _change(self, request: Request, rng: Random) -> str | None:
        if request.kind is Kind.PLAN and request.space is not None:
            parent = request.parent or request.space.draw(rng)
            return plan_text(request.space.mutate(parent, rng))
        return mutate_region(request.code, rng) if request.code else None


def _timed(write: Callable[[Request, Random], str | None], request: Request) -> Reply:
    start = time.perf_counter()
    text = write(request, Random(derive(request.seed, "baseline")))
    seconds = time.perf_counter() - start
    if text is None:
        return Reply(status=Status.NOTHING, detail="there is nothing here to change", seconds=seconds)
    if request.kind is not Kind.PLAN:
        text = f"```python\n{text.rstrip()}\n```"
    return Reply(text=text, seconds=seconds)
