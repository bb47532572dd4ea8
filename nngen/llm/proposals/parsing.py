"""Format of replies: extracts the one code block, or raises a typed fault."""

from __future__ import annotations

import enum
import re

from nngen.errors import NngenError
from nngen.text import parse_python


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
    """A reply that is not a proposal; ``fault`` is the reason."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


_FENCE = re.compile(r"^[ \t]*```[\w+-]*[ \t]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
_SENTENCE = re.compile(r"^[A-Z][a-z]*(?:[ ,'-]+[\w']+){3,}[.:!]?$")
_NO_BLOCK = "no code block: write the code between ```python and ```"


def one_block(text: str) -> str:
    """Return the content of the one fenced block of a reply.

    Raises:
        ReplyError: If the block is missing, never closes, or is not the only one.
    """
    blocks = _FENCE.findall(text.rstrip() + "\n")
    if len(blocks) > 1:
        raise ReplyError(Fault.SEVERAL_BLOCKS, f"one code block was asked for, {len(blocks)} came")
    if not blocks and "```" in text:
        raise ReplyError(Fault.CUT, "the code block never closes")
    if not blocks:
        raise ReplyError(Fault.NO_BLOCK, _NO_BLOCK)
    return str(blocks[0])


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
    return ReplyError(Fault.SYNTAX, f"line {number}: {error.msg}")
