"""Prompts of rewriters: Jinja templates with a YAML head, rendered within a budget of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nngen.errors import RewriterError
from nngen.files import package_folder
from nngen.jinja import environment
from nngen.llm import optional_import
from nngen.llm.rewriters.base import Message

if TYPE_CHECKING:
    from jinja2 import Template

MAX_EXAMPLES = 3
"""Most solved examples in a prompt: more made models of this size worse (arXiv 2512.24120)."""

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
    """A prompt that is over its budget after every droppable input was dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt read from its file."""

    name: str
    version: int  # version of the wording, raised with every change; the name is that of the file
    purpose: str
    output: str  # kind of the reply: ``plan``, ``region``, ``file``, ``number`` or ``any``
    inputs: tuple[str, ...]  # names used in the body
    examples: int  # most solved examples shown
    budget: int  # most tokens of both turns, without the chat template's own
    # inputs (lists) that lose their last items when the prompt is too long, the first named first
    drop: tuple[str, ...]
    system: str
    body: str

    @property
    def id(self) -> str:
        """Name, version and digest of the wording, such as ``plan@1-3f2a91c0``."""
        digest = hashlib.sha256(f"{self.system}\n{self.body}".encode()).hexdigest()[:8]
        return f"{self.name}@{self.version}-{digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A rendered prompt."""

    messages: tuple[Message, ...]
    prompt: str
    tokens: int  # tokens of both turns
    omitted: tuple[str, ...]  # items dropped to fit the budget, such as ``2 of 10 pairs``


def load_prompts(place: Path | None = None) -> dict[str, Prompt]:
    """Read every prompt of a folder, by name; the shipped ones by default.

    Raises:
        RewriterError: If a head is missing, incomplete or of the wrong kind; the message names the file.
    """
    files = sorted((place or package_folder("prompts")).glob(f"*{_SUFFIX}"))
    return {file.name.removesuffix(_SUFFIX): _read(file) for file in files}


@cache
def prompt(name: str) -> Prompt:
    """Return a shipped prompt; its file is read once.

    Raises:
        RewriterError: If the name is unknown.
    """
    known = load_prompts()
    if name not in known:
        raise RewriterError(f"no prompt is called {name!r}: choose {', '.join(known)}")
    return known[name]


def render(
    chosen: Prompt, values: Mapping[str, Any], count: Callable[[str], int], budget: int | None = None
) -> Rendered:
    """Render a prompt, and drop list items until it fits its budget of tokens, or the one given.

    Raises:
        RewriterError: If an input is missing or unknown.
        BudgetError: If it does not fit after every droppable input was dropped.
    """
    from jinja2 import TemplateError

    if set(values) != set(chosen.inputs):
        wrong = sorted(set(values) ^ set(chosen.inputs))
        raise RewriterError(f"prompt {chosen.name} takes {', '.join(chosen.inputs)}; missing or unknown: {wrong}")
    limit = chosen.budget if budget is None else budget
    kept = {name: list(values[name]) for name in chosen.drop}
    while True:
        try:
            text = _template(chosen.body).render(**{**values, **kept}).strip()
        except TemplateError as error:
            raise RewriterError(f"prompt {chosen.name}: {error}") from error
        tokens = count(chosen.system) + count(text)
        if tokens <= limit:
            break
        longest = next((name for name in chosen.drop if kept[name]), None)
        if longest is None:
            raise BudgetError(f"prompt {chosen.name} takes {tokens} tokens, over its budget of {limit}")
        kept[longest].pop()
    dropped = {name: len(values[name]) - len(kept[name]) for name in chosen.drop}
    omitted = [f"{number} of {len(values[name])} {name}" for name, number in dropped.items() if number]
    turns = (Message(role="system", content=chosen.system), Message(role="user", content=text))
    return Rendered(messages=turns, prompt=chosen.id, tokens=tokens, omitted=tuple(omitted))


def estimate_tokens(text: str) -> int:
    """Estimate the number of tokens without a tokenizer: code has about three characters per token."""
    return -(-len(text) // 3)


@cache
def _template(body: str) -> Template:
    return environment().from_string(body)


def _read(file: Path) -> Prompt:
    name = file.name.removesuffix(_SUFFIX)
    parts = file.read_text(encoding="utf-8").split("---\n", 2)
    if len(parts) != 3 or parts[0].strip():
        raise RewriterError(f"{file.name} does not begin with a YAML head between two lines of ---")
    head = optional_import("yaml").safe_load(parts[1])
    if not isinstance(head, dict) or set(head) != set(_HEAD):
        raise RewriterError(f"{file.name}: the head must hold {', '.join(_HEAD)} and nothing else")
    for key, kind in _HEAD.items():
        if not isinstance(head[key], kind):
            raise RewriterError(f"{file.name}: {key} is not of type {kind.__name__}")
    if head["examples"] > MAX_EXAMPLES:
        raise RewriterError(f"{file.name}: {head['examples']} examples are more than {MAX_EXAMPLES}")
    if unknown := sorted(set(head["drop"]) - set(head["inputs"])):
        raise RewriterError(f"{file.name}: drop names {', '.join(unknown)}, not among the inputs")
    head |= {"inputs": tuple(head["inputs"]), "drop": tuple(head["drop"]), "system": head["system"].strip()}
    return Prompt(name=name, body=parts[2], **head)
