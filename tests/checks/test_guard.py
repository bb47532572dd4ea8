"""Verdicts of exceptions: lengths of what is shown, lines of the candidate's file, and names of want of memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from nngen.checks.guard import describe, guard
from nngen.checks.rule import CheckFailed
from nngen.types import Outcome, Verdict

FILE = Path("candidate.py")


def verdict(error: BaseException) -> Verdict:
    with pytest.raises(CheckFailed) as failed, guard("rule", Outcome.SHAPE, FILE, "x ran"):
        raise error
    assert failed.value.__suppress_context__
    assert str(failed.value) == failed.value.verdict.message
    return failed.value.verdict


def test_long_names_and_texts_are_cut() -> None:
    for length, shown in ((60, "E" * 60), (61, "E" * 59 + "…")):
        assert describe(type("E" * length, (Exception,), {})("no")) == f"{shown}: no"
    for length, shown in ((38, repr("x" * 38)), (39, "'" + "x" * 38 + "…")):
        assert describe(SystemExit("x" * length)) == f"sys.exit({shown}) was called"
    assert describe(ValueError("x" * 301)) == f"ValueError: {'x' * 299}…"
    assert describe(ValueError("a\n b")) == "ValueError: a b"
    assert describe(SyntaxError("bad", ("f.py", 3, 1, "text"))) == "SyntaxError: bad"


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("Out of memory", Outcome.MEMORY),
        ("DefaultCPUAllocator: can't allocate memory", Outcome.MEMORY),
        ("cannot allocate memory", Outcome.MEMORY),
        ("not enough memory: you tried", Outcome.MEMORY),
        ("memory format", Outcome.SHAPE),
    ],
)
def test_want_of_memory_is_told_by_torchs_words(text: str, outcome: Outcome) -> None:
    assert verdict(RuntimeError(text)).outcome is outcome
    assert verdict(ValueError(text)).outcome is Outcome.SHAPE


def raised_in(code: str, file: Path = FILE) -> Verdict:
    names: dict[str, object] = {}
    with pytest.raises(CheckFailed) as failed, guard("rule", Outcome.SHAPE, FILE, "x ran"):
        exec(compile(code, str(file), "exec"), names)
    return failed.value.verdict


def test_the_line_is_one_of_the_candidates_file() -> None:
    error = "ValueError, while x ran"
    assert raised_in("\n\nraise ValueError") == Verdict(
        outcome=Outcome.SHAPE, rule="rule", message=f"line 3: {error}", line=3
    )
    elsewhere = raised_in("raise ValueError", Path("other.py"))
    assert elsewhere == Verdict(outcome=Outcome.SHAPE, rule="rule", message=error)
    broken = raised_in("x = 1\ncompile('\\n\\nx = (', 'candidate.py', 'exec')")
    assert (broken.outcome, broken.line) == (Outcome.SYNTAX, 3)
    foreign = raised_in("x = 1\ncompile('\\n\\nx = (', 'other.py', 'exec')")
    assert (foreign.outcome, foreign.line) == (Outcome.SHAPE, 2)
