"""Changes of files as unified diffs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nngen.llm.proposals.deltas import apply_delta, write_delta
from nngen.llm.proposals.parsing import Fault, ReplyError, diff_block

FILE = "import torch\n\n\ndef one():\n    x = 1\n    return x\n\n\ndef two():\n    x = 1\n    return x\n"
_LINES = st.lists(st.sampled_from(["", "x = 1", "    y = 2", "z\x0c = '\u2028'", "def f():"]), max_size=30)


@given(_LINES, _LINES)
def test_what_is_written_leads_to_the_other_file(before: list[str], after: list[str]) -> None:
    one, other = "a = 0\n" + "\n".join(before) + "\n", "a = 0\n" + "\n".join(after) + "\n"
    delta = write_delta(one, other)
    assert (apply_delta(one, delta) if delta else one) == other


@pytest.mark.parametrize(
    "delta",
    [
        "@@ -4,3 +4,3 @@\n def one():\n-    x = 1\n+    x = 2\n     return x",
        "--- a/file.py\n+++ b/file.py\n@@ -400,3 +400,3 @@\n def one():\n-    x = 1\n+    x = 2\n     return x\n",
        "diff --git a b\nindex 1..2\n@@ @@\n\n\n def one():\n-    x = 1   \n+    x = 2\n",
        "\n def one():\n-    x = 1\n+    x = 2\n\\ No newline at end of file",
    ],
)
def test_heads_blanks_and_numbers_do_not_matter_where_the_context_is_clear(delta: str) -> None:
    assert apply_delta(FILE, delta) == FILE.replace("x = 1", "x = 2", 1)


def test_a_number_chooses_between_places() -> None:
    hunk = "-    x = 1\n+    x = 2\n     return x"
    assert apply_delta(FILE, f"@@ -5,2 +5,2 @@\n{hunk}") == FILE.replace("x = 1", "x = 2", 1)
    assert apply_delta(FILE, f"@@ -9 @@\n{hunk}").count("x = 1") == 1
    with pytest.raises(ReplyError, match="fits the file at 2 places: write more lines around it"):
        apply_delta(FILE, hunk)


@pytest.mark.parametrize(
    ("delta", "message"),
    [
        ("@@ -1 @@\n def three():\n-    x = 1\n+    x = 2", "does not fit the file at the line 'def three"),
        ("@@ -1 @@\n def one():\n-    return x\n", "does not fit the file at the line"),
        ("@@ -1 @@\n+x = 3\n", "no line of the file around it"),
        ("@@ -1 @@\nimport torch\n-x", "begins with a blank, [+] or -, not 'import torch'"),
        ("", "changes nothing"),
        ("--- a\n+++ b\n", "changes nothing"),
    ],
)
def test_changes_that_do_not_fit_have_a_fault(delta: str, message: str) -> None:
    with pytest.raises(ReplyError, match=message) as caught:
        apply_delta(FILE, delta)
    assert caught.value.fault is Fault.CONTEXT


def test_the_diff_of_a_reply_is_found() -> None:
    delta = "@@ -1 @@\n-x\n+y\n"
    assert diff_block(f"<think>hm</think>Here:\n```diff\n{delta}```\nDone.") == delta
    assert diff_block(delta) == delta
    assert diff_block("```python\nx = 1\n```") is None
    with pytest.raises(ReplyError, match="never closes"):
        diff_block(f"```diff\n{delta}")
    with pytest.raises(ReplyError, match="2 came"):
        diff_block(f"```diff\n{delta}```\n```patch\n@@\n-a\n+b\n```")
