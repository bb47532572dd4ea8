"""What is held already: exact and canonical twins of a candidate, and code that is nearly the same.

A file made from a plan is new when its plan is. Code that a rewriter wrote is compared on what it
wrote: token shingles with its local names numbered in order, so that a renamed variable is no
news. MinHash (datasketch) finds who to compare with, the exact Jaccard similarity decides.
"""

from __future__ import annotations

import ast
import builtins
import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nngen.archive import StoredCandidate
from nngen.llm.optional_imports import load
from nngen.types import Candidate

__all__ = ["NEAR", "Known", "Twin", "TwinKind", "shingles", "similarity"]

NEAR = 0.97
"""Jaccard similarity from which two pieces of code count as the same."""

_LENGTH = 3
_PERMUTATIONS = 128


class TwinKind(enum.StrEnum):
    """In which way a candidate is held already."""

    EXACT = "exact"
    CANONICAL = "canonical"
    NEAR = "near"


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """The candidate that another one repeats."""

    kind: TwinKind
    id: str


class Known:
    """An index of candidates; add each new one as it comes."""

    def __init__(self, candidates: Iterable[StoredCandidate] = ()) -> None:
        self._ids: dict[str, str] = {}
        self._canonical: dict[str, str] = {}
        self._pieces: dict[str, frozenset[tuple[str, ...]]] = {}
        self._index: Any = None
        for candidate in candidates:
            self._ids[candidate.id] = candidate.canonical
            self._canonical.setdefault(candidate.canonical, candidate.id)

    def twin(self, candidate: Candidate, written: str = "", place: str = "") -> Twin | None:
        """Find what a candidate repeats.

        Args:
            candidate: The new one.
            written: The code in it that a rewriter wrote; empty for an assembled plan.
            place: Where it was written (parent and region): only code of one place is compared.
        """
        if candidate.id in self._ids:
            return Twin(kind=TwinKind.EXACT, id=candidate.id)
        if candidate.canonical in self._canonical:
            return Twin(kind=TwinKind.CANONICAL, id=self._canonical[candidate.canonical])
        near = self._near(written, place) if written else None
        return Twin(kind=TwinKind.NEAR, id=near) if near else None

    def clashes(self, candidate: Candidate) -> bool:
        """Whether its id is taken by another program (LEMUR's id does not see indentation)."""
        return self._ids.get(candidate.id, candidate.canonical) != candidate.canonical

    def add(self, candidate: Candidate, written: str = "", place: str = "") -> None:
        """Hold a candidate from now on."""
        self._ids.setdefault(candidate.id, candidate.canonical)
        self._canonical.setdefault(candidate.canonical, candidate.id)
        if written:
            self.add_code(candidate.id, written, place)

    def add_code(self, name: str, written: str, place: str = "") -> None:
        """Hold a piece of code under a candidate's id."""
        key = f"{place}\n{name}"
        if key not in self._pieces:
            self._pieces[key] = shingles(written)
            self._lsh().insert(key, _minhash(self._pieces[key]))

    def _near(self, written: str, place: str) -> str | None:
        mine = shingles(written)
        for key in sorted(self._lsh().query(_minhash(mine))):
            where, _, name = key.rpartition("\n")
            if where == place and similarity(mine, self._pieces[key]) >= NEAR:
                return str(name)
        return None

    def _lsh(self) -> Any:
        if self._index is None:
            self._index = load("datasketch").MinHashLSH(threshold=0.8, num_perm=_PERMUTATIONS)
        return self._index


def shingles(code: str) -> frozenset[tuple[str, ...]]:
    """Cut code that parses into overlapping runs of three tokens, its own names numbered in order."""
    tokens = _tokens(ast.parse(code))
    return frozenset(tuple(tokens[start : start + _LENGTH]) for start in range(max(len(tokens) - _LENGTH + 1, 1)))


def similarity(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> float:
    """Jaccard similarity of two sets, in [0, 1]."""
    return len(one & other) / max(len(one | other), 1)


def _tokens(tree: ast.AST) -> list[str]:
    """Write a tree as its node types and leaves; names that it binds itself become numbers."""
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    numbers: dict[str, str] = {}
    tokens: list[str] = []

    def visit(node: ast.AST) -> None:
        tokens.append(type(node).__name__)
        if isinstance(node, ast.Name):
            local = node.id in bound and not hasattr(builtins, node.id)
            tokens.append(numbers.setdefault(node.id, f"#{len(numbers)}") if local else node.id)
        elif isinstance(node, ast.Constant):
            tokens.append(repr(node.value))
        elif isinstance(node, ast.Attribute):
            tokens.append(node.attr)
        elif isinstance(node, ast.keyword | ast.arg):
            tokens.append(str(node.arg))
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.Load | ast.Store | ast.Del):
                visit(child)

    visit(tree)
    return tokens


def _minhash(pieces: Iterable[tuple[str, ...]]) -> Any:
    sketch = load("datasketch").MinHash(num_perm=_PERMUTATIONS)
    sketch.update_batch([" ".join(piece).encode() for piece in sorted(pieces)])
    return sketch
