"""Near-duplicate sources among families, imported models and proposed code.

There is one measure, the Jaccard similarity of two sets of token shingles (Broder 1997), exact or estimated by MinHash;
each use names its threshold.
"""

from __future__ import annotations

import ast
import builtins
import re
import zlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from nngen.errors import FamilyError
from nngen.text import MAX_PARSED, parse_python
from nngen.types import Family

Shingles = frozenset[tuple[str, ...]]
"""The overlapping runs of tokens of one source."""

Sketch = npt.NDArray[np.uint64]
"""MinHash values of one source, ``(128,)``: equal in about as many places as two sources share shingles."""

TWIN_FAMILIES = 0.95
"""Similarity of their trees from which two families count as one: LEMUR's two pairs have 0.99, the next pair 0.92."""

SAME_CODE = 0.97
"""Similarity of their trees from which two pieces of code count as the same."""

TWIN_MODELS = 0.9
"""Estimated similarity of their texts from which two models of a LEMUR database are near-twins."""

_TREE_LENGTH = 3
# Seven tokens per shingle and 128 permutations are those of nn-dataset 2.2.11's own similarity table.
_TEXT_LENGTH = 7
_PERMUTATIONS = 128
_TOKEN = re.compile(r"\w+|[^\w\s]")


def similarity(one: Shingles, other: Shingles) -> float:
    """Return the Jaccard similarity of two sets, in [0, 1]."""
    return len(one & other) / max(len(one | other), 1)


def tree_shingles(code: str) -> Shingles:
    """Cut the syntax tree of ``code`` into runs of three tokens; local names are numbered in order of appearance.

    Renamed variables, comments and layout make no difference.

    Raises:
        SyntaxError: If the code does not parse.
    """
    tokens = _tree_tokens(parse_python(code))
    return frozenset(_runs(tokens, _TREE_LENGTH))


def twin_families(sources: Mapping[str, str], *, threshold: float = TWIN_FAMILIES) -> dict[str, str]:
    """Map each family to the first, by name, of the families that are nearly the same.

    Args:
        sources: Python source by family; one that does not parse resembles no other.
        threshold: Similarity to the first of a group from which a family belongs to it.
    """
    first: dict[str, Shingles] = {}
    leader: dict[str, str] = {}
    for name, source in sorted(sources.items()):
        try:
            shingles = tree_shingles(source)
        except (SyntaxError, RecursionError):
            leader[name] = name
            continue
        leader[name] = next((other for other in first if similarity(shingles, first[other]) >= threshold), name)
        first.setdefault(leader[name], shingles)
    return leader


def near_twins(families: Iterable[Family]) -> dict[str, tuple[str, ...]]:
    """Map each family that has near-twins to their names, both sorted."""
    leader = twin_families({family.name: family.source for family in families})
    others = {
        name: tuple(twin for twin in sorted(leader) if twin != name and leader[twin] == leader[name])
        for name in sorted(leader)
    }
    return {name: twins for name, twins in others.items() if twins}


def without_near_twins(families: Iterable[Family]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Keep one of each group of near-twins: the one with LEMUR's best accuracy, the first by name among equals.

    Returns:
        The names that are kept, in the order given, and for each that is left out the one kept in its place.

    Raises:
        FamilyError: If fewer than two families remain.
    """
    given = tuple(families)
    best = {family.name: family.best.accuracy if family.best else 0.0 for family in given}
    instead: dict[str, str] = {}
    for name, others in near_twins(given).items():
        keeper = min((name, *others), key=lambda twin: (-best[twin], twin))
        if name != keeper:
            instead[name] = keeper
    kept = tuple(family.name for family in given if family.name not in instead)
    if len(kept) < 2:
        raise FamilyError(f"only {', '.join(kept) or 'no family'} is left without near-twins: name more families")
    return kept, instead


def sketch_text(source: str) -> Sketch:
    """Compute the MinHash of a text, which need not parse; of one longer than ``MAX_PARSED``, of its beginning."""
    sketch = _empty_minhash().copy()
    # Every different run takes a kilobyte in the batch: 4 MB of text would take gigabytes.
    runs = _runs(_TOKEN.findall(source[:MAX_PARSED]), _TEXT_LENGTH)
    sketch.update_batch(sorted({" ".join(run).encode() for run in runs}))
    values: Sketch = sketch.hashvalues
    return values


def group_sketches(sketches: Mapping[str, Sketch], *, threshold: float = TWIN_MODELS) -> tuple[tuple[str, ...], ...]:
    """Group names whose estimated similarity to the first of the group is at least ``threshold``.

    A name joins the most similar of the groups begun by earlier names. Comparing all with all would take hours where
    thousands resemble each other.

    Returns:
        Groups of two or more names; each group sorted.
    """
    from datasketch import MinHashLSH

    index = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS)
    groups: dict[str, list[str]] = {}
    for name in sorted(sketches):
        sketch = _empty_minhash().copy()
        sketch.hashvalues = sketches[name]
        # The index only proposes; the share of equal values is the estimate that decides.
        alike = {first: float(np.mean(sketches[first] == sketches[name])) for first in sorted(index.query(sketch))}
        best = max(alike, key=lambda first: alike[first], default=None)
        if best is not None and alike[best] >= threshold:
            groups[best].append(name)
        else:
            index.insert(name, sketch)
            groups[name] = [name]
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _runs(tokens: list[str], length: int) -> Iterable[tuple[str, ...]]:
    return (tuple(tokens[start : start + length]) for start in range(max(len(tokens) - length + 1, 1)))


def _tree_tokens(tree: ast.AST) -> list[str]:
    """Write a tree as its node types and leaves; names that it binds itself become numbers."""
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    numbers: dict[str, str] = {}  # in order of appearance, so that renamed variables give the same tokens
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


@lru_cache(maxsize=1)
def _empty_minhash() -> Any:
    """Return an empty MinHash: its permutations are drawn once and shared by all copies."""
    from datasketch import MinHash

    return MinHash(num_perm=_PERMUTATIONS, hashfunc=zlib.crc32)
