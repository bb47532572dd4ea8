"""Breaks long lines: only white space inside brackets, and comments, are changed."""

from __future__ import annotations

import io
import textwrap
import tokenize
from collections.abc import Iterator
from itertools import pairwise

__all__ = ["wrap_lines"]

_WIDTH = 120
_PASSES = 6
_OPEN, _CLOSE = "([{", ")]}"


def wrap_lines(source: str) -> str:
    """Break lines longer than 120 characters where they have brackets or are comments; the tree stays the same."""
    for _ in range(_PASSES):
        lines = source.splitlines()
        if max(map(len, lines), default=0) <= _WIDTH:
            break
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
        whole = {number for token in tokens if token.start[0] != token.end[0] for number in _rows(token)}
        by_line: dict[int, list[tokenize.TokenInfo]] = {}
        inside: set[int] = set()  # lines that begin inside of a bracket
        depth = 0
        for token in tokens:
            if depth and token.start[0] not in by_line:
                inside.add(token.start[0])
            by_line.setdefault(token.start[0], []).append(token)
            if token.type == tokenize.OP:
                depth += (token.string in _OPEN) - (token.string in _CLOSE)
        new = [
            piece
            for number, line in enumerate(lines, 1)
            for piece in (
                [line]
                if len(line) <= _WIDTH or number in whole  # part of a string that spans lines
                else _break(line, by_line.get(number, []), inside=number in inside)
            )
        ]
        if new == lines:
            break
        source = "\n".join(new) + "\n"
    return source


def _rows(token: tokenize.TokenInfo) -> range:
    return range(token.start[0], token.end[0] + 1)


def _break(line: str, tokens: list[tokenize.TokenInfo], *, inside: bool) -> list[str]:
    indent = line[: len(line) - len(line.lstrip())]
    if tokens and tokens[-1].type == tokenize.NL:
        tokens = tokens[:-1]
    comment = next((token for token in tokens if token.type == tokenize.COMMENT), None)
    if comment is not None:
        text = textwrap.wrap(comment.string.lstrip("# "), _WIDTH - len(indent) - 2) or [""]
        code = line[: comment.start[1]].rstrip()
        return [*(f"{indent}# {part}" for part in text), *([code] if code else [])]
    if inside and (commas := _own_commas(tokens, len(line.rstrip()) - 1)):
        cuts = [0, *(comma + 1 for comma in commas), len(line)]
        return [f"{indent}{line[start:end].strip()}" for start, end in pairwise(cuts)]
    pairs = list(_pairs(tokens))
    if not pairs:
        return [line]
    # Calls before subscripts; the longest, and of equal ones the first.
    first, last, commas = max(pairs, key=lambda pair: (line[pair[0]] != "[", pair[1] - pair[0], -pair[0]))
    cuts = [first + 1, *(comma + 1 for comma in commas), last]
    items = [line[start:end].strip() for start, end in pairwise(cuts)]
    if not any(items):
        return [line]
    inner = [f"{indent}    {item}" for item in items if item]
    return [line[: first + 1], *inner, indent + line[last:]]


def _own_commas(tokens: list[tokenize.TokenInfo], end: int) -> list[int]:
    """Columns of the commas of the bracket that was open before the line; none where the line closes it."""
    depth, commas = 0, []
    for token in tokens:
        if token.type != tokenize.OP:
            continue
        depth += (token.string in _OPEN) - (token.string in _CLOSE)
        if depth < 0:
            return []
        if token.string == "," and depth == 0 and token.start[1] < end:
            commas.append(token.start[1])
    return commas


def _pairs(tokens: list[tokenize.TokenInfo]) -> Iterator[tuple[int, int, list[int]]]:
    """Yield the brackets that open and close on the line: their columns, and those of the commas between them."""
    stack: list[tuple[int, list[int]]] = []
    for token in tokens:
        if token.type != tokenize.OP:
            continue
        if token.string in _OPEN:
            stack.append((token.start[1], []))
        elif token.string in _CLOSE and stack:
            first, commas = stack.pop()
            yield first, token.start[1], commas
        elif token.string == "," and stack:
            stack[-1][1].append(token.start[1])
