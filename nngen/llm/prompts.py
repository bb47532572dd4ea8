"""What a rewriter is asked: Jinja with a YAML head, kept within a budget of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, TemplateError

from nngen.errors import RewriterError
from nngen.files import package_folder as folder
from nngen.llm.optional_imports import load
from nngen.llm.rewriters.base import Message

__all__ = ["MOST_EXAMPLES", "BudgetError", "Prompt", "Rendered", "estimate_tokens", "load_prompts", "prompt", "render"]

MOST_EXAMPLES = 3
"""More made models of this size worse (arXiv 2512.24120)."""

_SUFFIX = ".md.j2"
_HEAD = {
    "version": int,
    "purpose": str,
    "output": str,
    "inputs": list,
    "examples": int,
    "budget": int,
    "drop": list,
    "system": str,
}


class BudgetError(RewriterError):
    """A prompt that is over its budget with all left out that may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt as its file states it.

    Attributes:
        version: Raised with every change of the wording.
        purpose: One line.
        output: What comes back: ``plan``, ``region``, ``file`` or ``number``.
        inputs: Names that the body uses.
        examples: Solved examples it shows at most.
        budget: Tokens it may take, the chat's own marks not counted.
        drop: Inputs (lists) that lose their last items when it is too long, the first named first.
        system: The system turn.
        body: The user turn, as Jinja.
    """

    name: str
    version: int
    purpose: str
    output: str
    inputs: tuple[str, ...]
    examples: int
    budget: int
    drop: tuple[str, ...]
    system: str
    body: str

    @property
    def id(self) -> str:
        """Name, version and digest of the wording, as ``plan@1-3f2a91c0``."""
        digest = hashlib.sha256(f"{self.system}\n{self.body}".encode()).hexdigest()[:8]
        return f"{self.name}@{self.version}-{digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A prompt filled in.

    Attributes:
        tokens: Of both turns.
        omitted: What did not fit, as ``2 of 10 pairs``.
    """

    messages: tuple[Message, ...]
    prompt: str
    tokens: int
    omitted: tuple[str, ...]


def load_prompts(place: Path | None = None) -> dict[str, Prompt]:
    """Read every prompt of a folder (the shipped ones where none is named), by name.

    Raises:
        RewriterError: If a head is missing, incomplete or of the wrong kind; the message names the file.
    """
    files = sorted((place or folder("prompts")).glob(f"*{_SUFFIX}"))
    return {file.name.removesuffix(_SUFFIX): _read(file) for file in files}


def prompt(name: str) -> Prompt:
    """Find a shipped prompt.

    Raises:
        RewriterError: If there is none of that name.
    """
    known = load_prompts()
    if name not in known:
        raise RewriterError(f"no prompt is called {name!r}: there are {', '.join(known)}")
    return known[name]


def render(
    asked: Prompt,
    values: Mapping[str, Any],
    count: Callable[[str], int],
    budget: int | None = None,
) -> Rendered:
    """Fill a prompt in, and leave out what does not fit.

    Args:
        asked: The prompt.
        values: One for each of the prompt's inputs.
        count: Counts the tokens of a text.
        budget: Instead of the prompt's own.

    Raises:
        RewriterError: If an input is missing or unknown.
        BudgetError: If it does not fit even with all left out that may be.
    """
    if set(values) != set(asked.inputs):
        wrong = sorted(set(values) ^ set(asked.inputs))
        raise RewriterError(f"prompt {asked.name} takes {', '.join(asked.inputs)}; missing or unknown: {wrong}")
    limit = asked.budget if budget is None else budget
    full = {name: list(values[name]) for name in asked.drop}
    kept = {name: list(items) for name, items in full.items()}
    while True:
        text = _fill(asked, {**values, **kept})
        tokens = count(asked.system) + count(text)
        if tokens <= limit:
            break
        longest = next((name for name in asked.drop if kept[name]), None)
        if longest is None:
            raise BudgetError(f"prompt {asked.name} takes {tokens} tokens, over its budget of {limit}")
        kept[longest].pop()
    omitted = [
        f"{len(full[n]) - len(kept[n])} of {len(full[n])} {n}" for n in asked.drop if len(kept[n]) < len(full[n])
    ]
    turns = (Message(role="system", content=asked.system), Message(role="user", content=text))
    return Rendered(messages=turns, prompt=asked.id, tokens=tokens, omitted=tuple(omitted))


def estimate_tokens(text: str) -> int:
    """Guess a number of tokens where no tokenizer is at hand: code has about three characters to one."""
    return -(-len(text) // 3)


def _fill(asked: Prompt, values: Mapping[str, Any]) -> str:
    # What is written is a prompt, not HTML: nothing to escape.
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)  # noqa: S701
    try:
        return environment.from_string(asked.body).render(**values).strip()
    except TemplateError as error:
        raise RewriterError(f"prompt {asked.name}: {error}") from error


def _read(file: Path) -> Prompt:
    name = file.name.removesuffix(_SUFFIX)
    parts = file.read_text(encoding="utf-8").split("---\n", 2)
    if len(parts) != 3 or parts[0].strip():
        raise RewriterError(f"{file.name} does not begin with a YAML head between two lines of ---")
    head = load("yaml").safe_load(parts[1])
    if not isinstance(head, dict) or set(head) != set(_HEAD):
        raise RewriterError(f"{file.name}: the head must hold {', '.join(_HEAD)} and nothing else")
    for key, kind in _HEAD.items():
        if not isinstance(head[key], kind):
            raise RewriterError(f"{file.name}: {key} is not of type {kind.__name__}")
    if head["examples"] > MOST_EXAMPLES:
        raise RewriterError(f"{file.name}: {head['examples']} examples are more than {MOST_EXAMPLES}")
    if not set(head["drop"]) <= set(head["inputs"]):
        raise RewriterError(f"{file.name}: drop names what is no input")
    head |= {"inputs": tuple(head["inputs"]), "drop": tuple(head["drop"]), "system": head["system"].strip()}
    return Prompt(name=name, body=parts[2], **head)
