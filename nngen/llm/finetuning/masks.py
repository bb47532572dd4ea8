"""A dialogue as tokens, and which of them are learned: the answer, token by token, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nngen.errors import RewriterError
from nngen.llm.rewriters.base import Message

__all__ = ["Tokens", "tokenize"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """One dialogue.

    Attributes:
        ids: Of prompt and answer, the end-of-turn mark included.
        learned: 1 for each token of the answer, its end-of-turn mark included; 0 for the prompt's.
    """

    ids: tuple[int, ...]
    learned: tuple[int, ...]

    @property
    def prompt_length(self) -> int:
        """Tokens before the answer."""
        return len(self.learned) - sum(self.learned)


def tokenize(tokenizer: Any, messages: Sequence[Message], answer: str) -> Tokens:
    """Turn a dialogue into tokens.

    The prompt's text is a prefix of the dialogue's, and each part is turned into tokens apart, so
    no token straddles the border and the prompt's tokens are those that proposing sends.

    Args:
        tokenizer: With a chat template.
        messages: All turns before the answer.
        answer: The assistant's turn.

    Raises:
        RewriterError: If the chat template writes the same turns in another way once an answer follows.
    """
    turns = [message.to_dict() for message in messages]
    whole = [*turns, {"role": "assistant", "content": answer}]
    head = str(tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
    text = str(tokenizer.apply_chat_template(whole, tokenize=False))
    if not text.startswith(head):
        raise RewriterError("this chat template rewrites earlier turns: completions cannot be told from prompts")
    # What follows the end mark (a newline) is the template's, not the answer's.
    tail = text[len(head) :].rstrip("\n")
    before = tokenizer(head, add_special_tokens=False)["input_ids"]
    after = tokenizer(tail, add_special_tokens=False)["input_ids"]
    return Tokens(ids=(*before, *after), learned=(0,) * len(before) + (1,) * len(after))
