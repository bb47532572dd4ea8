"""Samples tokens so that the seed of a request decides its reply, independent of the rest of the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nngen.llm.rewriters.base import Request
from nngen.llm.rewriters.grammar import PlanMatcher
from nngen.seeds import derive

__all__ = ["SeededSampling"]


class SeededSampling:
    """Logits processor for ``generate``: grammar, temperature, min-p, then Gumbel noise from the row's own generator.

    The arg max of logits plus Gumbel noise is a draw from their softmax (Gumbel 1954). So
    ``generate(do_sample=False)`` samples, and the draws of one row do not depend on its neighbours.

    Args:
        requests: Request of each row.
        matchers: Grammar of each row; None for free text.
        end: Tokens that end a reply.
    """

    def __init__(self, requests: Sequence[Request], matchers: Sequence[PlanMatcher | None], end: Sequence[int]) -> None:
        self._requests = requests
        self._matchers = matchers
        self._end = frozenset(end)
        self._generators = [torch.Generator().manual_seed(derive(request.seed, "tokens")) for request in requests]
        self._done = [False] * len(requests)
        self._begun = False

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return logits, ``(B, V)``, whose arg max is the drawn token of each row."""
        drawn = [self._row(row, int(input_ids[row, -1]), scores[row]) for row in range(len(self._requests))]
        # The last token of the first call belongs to the prompt, later ones to the reply.
        self._begun = True
        return torch.stack(drawn)

    def _row(self, row: int, last: int, logits: Tensor) -> Tensor:
        request, matcher = self._requests[row], self._matchers[row]
        if self._begun and last in self._end:
            self._done[row] = True
        if self._done[row]:
            # ``generate`` pads rows that ended: no draw, no step of the grammar.
            return logits
        if matcher is not None:
            if self._begun:
                matcher.consume(last)
            allowed = matcher.allowed(logits.shape[-1]).to(logits.device)
            logits = logits.masked_fill(~allowed, float("-inf"))
        if request.temperature == 0:
            return logits
        logits = logits.float() / request.temperature
        if request.min_p > 0:
            # A share of a probability is a difference of logits: no softmax is needed.
            floor = logits.max() + torch.log(torch.tensor(request.min_p))
            logits = logits.masked_fill(logits < floor, float("-inf"))
        # -log of an exponential variate is a Gumbel variate.
        noise = torch.empty(logits.shape).exponential_(generator=self._generators[row])
        return logits - noise.log().to(logits.device)
