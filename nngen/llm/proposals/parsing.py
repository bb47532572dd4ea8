"""Format of replies: extracts the one code block, or raises a typed fault."""

from __future__ import annotations

import enum
import re

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
    UNCHANGED = "unchanged"
    ASSEMBLY = "assembly"


class ReplyError(NngenError):
    """A reply that is not a proposal; ``fault`` is the reason, and the message is one line whatever it quotes."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(one_line(message))
        self.fault = fault


_OPENING = re.compile(r"[ \t]*```[\w+-]*[ \t\r]*")
# Separators and words have no character in common, so that a match takes linear time.
_SENTENCE = re.compile(r"^[A-Z][a-z]*(?:[ ,-]+[\w']+){3,}[.:!]?$")
_SURROGATES = re.compile("[\ud800-\udfff]")
_NO_BLOCK = "no code block: write the code between ```python and ```"


def well_formed(text: str) -> str:
    """Replace lone surrogates, which JSON can write and UTF-8 cannot."""
    return _SURROGATES.sub("\ufffd", text)


def one_block(text: str) -> str:
    """Return the content of the one fenced block of a reply.

    Raises:
        ReplyError: If the block is missing, never closes, or is not the only one, or the reply is too long to read.
    """
    if len(text) > MAX_PARSED:
        raise ReplyError(Fault.CUT, f"the reply has {len(text):,} characters; at most {MAX_PARSED:,} are read")
    blocks: list[str] = []
    block: list[str] | None = None
    # Line by line: a pattern over the whole reply takes quadratic time where blocks open and never close.
    for line in text.rstrip().split("\n"):
        if block is None:
            block = [] if _OPENING.fullmatch(line) else None
        elif line.strip() == "```":
            blocks.append("".join(f"{inside}\n" for inside in block))
            block = None
        else:
            block.append(line)
    if len(blocks) > 1:
        raise ReplyError(Fault.SEVERAL_BLOCKS, f"one code block was asked for, {len(blocks)} came")
    if not blocks and "```" in text:
        raise ReplyError(Fault.CUT, "the code block never closes")
    if not blocks:
        raise ReplyError(Fault.NO_BLOCK, _NO_BLOCK)
    return blocks[0]


def fenced(code: str) -> str:
    """Write code as the one block of a reply."""
    return f"```python\n{code.strip()}\n```"


def python_block(text: str) -> str:
    """Return the Python code of a reply; a reply of code alone needs no fence.

    Raises:
        ReplyError: If there is not exactly one block, or the code does not parse.
    """
    fenced = "```" in text or not text.strip()
    code = one_block(text) if fenced else text
    try:
        parse_python(code)
    except SyntaxError as error:
        raise _syntax(code, error) if fenced else ReplyError(Fault.NO_BLOCK, _NO_BLOCK) from error
    return code


def _syntax(code: str, error: SyntaxError) -> ReplyError:
    lines = code.splitlines()
    number = error.lineno or 1
    line = lines[number - 1].strip() if 0 < number <= len(lines) else ""
    if _SENTENCE.match(line):
        return ReplyError(Fault.PROSE, f"line {number} of the code is a sentence: {line[:60]!r}")
    place = f"line {error.lineno}: " if error.lineno else ""
    return ReplyError(Fault.SYNTAX, f"{place}{error.msg}")
