"""Context manager that turns any exception of candidate code into a verdict of one line."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nngen.checks.rule import CheckFailed, fail
from nngen.text import one_line
from nngen.types import Outcome

_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|cannot allocate memory|not enough memory", re.IGNORECASE)


@contextmanager
def guard(rule: str, outcome: Outcome, path: Path, doing: str) -> Iterator[None]:
    """Run candidate code in the ``with`` block; whatever it raises becomes a verdict.

    Args:
        rule: Name of the rule that the verdict gives.
        outcome: Outcome of an ordinary exception.
        path: The candidate's file; the verdict's line is the innermost one in it.
        doing: The step that was tried, as the message gives it: ``"Net(...) was built"``.

    Raises:
        CheckFailed: If the code raised anything at all.
    """
    try:
        yield
    except CheckFailed:
        raise
    except BaseException as error:
        # Generated code may raise anything, SystemExit and KeyboardInterrupt included; none of it may
        # end the worker before the verdict is written.
        line = _line(error, path)
        raise fail(_outcome(error, outcome, path), rule, f"{describe(error)}, while {doing}", line=line) from None


def describe(error: BaseException) -> str:
    """Return the exception's type and message in one line; a message that cannot be read is left out."""
    kind = one_line(type(error).__name__, 60)
    if isinstance(error, SystemExit):
        return f"sys.exit({one_line(repr(error.code), 40)}) was called"
    try:
        text = one_line(str(error.msg if isinstance(error, SyntaxError) else error))
    except BaseException:  # the exception is the candidate's own class: its __str__ may do anything
        text = ""
    return f"{kind}: {text}" if text else kind


def _outcome(error: BaseException, usual: Outcome, path: Path) -> Outcome:
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return Outcome.SYNTAX
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Outcome.MEMORY
    if isinstance(error, RuntimeError) and _NO_MEMORY.search(describe(error)):
        return Outcome.MEMORY
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return Outcome.CRASHED
    return usual


def _line(error: BaseException, path: Path) -> int | None:
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    lines = [
        number for frame, number in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == str(path)
    ]
    return lines[-1] if lines else None
