"""Completion-only masks, compared token by token with the real tokenizer."""

from __future__ import annotations

from typing import Any

import pytest

from nngen.errors import RewriterError
from nngen.llm.finetuning.finetune import tokenize
from nngen.llm.rewriters.base import Message

TURNS = (
    Message(role="system", content="Be brief."),
    Message(role="user", content="Rewrite loss:\n```python\nx = 1\n```"),
)
ANSWER = "```python\ndef importance_loss(weights):\n    return weights.sum()\n```"


@pytest.mark.slow
def test_each_token_of_the_answer_is_learned_and_no_other(tokenizer: Any) -> None:
    tokens = tokenize(tokenizer, TURNS, ANSWER)
    assert len(tokens.ids) == len(tokens.learned)
    learned = [token for token, use in zip(tokens.ids, tokens.learned, strict=True) if use]
    assert tokenizer.decode(learned) == f"{ANSWER}<|im_end|>"
    prompt = [token for token, use in zip(tokens.ids, tokens.learned, strict=True) if not use]
    expected = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
        "Rewrite loss:\n```python\nx = 1\n```<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.decode(prompt) == expected
    pieces = [tokenizer.decode([token]) for token in tokens.ids]
    border = tokens.prompt_length
    assert "".join(pieces[:border]) == expected
    assert pieces[border].startswith("```")
    assert pieces[-1] == "<|im_end|>"
    assert tokens.learned == (0,) * border + (1,) * (len(pieces) - border)


@pytest.mark.slow
def test_the_prompt_equals_that_of_proposing(tokenizer: Any) -> None:
    tokens = tokenize(tokenizer, TURNS, ANSWER)
    sent = tokenizer.apply_chat_template(
        [turn.to_dict() for turn in TURNS], add_generation_prompt=True, return_dict=True
    )["input_ids"]
    assert list(tokens.ids[: tokens.prompt_length]) == list(sent)


def test_a_template_that_rewrites_earlier_turns_is_refused() -> None:
    class Odd:
        def apply_chat_template(self, turns: list[Any], **_: Any) -> str:
            return f"{len(turns)}"

    with pytest.raises(RewriterError, match="rewrites earlier turns"):
        tokenize(Odd(), TURNS, ANSWER)
