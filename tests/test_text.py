"""Names joined in prose, and foreign text made safe to show."""

from __future__ import annotations

import pytest

from nngen.text import clean, listed, one_line, public_name


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


FOREIGN = [
    ("\x1b[31mred\x1b[0m", "red"),
    ("a\x1b]0;title\x07b", "ab"),
    ("bell\x07 c1\x9b31m", "bell  c1 31m"),
    ("abc\u202etxt.exe", "abc txt.exe"),
    ("lone\ud800surrogate", "lone surrogate"),
    ("two\nlines\tand a tab", "two lines and a tab"),
    ("ZürichWidé 日本", "ZürichWidé 日本"),
]


@pytest.mark.parametrize(("text", "shown"), FOREIGN)
def test_foreign_text_is_shown_without_control_characters(text: str, shown: str) -> None:
    assert clean(text) == shown
    assert one_line(text) == " ".join(shown.split())
    shown.encode()


def test_clean_text_is_bounded_and_may_keep_its_lines() -> None:
    assert clean("x" * 10**6, 20) == "x" * 19 + "…"
    assert len(clean("\x1b[31m" * 10**6 + "x", 20)) <= 20
    assert clean("a\n\tb\x1b[1mc", None, lines=True) == "a\n\tbc"


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("digits", "digits"),
        ("folder:/home/me/my photos", "my-photos"),
        ("table:/srv/tables/moe4.json", "moe4.json"),
        ("csv:C:/x.csv", "x.csv"),
        ("folder:/", "images"),
    ],
)
def test_public_names_hold_no_folder_of_this_machine(dataset, name):
    assert public_name(dataset) == name
