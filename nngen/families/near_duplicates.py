"""Families that are almost the same program: their sources differ in a few tokens."""

from __future__ import annotations

import tokenize
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from io import StringIO
from itertools import combinations

from nngen.errors import FamilyError
from nngen.types import Family

__all__ = ["NEAR", "near_twins", "without_near_twins"]

NEAR = 8
"""Most tokens in which near-twins differ. Among LEMUR's 34, two pairs differ in 1, the next in 66."""

_LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def near_twins(families: Iterable[Family]) -> Mapping[str, tuple[str, ...]]:
    """Find each family's near-twins, by name; families without any are left out.

    Comments and layout do not count. A source that is not Python has no twins.
    """
    tokens = {family.name: _tokens(family.source) for family in families}
    found: dict[str, list[str]] = {}
    for one, other in combinations(sorted(tokens), 2):
        if tokens[one] and tokens[other] and _near(tokens[one], tokens[other]):
            found.setdefault(one, []).append(other)
            found.setdefault(other, []).append(one)
    return {name: tuple(others) for name, others in sorted(found.items())}


def without_near_twins(families: Iterable[Family]) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Keep one of each group of near-twins: LEMUR's best, the first by name where it knows none.

    Returns:
        The names that are kept, in the order given, and for each that is left out the one kept in its place.

    Raises:
        FamilyError: If fewer than two families remain.
    """
    given = tuple(families)
    twins = near_twins(given)
    best = {family.name: family.best.accuracy if family.best else 0.0 for family in given}
    instead: dict[str, str] = {}
    for name in sorted(twins, key=lambda name: (-best[name], name)):
        if name not in instead:
            instead |= {other: name for other in twins[name] if other not in instead}
    kept = tuple(family.name for family in given if family.name not in instead)
    if len(kept) < 2:
        raise FamilyError(f"only {', '.join(kept) or 'no family'} is left without near-twins: name more families")
    return kept, instead


def _tokens(source: str) -> list[str]:
    try:
        tokens = list(tokenize.generate_tokens(StringIO(source).readline))
    except (tokenize.TokenError, SyntaxError):
        return []
    return [token.string for token in tokens if token.type not in _LAYOUT]


def _near(one: list[str], other: list[str]) -> bool:
    if abs(len(one) - len(other)) > NEAR:
        return False
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    least = 1 - 2 * NEAR / (len(one) + len(other))
    if matcher.quick_ratio() < least:
        return False
    changed = (max(b - a, d - c) for tag, a, b, c, d in matcher.get_opcodes() if tag != "equal")
    return sum(changed) <= NEAR
