"""Tokenizers and chat templates of local models: prompts and dialogues as text, and the tokens that end a reply."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nngen.errors import NngenError, RewriterError
from nngen.llm import optional_import
from nngen.llm.rewriters.base import Turn, without_system
from nngen.text import one_line

SWITCHES = {"enable_thinking": False, "thinking": False}
"""Variables of chat templates that turn reasoning off, of which a template knows one at most."""

_OPENING = "<think>"
_SYSTEM, _USER, _ASSISTANT = "nngen-system", "nngen-user", "nngen-assistant"


def load_tokenizer(base: str, chat_template: str = "") -> Any:
    """Load the tokenizer of a base: a hub id, a folder in transformers' layout, or a GGUF file.

    Where it names no token that ends a text or none that pads, the token that ends a turn in its chat template is both.

    Args:
        base: The base model.
        chat_template: File with a Jinja chat template; "" for the base's own.

    Raises:
        RewriterError: If it cannot be loaded, has no chat template, or no reply ends in one.
    """
    where, extra = place(base)
    with explained(base), quiet():
        tokenizer = optional_import("transformers").AutoTokenizer.from_pretrained(
            where, trust_remote_code=False, **extra
        )
    if chat_template:
        try:
            tokenizer.chat_template = Path(chat_template).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise RewriterError(f"{chat_template} cannot be read: {one_line(str(error), 160)}") from error
    if not tokenizer.chat_template:
        raise RewriterError(
            f"{base} has no chat template: take its instruction-tuned variant, or give one with --chat-template FILE"
        )
    with explained(base):
        end = Chat(tokenizer).turn_end
    if tokenizer.eos_token_id is None:
        if end is None:
            raise RewriterError(f"{base}: neither its tokenizer nor its chat template has a token that ends a reply")
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@dataclass(frozen=True)
class Chat:
    """A tokenizer with its chat template, which may know no system turn and may open a passage of reasoning."""

    tokenizer: Any
    vocabulary: int | None = None  # number of tokens that the model knows; None for an unknown model

    def ids(self, text: str) -> list[int]:
        """Turn a text that holds its special tokens into tokens.

        Raises:
            RewriterError: If the model does not know one of them.
        """
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        if self.vocabulary is not None and max(ids, default=0) >= self.vocabulary:
            raise RewriterError(
                f"the tokenizer writes token {max(ids)}, and the model knows {self.vocabulary:,}: they do not belong "
                "together"
            )
        return ids

    def prompt(self, turns: Sequence[Turn]) -> str:
        """Write the turns up to the place where the reply begins; reasoning that the template opens is closed."""
        text = self._write(self.known(turns), add_generation_prompt=True)
        return f"{text.rstrip()}\n\n</think>\n\n" if text.rstrip().endswith(_OPENING) else text

    def dialogue(self, turns: Sequence[Turn], answer: str) -> tuple[str, str]:
        """Write the prompt, and the answer as the model has to write it, its last token included."""
        head = self.prompt(turns)
        whole = self._write([*self.known(turns), {"role": "assistant", "content": answer}])
        # Some templates write earlier turns differently when an answer follows: the prompt stays that of a proposal.
        if not whole.startswith(head):
            return head, f"{answer}{self.tokenizer.eos_token}"
        # The line break after the end-of-turn mark belongs to the template: a model never writes it.
        return head, whole[len(head) :].rstrip("\n")

    @cached_property
    def turn_end(self) -> int | None:
        """Token that ends a reply in the chat template; None where it is an ordinary text."""
        user = {"role": "user", "content": _USER}
        tail = self._write([user, {"role": "assistant", "content": _ASSISTANT}]).rpartition(_ASSISTANT)[2].lstrip()
        first = next(iter(self.ids(tail)), None)
        special = {*self.tokenizer.added_tokens_decoder, *self.tokenizer.all_special_ids}
        return first if first in special else None

    def known(self, turns: Sequence[Turn]) -> list[Turn]:
        """Put the system's text in front of the first user turn where the template knows no system turn."""
        return without_system(turns) if self._folds else list(turns)

    @cached_property
    def _folds(self) -> bool:
        turns = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER}]
        try:
            # Some templates refuse a system turn, others pass it over.
            return _SYSTEM not in self._write(turns)
        except RewriterError:
            return True

    @cached_property
    def _parts(self) -> bool:
        """Whether contents are lists of parts: templates of models that see images pass over plain texts."""
        reason = RewriterError("the chat template leaves out the text of a turn")
        for parts in (False, True):
            try:
                if _USER in self._render([{"role": "user", "content": _USER}], parts):
                    return parts
            except RewriterError as error:
                reason = error
        raise reason

    def _write(self, turns: Sequence[Turn], **options: Any) -> str:
        return self._render(turns, self._parts, **options)

    def _render(self, turns: Sequence[Turn], parts: bool, **options: Any) -> str:
        contents = [[{"type": "text", "text": turn["content"]}] if parts else turn["content"] for turn in turns]
        filled = [{"role": turn["role"], "content": text} for turn, text in zip(turns, contents, strict=True)]
        try:
            return str(self.tokenizer.apply_chat_template(filled, tokenize=False, **SWITCHES, **options))
        except Exception as error:  # a template is a foreign program: it may raise anything
            raise RewriterError(f"the chat template cannot be used: {one_line(str(error), 160)}") from error


def place(base: str) -> tuple[str, dict[str, Any]]:
    """Return the folder or hub id of a base, and the further arguments that load it.

    Raises:
        RewriterError: If the file or folder is missing, or not in transformers' layout.
    """
    try:
        path = Path(base).expanduser()
        if path.suffix == ".gguf":
            if not path.is_file():
                raise RewriterError(f"no such file: {base}")
            return str(path.parent), {"gguf_file": path.name}
        if path.is_dir() and not (path / "config.json").is_file():
            raise RewriterError(f"{base} holds no config.json: it is not a folder in transformers' layout")
        if base.startswith((".", "/", "~")) and not path.is_dir():
            raise RewriterError(f"no such folder: {base}")
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RewriterError(f"{one_line(base, 60)} cannot be a model: {reason}") from error
    return str(path) if base.startswith("~") else base, {}


@contextlib.contextmanager
def explained(base: str) -> Iterator[None]:
    """Raise whatever transformers and its readers raise on foreign files as one line about the base."""
    try:
        yield
    except NngenError as error:
        raise RewriterError(f"{base}: {error}") from error
    except Exception as error:  # tokenizers defines no base class, and readers of broken files raise anything
        lines = (line.strip() for line in str(error).splitlines() if line.strip())
        reason = one_line(next(lines, ""), 160) or type(error).__name__
        raise RewriterError(f"{base} cannot be loaded: {reason}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the messages and progress bars of transformers."""
    logging = optional_import("transformers.utils.logging")
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
