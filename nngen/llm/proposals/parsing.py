"""Reading replies: the one code block, and typed reasons when there is not exactly one."""

from __future__ import annotations

import ast
import enum
import re

from nngen.errors import NngenError

__all__ = ["Fault", "ReplyError", "one_block", "python_block"]


class Fault(enum.StrEnum):
    """Why a reply is no proposal; the list is closed."""

    BUDGET = "budget"
    """The prompt is over its budget, so nothing was asked."""
    SERVER = "server"
    """No usable text came back; the reply's status says why."""
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
    """The code does not define what the region must define."""
    UNCHANGED = "unchanged"
    ASSEMBLY = "assembly"


class ReplyError(NngenError):
    """A reply that is no proposal, and why."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


_FENCE = re.compile(r"^[ \t]*```[\w+-]*[ \t]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
_SENTENCE = re.compile(r"^[A-Z][a-z]*(?:[ ,'-]+[\w']+){3,}[.:!]?$")


def one_block(text: str) -> str:
    """Return the inside of the one fenced block of a reply.

    Raises:
        ReplyError: If there is none, more than one, or one that never closes.
    """
    blocks = _FENCE.findall(text.rstrip() + "\n")
    if len(blocks) > 1:
        raise ReplyError(Fault.SEVERAL_BLOCKS, f"one code block was asked for, {len(blocks)} came")
    if not blocks:
        fault, message = (Fault.CUT, "the code block never closes") if "```" in text else _MISSING
        raise ReplyError(fault, message)
    return str(blocks[0])


_MISSING = (Fault.NO_BLOCK, "no code block: write the code between ```python and ```")


def python_block(text: str) -> str:
    """Return the reply's Python code; a reply that is nothing but code needs no fence.

    Raises:
        ReplyError: As ``one_block``, or if the code does not parse.
    """
    if "```" not in text and text.strip():
        try:
            ast.parse(text)
        except SyntaxError:
            raise ReplyError(*_MISSING) from None
        return text
    code = one_block(text)
    try:
        ast.parse(code)
    except SyntaxError as error:
        raise _syntax(code, error) from error
    return code


def _syntax(code: str, error: SyntaxError) -> ReplyError:
    lines = code.splitlines()
    number = error.lineno or 1
    line = lines[number - 1].strip() if 0 < number <= len(lines) else ""
    if _SENTENCE.match(line):
        return ReplyError(Fault.PROSE, f"line {number} of the code is a sentence: {line[:60]!r}")
    return ReplyError(Fault.SYNTAX, f"line {number}: {error.msg}")
