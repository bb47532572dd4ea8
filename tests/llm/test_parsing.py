"""Parsing of replies."""

from __future__ import annotations

import pytest

from nngen.llm.proposals.parsing import Fault, ReplyError, one_block, python_block

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
        ("```python\nx = 1\nThis line explains the code above.\n```", Fault.PROSE, "line 2 of the code is a sentence"),
    ],
)
def test_other_replies_have_a_typed_fault(text: str, fault: Fault, message: str) -> None:
    with pytest.raises(ReplyError, match=message) as caught:
        python_block(text)
    assert caught.value.fault is fault
