"""Parsing of replies."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest

from nngen.llm.proposals.parsing import Fault, ReplyError, one_object, python_block, well_formed, without_thoughts

GOOD = "```python\nx = 1\n```"


DRESSES = {
    "prose": f"Sure.\n\n{GOOD}\nDone.",
    "prose-without-blank-lines": f"Sure.\n{GOOD}\nDone.",
    "short-name": "```py\nx = 1\n```",
    "no-name": "```\nx = 1\n```",
    "title": "``` {.python title='a.py'}\nx = 1\n```",
    "tildes": "~~~python\nx = 1\n~~~",
    "four-ticks": "````python\nx = 1\n````",
    "quotation": "> Sure.\n>\n> ```python\n> x = 1\n> ```",
    "list": "1. Change it:\n\n   ```python\n   x = 1\n   ```\n2. Train it.",
    "deep-list": "- so\n  - that\n      ```python\n      x = 1\n      ```",
    "indented-fence": "Sure:\n    ```python\n    x = 1\n    ```",
    "indented-code": "Sure:\n\n    x = 1\n\nDone.",
    "line-ends-of-windows": "Sure.\r\n```python\r\nx = 1\r\n```\r\n",
    "details": "<details>\n```python\nx = 1\n```\n</details>",
    "command-beside-it": f"{GOOD}\nRun it:\n```bash\npython a.py\n```",
    "twice": f"{GOOD}\nAgain:\n{GOOD}",
    "thoughts": f"<think>\nMaybe ```python\nx = 2\n```?\n</think>\n{GOOD}",
    "thoughts-opened-by-the-template": f"Maybe x = 2?\n</think>\n{GOOD}",
    "thoughts-afterwards": f"{GOOD}\n<thinking>was that right?</thinking>",
    "thoughts-of-mistral": f"[THINK]Maybe.[/THINK]{GOOD}",
    "channels": f"<|channel|>analysis<|message|>x = 2?<|end|><|start|>assistant<|channel|>final<|message|>{GOOD}",
}


@pytest.mark.parametrize("text", [GOOD, *DRESSES.values()], ids=["plain", *DRESSES])
def test_the_code_of_a_reply_is_found_in_every_dress(text: str) -> None:
    assert python_block(text).strip() == "x = 1"


def test_the_code_keeps_its_bytes() -> None:
    code = 'def f():\n    """\n    ```\n    a\tb\n    ```\n    """\n\n    return "# > - 1."\n'
    assert python_block(f"So:\n````python\n{code}````\n") == code
    assert python_block(code) == code


def test_code_alone_needs_no_fence() -> None:
    assert python_block("x = 1") == "x = 1"


@pytest.mark.parametrize(
    ("text", "fault", "message"),
    [
        (f"{GOOD}\n```python\nx = 2\n```", Fault.SEVERAL_BLOCKS, "2 came"),
        ("<think>\nMaybe x = 1, or", Fault.CUT, "ends inside its reasoning: raise --max-reply-tokens"),
        ("Sure.\n\n    It does not\n    parse\n", Fault.NO_BLOCK, "no code block"),
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


@pytest.mark.long
@pytest.mark.parametrize(
    "text",
    ["```python\n" * 18_000, "```\n" * 49_999, "```\nA" + "'" * 150_000 + "!\n```", "`" * 199_999, " " * 199_999 + "`"],
    ids=["blocks-never-closed", "empty-blocks", "quotes", "ticks", "spaces"],
)
def test_long_replies_are_read_in_linear_time(text: str) -> None:
    with pytest.raises(ReplyError):
        python_block(text)
    assert is_linear(python_block, text)


def is_linear(read: Callable[[str], object], text: str) -> bool:
    """Return whether a text is read in two seconds, or in not much more than twice the time of its half.

    A busy machine disturbs one measurement; none of several is linear where reading takes quadratic time.
    """

    def seconds(part: str) -> float:
        began = time.process_time()
        with contextlib.suppress(ReplyError):
            read(part)
        return time.process_time() - began

    return any((whole := seconds(text)) < 2.0 or whole < 3 * seconds(text[: len(text) // 2]) for _ in range(5))


def test_messages_are_one_bounded_line() -> None:
    assert str(ReplyError(Fault.FAMILY, "no\x1b[31m\nfamily" + "x" * 5000)).startswith("no family")
    assert len(str(ReplyError(Fault.FAMILY, "x" * 5000))) <= 300


def test_lone_surrogates_are_replaced() -> None:
    assert well_formed("a\ud800b") == "a\ufffdb"
    assert well_formed("a\U0001f600b") == "a\U0001f600b"


def test_thoughts_are_cut_out() -> None:
    assert without_thoughts("<think>a</think> b <THINK>c</THINK> d") == " b  d"
    assert without_thoughts("a </think> b") == " b"
    assert without_thoughts("a < think") == "a < think"


@pytest.mark.parametrize("text", ["<think>" * 20_000, "</think>" * 20_000, "<think></think>" * 10_000])
def test_thoughts_are_cut_out_in_linear_time(text: str) -> None:
    with pytest.raises(ReplyError):
        python_block(text)
    assert is_linear(python_block, text)


@pytest.mark.long
@pytest.mark.parametrize(
    "text",
    [
        '{"a":' * 30_000,
        '{"a":[1,' * 20_000,
        '{"a":1,"b":{' * 15_000,
        "{" * 190_000,
        '{"' * 90_000,
        '{"a":{}}' * 20_000,
        "> " * 90_000,
        "- " * 90_000,
        "> a\n" * 40_000,
        "- a\n" * 40_000,
        "    a\n\n" * 25_000,
    ],
    ids=["objects", "lists", "both", "braces", "strings", "whole", "quotes", "items", "quoted", "listed", "indented"],
)
def test_an_object_is_looked_for_in_linear_time(text: str) -> None:
    assert is_linear(lambda part: one_object(part, "experts", "gate.width", "gate"), text)
    assert is_linear(python_block, text)
