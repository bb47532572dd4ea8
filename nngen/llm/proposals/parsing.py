"""Format of replies: finds the one plan or the one piece of code in Markdown, or raises a typed fault."""

from __future__ import annotations

import enum
import json
import re
import textwrap
from functools import cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from nngen.errors import NngenError
from nngen.text import MAX_PARSED, one_line, parse_python


class Fault(enum.StrEnum):
    """Reasons why a reply is not a proposal; a closed list."""

    BUDGET = "budget"
    """The prompt is over its budget, so no request was made."""
    SERVER = "server"
    """No usable text was returned; the reply's status says why."""
    CUT = "cut"
    NO_BLOCK = "no-block"
    SEVERAL_BLOCKS = "several-blocks"
    PROSE = "prose"
    """Sentences stand inside the code."""
    SYNTAX = "syntax"
    NOT_JSON = "not-json"
    NOT_A_PLAN = "not-a-plan"
    FAMILY = "family"
    RANGE = "range"
    REGION = "region"
    """The code does not define the class or function of the region."""
    CONTEXT = "context"
    """The text is not a unified diff, or its lines are not those of the file."""
    UNCHANGED = "unchanged"
    ASSEMBLY = "assembly"


class ReplyError(NngenError):
    """A reply that is not a proposal; ``fault`` is the reason, and the message is one line whatever it quotes."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(one_line(message))
        self.fault = fault


# Separators and words have no character in common, so that a match takes linear time.
_SENTENCE = re.compile(r"^[A-Z][a-z]*(?:[ ,-]+[\w']+){3,}[.:!]?$")
_SURROGATES = re.compile("[\ud800-\udfff]")
_THOUGHT = re.compile(r"<(/?)(?:think|thinking|thought|reasoning)>|\[(/?)THINK\]", re.IGNORECASE)
_FINAL = "<|channel|>final<|message|>"
_OBJECT = re.compile(r'\{\s*["}]')
_FENCE = re.compile(r"^[ \t]+(?=```|~~~)", re.MULTILINE)
_MAX_TRIES = 100  # broken objects before a plan; each may take time in proportion to the reply
_PYTHON = ("python", "py", "python3", "py3")
_DIFF = ("diff", "patch")
_NO_BLOCK = "no code block: write the code between ```python and ```"
_NO_OBJECT = "no JSON object: write one JSON object, and nothing else"


def well_formed(text: str) -> str:
    """Replace lone surrogates, which JSON can write and UTF-8 cannot."""
    return _SURROGATES.sub("\ufffd", text)


def without_thoughts(text: str) -> str:
    """Return a reply without the passages in which a model reasons.

    Raises:
        ReplyError: If the reply ends inside its reasoning, or is too long to read.
    """
    if len(text) > MAX_PARSED:
        raise ReplyError(Fault.CUT, f"the reply has {len(text):,} characters; at most {MAX_PARSED:,} are read")
    text = text.rpartition(_FINAL)[2]
    kept: list[str] = []
    end, inside = 0, False
    for mark in _THOUGHT.finditer(text):
        closing = bool(mark[1] or mark[2])
        if closing and not inside:
            kept.clear()  # the chat template had opened the reasoning
        elif not closing and not inside:
            kept.append(text[end : mark.start()])
        inside, end = not closing, mark.end()
    if inside:
        raise ReplyError(Fault.CUT, "the reply ends inside its reasoning: raise --max-reply-tokens")
    return "".join([*kept, text[end:]])


def one_object(text: str, *keys: str) -> dict[str, Any]:
    """Return the one JSON object of a reply, whatever stands around it.

    Args:
        text: The reply.
        keys: Fields of which one tells the object from others; an object that holds it may be wrapped in another one.
            Of objects that hold the first of them, or else any, there must be one.

    Raises:
        ReplyError: If there is none, or two of them differ.
    """
    text = without_thoughts(text)
    # A quotation or a list indents the lines of an object, which breaks none; its marks would.
    found = _objects(text) or next(filter(None, (_objects(token.content) for token in _blocks(text))), [])
    wrapped = [inner for data in found for inner in data.values() if isinstance(inner, dict)]
    holders = ([data for data in (*found, *wrapped) if not data.keys().isdisjoint(some)] for some in (keys[:1], keys))
    named = next(filter(None, holders), [])
    if "{" not in text:
        raise ReplyError(Fault.NO_BLOCK, _NO_OBJECT)
    if not named:
        try:
            # Of a broken object only inner ones were found.
            json.JSONDecoder().raw_decode(text, text.index("{"))
        except ValueError as error:
            raise ReplyError(Fault.NOT_JSON, f"not JSON: {error}") from error
    different = list({json.dumps(data, sort_keys=True): data for data in named or found}.values())
    if len(different) != 1:
        raise ReplyError(Fault.SEVERAL_BLOCKS, f"one JSON object was asked for, {len(different)} different ones came")
    return different[0]


def _objects(text: str) -> list[dict[str, Any]]:
    """Decode the outermost JSON objects of a text.

    Raises:
        ReplyError: If one is nested too deep.
    """
    decoder, start, tries = json.JSONDecoder(), 0, 0
    found: list[dict[str, Any]] = []
    while tries < _MAX_TRIES and (opening := _OBJECT.search(text, start)):
        try:
            data, start = decoder.raw_decode(text, opening.start())
            found.append(data)
        except ValueError:
            start, tries = opening.start() + 1, tries + 1
        except (RecursionError, MemoryError) as error:
            raise ReplyError(Fault.NOT_JSON, "not JSON: nested too deep") from error
    return found


@cache
def _markdown() -> MarkdownIt:
    # Blocks alone: HTML and references would hide code, and replies are read as they were written.
    return MarkdownIt("commonmark").disable(["normalize", "inline", "text_join", "html_block", "reference"])


def _blocks(text: str) -> list[Token]:
    """Return the fenced and indented code and the paragraphs of a reply."""
    # With a line break at the end, an open fence is told from a closed one by its number of lines.
    text = text.replace("\r\n", "\n") + "\n"
    return [token for token in _markdown().parse(text) if token.content]


def fenced(code: str, language: str = "python") -> str:
    """Write code as the one block of a reply."""
    return f"```{language}\n{code.strip()}\n```"


def diff_block(text: str) -> str | None:
    """Return the unified diff of a reply; None where it holds none.

    Raises:
        ReplyError: If several blocks are diffs, or the one that is never closes.
    """
    text = without_thoughts(text)
    fences = [token for token in _blocks(text) if token.type == "fence" and token.info.strip().lower() in _DIFF]
    if fences:
        return _one_fence(fences).content
    return text if text.lstrip().startswith(("@@ ", "--- ")) else None


def python_block(text: str) -> str:
    """Return the Python code of a reply; a reply of code alone needs no fence.

    Raises:
        ReplyError: If there is not exactly one block, or the code does not parse.
    """
    text = without_thoughts(text)
    bare = textwrap.dedent(text)
    if bare.strip() and _parses(bare):
        return bare
    blocks = _blocks(text)
    if not any(token.type == "fence" for token in blocks) and _FENCE.search(text):
        # A fence indented like code ends no paragraph in Markdown; models write it all the same.
        blocks = _blocks(_FENCE.sub("", text))
    fences = [token for token in blocks if token.type == "fence"]
    if fences:
        code = textwrap.dedent(_one_fence(fences).content)
        try:
            parse_python(code)
        except SyntaxError as error:
            raise _syntax(code, error) from error
        return code
    indented = [textwrap.dedent(token.content) for token in blocks if token.type == "code_block"]
    if len(indented) == 1 and _parses(indented[0]):
        return indented[0]
    raise ReplyError(Fault.NO_BLOCK, _NO_BLOCK)


def _parses(code: str) -> bool:
    try:
        parse_python(code)
    except SyntaxError:
        return False
    return True


def _one_fence(fences: list[Token]) -> Token:
    """Choose the block of a reply: among blocks of several languages that of Python."""
    languages = [next(iter(token.info.split()), "").strip("{.}").lower() for token in fences]
    ranks = [0 if language in _PYTHON else 1 if not language else 2 for language in languages]
    best = {token.content: token for token, rank in zip(fences, ranks, strict=True) if rank == min(ranks)}
    if len(best) > 1:
        raise ReplyError(Fault.SEVERAL_BLOCKS, f"one code block was asked for, {len(best)} came")
    (token,) = best.values()
    first, last = token.map or (0, 0)
    if last - first - 1 == token.content.count("\n"):
        raise ReplyError(Fault.CUT, "the code block never closes")
    return token


def _syntax(code: str, error: SyntaxError) -> ReplyError:
    lines = code.splitlines()
    number = error.lineno or 1
    line = lines[number - 1].strip() if 0 < number <= len(lines) else ""
    if _SENTENCE.match(line):
        return ReplyError(Fault.PROSE, f"line {number} of the code is a sentence: {line[:60]!r}")
    place = f"line {error.lineno}: " if error.lineno else ""
    return ReplyError(Fault.SYNTAX, f"{place}{error.msg}")
