"""Decoding of a batch: a grammar of plans or edits for each row, and draws that depend on the row's seed alone.

A JSON schema cannot state that the four experts of a plan differ. The grammar of a plan is therefore rebuilt when
the closing quote of an expert is written, without that expert among the remaining choices. The tokens
written so far are consumed again, which takes about a millisecond. The grammar of an edit needs no rebuilding.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from nngen.llm import optional_import
from nngen.llm.proposals.edits import edit_grammar
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.rewriters.base import Request
from nngen.plan import Plan
from nngen.seeds import derive
from nngen.space.pool import EXPERTS

# Only closed strings count: the prefix of a name may be the prefix of several families.
_EXPERTS = re.compile(r'^\{"experts":\[((?:"[^"]*",?)*)')
_COMPACT = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}


def tokenizer_for_grammar(tokenizer: Any, vocabulary: int) -> Any:
    """Wrap a fast Hugging Face tokenizer for llguidance, once for each model: it takes about 0.4 s.

    Args:
        tokenizer: Tokenizer of the model.
        vocabulary: Number of columns of the model's logits, which may be larger or smaller than the tokenizer's
            vocabulary.

    Raises:
        ValueError: If it is of a kind that llguidance cannot read.
    """
    return optional_import("llguidance.hf").from_tokenizer(tokenizer, n_vocab=max(vocabulary, len(tokenizer)))


@lru_cache(maxsize=4096)
def _grammar(schema: str) -> str:
    return str(optional_import("llguidance").LLMatcher.grammar_from_json_schema(schema, overrides=_COMPACT))


class PlanMatcher:
    """State of the grammar for one row of a batch: of edits of the parent where it can be edited, or of plans."""

    def __init__(self, tokenizer: Any, space: PlanSpace, parent: Plan | None = None) -> None:
        self._tokenizer = tokenizer
        self._space = space
        self._edits = space.edits(parent)
        self._tokens: list[int] = []
        self._chosen: tuple[str, ...] = ()
        self._matcher = self._build()

    def consume(self, token: int) -> None:
        """Advance by one token that the mask allowed."""
        self._matcher.consume_token(token)
        self._tokens.append(token)
        # After the fourth expert the grammar is final: values of fields do not depend on one another.
        if not self._edits and len(self._chosen) < EXPERTS:
            chosen = self._written()
            if chosen != self._chosen:
                self._chosen = chosen
                self._matcher = self._build()
                self._matcher.consume_tokens(self._tokens)

    def allowed(self, vocabulary: int) -> Tensor:
        """Mark the tokens that may follow, ``(vocabulary,)``, bool; only the end-of-text token after a whole plan."""
        # llguidance writes one bit for each token, in words of 32 bits, lowest bit first.
        mask = bytearray((self._tokenizer.vocab_size + 31) // 32 * 4)
        words = torch.frombuffer(mask, dtype=torch.int32)
        self._matcher.unsafe_compute_mask_ptr(words.data_ptr(), words.numel() * 4)
        bits = torch.frombuffer(mask, dtype=torch.uint8).unsqueeze(1) >> torch.arange(8, dtype=torch.uint8)
        known = (bits & 1).bool().flatten()[:vocabulary]
        return torch.nn.functional.pad(known, (0, vocabulary - len(known)))

    def _build(self) -> Any:
        matcher = optional_import("llguidance").LLMatcher
        if self._edits:
            return matcher(self._tokenizer, matcher.grammar_from_lark(edit_grammar(self._edits)))
        return matcher(self._tokenizer, _grammar(json.dumps(self._space.schema(self._chosen))))

    def _written(self) -> tuple[str, ...]:
        found = _EXPERTS.match(self._tokenizer.decode_str(self._tokens))
        return tuple(re.findall(r'"([^"]*)"', found.group(1))) if found else ()


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
