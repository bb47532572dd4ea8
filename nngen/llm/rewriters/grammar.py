"""Binds decoding to a grammar, row by row: what a model writes as a plan is a plan.

JSON schema cannot say that the four experts differ. So each row's grammar is made anew when an
expert's closing quote is written, with that expert gone from the choices that are left; the
tokens written so far are read again, which costs about a millisecond.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from nngen.llm.optional_imports import load
from nngen.llm.proposals.plan_space import EXPERTS, PlanSpace

__all__ = ["PlanMatcher", "tokenizer_for_grammar"]

_EXPERTS = re.compile(r'^\{"experts":\[((?:"[^"]*",?)*)')
_COMPACT = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}


def tokenizer_for_grammar(tokenizer: Any, vocabulary: int) -> Any:
    """Wrap a fast Hugging Face tokenizer for llguidance (about 0.4 s: keep it).

    Args:
        tokenizer: The model's own.
        vocabulary: Columns of the model's logits, which may be more than the tokenizer has.
    """
    return load("llguidance.hf").from_tokenizer(tokenizer, n_vocab=vocabulary)


@lru_cache(maxsize=4096)
def _grammar(schema: str) -> str:
    return str(load("llguidance").LLMatcher.grammar_from_json_schema(schema, overrides=_COMPACT))


class PlanMatcher:
    """One row's place in the grammar of plans."""

    def __init__(self, tokenizer: Any, space: PlanSpace) -> None:
        self._tokenizer = tokenizer
        self._space = space
        self._tokens: list[int] = []
        self._chosen: tuple[str, ...] = ()
        self._matcher = self._build()

    def consume(self, token: int) -> None:
        """Move on by one token that the mask allowed."""
        self._matcher.consume_token(token)
        self._tokens.append(token)
        if len(self._chosen) < EXPERTS:
            chosen = self._written()
            if chosen != self._chosen:
                self._chosen = chosen
                self._matcher = self._build()
                self._matcher.consume_tokens(self._tokens)

    def allowed(self, vocabulary: int) -> Tensor:
        """Mark the tokens that may come next, ``(vocabulary,)``, bool; the end-of-text token when all is written."""
        mask = bytearray((vocabulary + 31) // 32 * 4)
        words = torch.frombuffer(mask, dtype=torch.int32)
        self._matcher.unsafe_compute_mask_ptr(words.data_ptr(), words.numel() * 4)
        bits = torch.frombuffer(mask, dtype=torch.uint8).unsqueeze(1) >> torch.arange(8, dtype=torch.uint8)
        return (bits & 1).bool().flatten()[:vocabulary]

    def _build(self) -> Any:
        schema = json.dumps(self._space.schema(self._chosen))
        return load("llguidance").LLMatcher(self._tokenizer, _grammar(schema))

    def _written(self) -> tuple[str, ...]:
        found = _EXPERTS.match(self._tokenizer.decode_str(self._tokens))
        return tuple(re.findall(r'"([^"]*)"', found.group(1))) if found else ()
