"""Completion-only masks, compared token by token with the real tokenizer."""

from __future__ import annotations

from typing import Any

import pytest

from nngen.llm.finetuning.trainer import tokenize
from nngen.llm.rewriters.chat import Chat

TURNS = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Rewrite loss:\n```python\nx = 1\n```"},
)
ANSWER = "```python\ndef importance_loss(weights):\n    return weights.sum()\n```"


@pytest.mark.slow
def test_each_token_of_the_answer_is_learned_and_no_other(tokenizer: Any) -> None:
    tokens = tokenize(Chat(tokenizer), TURNS, ANSWER)
    assert tokens.ids == tokens.prompt + tokens.answer
    assert tokenizer.decode(tokens.answer) == f"{ANSWER}<|im_end|>"
    expected = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
        "Rewrite loss:\n```python\nx = 1\n```<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.decode(tokens.prompt) == expected
    pieces = [tokenizer.decode([token]) for token in tokens.ids]
    border = len(tokens.prompt)
    assert "".join(pieces[:border]) == expected
    assert pieces[border].startswith("```")
    assert pieces[-1] == "<|im_end|>"


@pytest.mark.slow
def test_the_prompt_equals_that_of_proposing(tokenizer: Any) -> None:
    tokens = tokenize(Chat(tokenizer), TURNS, ANSWER)
    sent = tokenizer.apply_chat_template(list(TURNS), add_generation_prompt=True, return_dict=True)["input_ids"]
    assert list(tokens.prompt) == list(sent)
