"""Large constants of a source: tables that no network needs, and that may hold the answers to a data set."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator

from nngen.text import listed, parse_python

MOST_ITEMS = 256
"""Numbers and texts in one literal, in all of the comments, or numbers in one text."""

MOST_DIGITS = 256
"""Characters of a number, or of a text without white space."""

MOST_CONSTANTS = 4_000
"""Constants of a whole source."""

_WORD = re.compile(rf"\S{{{MOST_DIGITS + 1},}}")
_NUMBER = re.compile(r"\d+")
_SHOWN = 3


def large_constants(source: str) -> str:
    """Describe the constants that are too large for the settings of a network, in one line.

    Returns:
        The lines with what was found there, or the reason why a source was not looked through; empty where nothing
        was found.
    """
    try:
        tree = parse_python(source)
        found = sorted({*_literals(tree), *_comments(source)})
    except (SyntaxError, tokenize.TokenError, RecursionError) as error:
        return f"not searched for large constants: {getattr(error, 'msg', None) or 'it cannot be parsed'}"
    return listed([f"line {line} holds {what}" for line, what in found], _SHOWN)


def _literals(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and size of each large literal, the outermost only, and of all constants if they are many."""
    items: dict[int, int] = {}
    # Counted from the leaves up, so that literals inside of literals are not counted again and again.
    for node in reversed(list(ast.walk(tree))):
        inside = sum(items[id(child)] for child in ast.iter_child_nodes(node))
        items[id(node)] = inside + isinstance(node, ast.Constant)
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict) and items[id(node)] > MOST_ITEMS:
            yield node.lineno, f"a table of {items[id(node)]:,} constants"
            continue
        if isinstance(node, ast.Constant) and (what := _large(node.value)):
            yield node.lineno, what
        waiting += ast.iter_child_nodes(node)
    if items[id(tree)] > MOST_CONSTANTS:
        yield 1, f"the first of {items[id(tree)]:,} constants"


def _large(value: object) -> str:
    """Describe a constant if it is large; a docstring is prose unless it holds many numbers or an endless word."""
    match value:
        case bytes() if len(value) > MOST_DIGITS:
            return f"{len(value):,} bytes"
        case str() if word := _WORD.search(value):
            return f"a word of {len(word.group()):,} characters"
        case str() if (numbers := len(_NUMBER.findall(value))) > MOST_ITEMS:
            return f"a text with {numbers:,} numbers"
        case int() if value.bit_length() > 4 * MOST_DIGITS:
            return f"a number of {value.bit_length():,} bits"
    return ""


def _comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield where comments begin that hold as much as a table: a candidate can read its own file."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
    if what := _large("\n".join(lines.values())):
        yield min(lines), f"{what}, in comments"
