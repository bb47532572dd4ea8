"""Names joined in prose."""

from __future__ import annotations

import pytest

from nngen.text import listed


@pytest.mark.parametrize(
    ("names", "limit", "text"),
    [
        ("", None, ""),
        ("A", None, "A"),
        ("AB", None, "A and B"),
        ("ABCD", None, "A, B, C and D"),
        ("ABCD", 4, "A, B, C and D"),
        ("ABCDE", 4, "A, B, C and 2 more"),
    ],
)
def test_names_are_joined_and_a_long_tail_becomes_a_number(names: str, limit: int | None, text: str) -> None:
    assert listed(list(names), limit) == text
