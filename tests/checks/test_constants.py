"""Large constants of a source."""

from __future__ import annotations

import ast

import pytest

from nngen.checks.constants import large_constants
from nngen.types import Family

LABELS = ", ".join(str(n % 10) for n in range(360))
WORD = "0123456789" * 36


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (f"x = 1\nT = [{LABELS}]\n", "line 2 holds a table of 360 constants"),
        (f"T = ({LABELS})\n", "line 1 holds a table of 360 constants"),
        (f"T = {{{', '.join(f'{n}: {n}' for n in range(200))}}}\n", "line 1 holds a table of 400 constants"),
        (f"T = [[{LABELS}], [1]]\n", "line 1 holds a table of 361 constants"),
        (f"T = '{WORD}'\n", "line 1 holds a word of 360 characters"),
        (f"T = b'{WORD}'\n", "line 1 holds 360 bytes"),
        (f"T = '{LABELS}'\n", "line 1 holds a text with 360 numbers"),
        (f'"""{LABELS}"""\n', "line 1 holds a text with 360 numbers"),
        (f"T = {WORD.lstrip('0')}\n", "line 1 holds a number of 1,19"),
        (f"x = 1\n# {WORD}\n", "line 2 holds a word of 360 characters, in comments"),
        ("".join(f"# {n % 10}\n" for n in range(300)), "line 1 holds a text with 300 numbers, in comments"),
        ("x = 1\n" * 5_000, "line 1 holds the first of 5,000 constants"),
        (f"a = '{WORD}'\n" * 5, "line 2 holds a word of 360 characters and 3 more"),
    ],
)
def test_tables_in_any_form_are_named_with_their_line(source: str, found: str) -> None:
    assert found in large_constants(source)


def test_what_cannot_be_searched_is_named_as_such() -> None:
    assert large_constants("x = (") == "not searched for large constants: '(' was never closed"
    assert "longer than 200,000 characters" in large_constants("a;" * 150_000)


def test_lemur_s_families_hold_none(families: dict[str, Family]) -> None:
    assert {name: found for name, one in families.items() if (found := large_constants(one.source))} == {}


def test_literals_inside_of_literals_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "x = " + "[" * 80 + "a," * 1_000 + "]" * 80
    size = len(list(ast.walk(ast.parse(source))))
    visited: list[ast.AST] = []
    children = ast.iter_child_nodes
    monkeypatch.setattr(ast, "iter_child_nodes", lambda node: visited.append(node) or children(node))
    assert large_constants(source) == ""
    assert size <= len(visited) <= 4 * size
