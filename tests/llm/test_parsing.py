"""Parsing of replies."""

from __future__ import annotations

import time

import pytest

from nngen.llm.proposals.parsing import Fault, ReplyError, one_block, python_block, well_formed

GOOD = "```python\nx = 1\n```"


@pytest.mark.parametrize("text", [GOOD, f"Sure.\n\n{GOOD}\nDone.", "```py\nx = 1\n```", "```\nx = 1\n```"])
def test_the_content_of_one_block_is_returned(text: str) -> None:
    assert one_block(text) == "x = 1\n"


def test_code_alone_needs_no_fence() -> None:
    assert python_block("x = 1") == "x = 1"


@pytest.mark.parametrize(
    ("text", "fault", "message"),
    [
        (f"{GOOD}\n{GOOD}", Fault.SEVERAL_BLOCKS, "2 came"),
        ("I would rather not.", Fault.NO_BLOCK, "no code block"),
        ("", Fault.NO_BLOCK, "no code block"),
        ("```python\nx = 1\n", Fault.CUT, "never closes"),
        ("```python\nx = (\n```", Fault.SYNTAX, "line 1"),
        ("```python\nx = " + "-" * 200_000 + "1\n```", Fault.CUT, "at most 200,000 are read"),
        ("```python\nx = " + "-" * 190_000 + "1\n```", Fault.SYNTAX, "nest|memory|stack"),
        ("```python\nx = '\0'\n```", Fault.SYNTAX, "null"),
        ("```python\nx = '\ud800'\n```", Fault.SYNTAX, "surrogate"),
        ("```python\nx = 1\nThis line explains the code above.\n```", Fault.PROSE, "line 2 of the code is a sentence"),
    ],
)
def test_other_replies_have_a_typed_fault(text: str, fault: Fault, message: str) -> None:
    with pytest.raises(ReplyError, match=message) as caught:
        python_block(text)
    assert caught.value.fault is fault


@pytest.mark.parametrize(
    "text",
    ["```python\n" * 18_000, "```\n" * 49_999, "```\nA" + "'" * 150_000 + "!\n```", "`" * 199_999, " " * 199_999 + "`"],
    ids=["blocks-never-closed", "empty-blocks", "quotes", "ticks", "spaces"],
)
def test_long_replies_are_read_in_linear_time(text: str) -> None:
    began = time.process_time()
    with pytest.raises(ReplyError):
        python_block(text)
    assert time.process_time() - began < 2.0


def test_messages_are_one_bounded_line() -> None:
    assert str(ReplyError(Fault.FAMILY, "no\x1b[31m\nfamily" + "x" * 5000)).startswith("no family")
    assert len(str(ReplyError(Fault.FAMILY, "x" * 5000))) <= 300


def test_lone_surrogates_are_replaced() -> None:
    assert well_formed("a\ud800b") == "a\ufffdb"
    assert well_formed("a\U0001f600b") == "a\U0001f600b"
