"""Rewriters that ask others: a bandit over several, and models that see earlier drafts or those of a sampler."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from statistics import fmean, pstdev

from nngen.llm.prompts import estimate_tokens
from nngen.llm.rewriters.base import Kind, Message, Reply, Request, Rewriter, Status
from nngen.llm.rewriters.tpe import Tpe
from nngen.seeds import derive

_NO_LIMIT = 10**9
_SHOWN = 2  # plans of the sampler in a model's prompt
_SHARE = 0.5
_BEFORE = 16  # earlier drafts in the prompt of a sequential model


class Several:
    """Base of rewriters that ask others.

    Attributes:
        name: Names of the rewriters that are asked.
        trusted: Whether all of them are.
        rewriters: The rewriters that are asked.
    """

    def __init__(self, name: str, rewriters: Sequence[Rewriter]) -> None:
        self.name, self.rewriters = name, tuple(rewriters)
        self.trusted = all(one.trusted for one in rewriters)

    @property
    def context(self) -> int:
        """Smallest context of the models among them, in tokens."""
        return min((getattr(one, "context", _NO_LIMIT) for one in self.rewriters), default=_NO_LIMIT)

    def tokens(self, text: str) -> int:
        """Count the tokens of a text as the models among them do."""
        return max(getattr(one, "tokens", estimate_tokens)(text) for one in self.rewriters)

    def with_tuned(self, tuned: Rewriter) -> None:
        """Ask a tuned model from now on in place of its base, also where one of the rewriters asks it."""
        for one in self.rewriters:
            if isinstance(one, Several):
                one.with_tuned(tuned)
        self.rewriters = tuple(tuned if _base(one.name) == _base(tuned.name) else one for one in self.rewriters)

    def ask(self, requests: Sequence[Request], places: Sequence[int]) -> list[Reply]:
        """Ask for each request the rewriter at its place, all requests of one rewriter together."""
        found: dict[int, Reply] = {}
        for place, rewriter in enumerate(self.rewriters):
            mine = [number for number, chosen in enumerate(places) if chosen == place]
            replies = rewriter.propose([requests[number] for number in mine]) if mine else []
            found |= {
                number: replace(reply, rewriter=rewriter.name) for number, reply in zip(mine, replies, strict=True)
            }
        return [found[number] for number in range(len(requests))]


class Bandit(Several):
    """Bandit over rewriters: each request goes to the one with the largest draw of its gain (Thompson 1933).

    The gain of a child is its accuracy above that of its parent, at least 0. Draws follow from the request's seed.
    """

    def __init__(self, rewriters: Sequence[Rewriter]) -> None:
        super().__init__("-".join(one.name for one in rewriters), rewriters)

    def propose(self, requests: Sequence[Request]) -> list[Reply]:
        return self.ask(requests, [self._choose(request) for request in requests])

    def _choose(self, request: Request) -> int:
        rng = Random(derive(request.seed, "bandit"))
        gains = [self._gains(one.name, request) for one in self.rewriters]
        everyone = [gain for values in gains for gain in values]
        spread = pstdev(everyone) if everyone else 0.0
        if spread == 0:
            return rng.randrange(len(gains))
        # The mean of all counts as one more gain of each, so a rewriter without trials is an average one in doubt.
        prior = fmean(everyone)
        draws = [
            rng.gauss((sum(values) + prior) / (len(values) + 1), spread / math.sqrt(len(values) + 1))
            for values in gains
        ]
        return max(range(len(draws)), key=draws.__getitem__)

    def _gains(self, name: str, request: Request) -> list[float]:
        """Return the gains of a rewriter; a model keeps those that it had before it was tuned."""
        found = (values for writer, values in request.lessons.gains.items() if _base(writer) == _base(name))
        return [max(gain, 0.0) for values in found for gain in values]


class Hybrid(Several):
    """A model whose prompt shows what TPE would try, and TPE itself for the rest of the requests (arXiv 2603.24647).

    Args:
        model: The model.
        share: Share of requests that the model answers, in [0, 1]; half of them where it is None.
    """

    def __init__(self, model: Rewriter, share: float | None = None) -> None:
        super().__init__(f"hybrid-{model.name}", (model, Tpe()))
        self._share = _SHARE if share is None else share

    def propose(self, requests: Sequence[Request]) -> list[Reply]:
        places = [int(Random(derive(request.seed, "hybrid")).random() >= self._share) for request in requests]
        shown = [
            request if place else self._with_plans(request) for request, place in zip(requests, places, strict=True)
        ]
        return self.ask(shown, places)

    def _with_plans(self, request: Request) -> Request:
        """Add plans of the sampler to a prompt for a plan."""
        if request.kind is not Kind.PLAN:
            return request
        asked = [replace(request, seed=derive(request.seed, "shown", place)) for place in range(_SHOWN)]
        plans = [reply.text for reply in self.rewriters[1].propose(asked)]
        return _with_lines(request, "A classical sampler that knows all results would try:", plans)


class Sequential(Several):
    """A model that is asked for one reply at a time, and sees what it wrote before for the same prompt.

    It sees the replies of one call, which asks for 16 drafts or proposals at most.
    """

    def __init__(self, model: Rewriter) -> None:
        super().__init__(f"sequential-{model.name}", (model,))

    def propose(self, requests: Sequence[Request]) -> list[Reply]:
        written: dict[tuple[Message, ...], list[str]] = defaultdict(list)
        replies = []
        for request in requests:
            before = written[request.messages]
            shown = _with_lines(request, "Written already; write another one:", before[-_BEFORE:])
            (reply,) = self.rewriters[0].propose([shown])
            before += [reply.text] if reply.status is Status.OK else []
            replies.append(replace(reply, rewriter=self.name))
        return replies


def _with_lines(request: Request, head: str, lines: Sequence[str]) -> Request:
    """Add lines below a heading to the last turn of a prompt; a request without either stays as it is."""
    if not lines or not request.messages:
        return request
    *turns, last = request.messages
    text = "\n".join((f"{last.content}\n\n{head}", *lines))
    return replace(request, messages=(*turns, Message(role=last.role, content=text)))


def _base(name: str) -> str:
    """Return the name of a model without its adapter."""
    return name.partition("+")[0]
