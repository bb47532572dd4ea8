"""Index of existing candidates, for refusing proposals that repeat one.

A file assembled from a plan is new when its plan is new. Code that a rewriter wrote is compared, within one
region of one parent, by the shingles of its syntax tree.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from nngen.families.near_duplicates import SAME_CODE, Shingles, similarity, tree_shingles
from nngen.llm.proposals.log import TwinKind
from nngen.types import Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """Candidate that another one repeats, by kind and id."""

    kind: TwinKind
    id: str


class Known:
    """Index of candidates, from the canonical hash of each id on; it grows with every new one."""

    def __init__(self, canonicals: Mapping[str, str] | None = None) -> None:
        self._ids = dict(canonicals or {})
        self._canonical: dict[str, str] = {}
        self._written: defaultdict[str, dict[str, Shingles]] = defaultdict(dict)
        for name, canonical in self._ids.items():
            self._canonical.setdefault(canonical, name)

    def twin(self, candidate: Candidate, written: str = "", place: str = "") -> Twin | None:
        """Return the candidate that a new one repeats, if there is one.

        The code that a rewriter wrote is compared with the code of the same place, a parent and a region.
        """
        if candidate.id in self._ids:
            return Twin(kind=TwinKind.EXACT, id=candidate.id)
        if candidate.canonical in self._canonical:
            return Twin(kind=TwinKind.CANONICAL, id=self._canonical[candidate.canonical])
        if not written:
            return None
        mine = tree_shingles(written)
        near = [name for name, other in self._written[place].items() if similarity(mine, other) >= SAME_CODE]
        return Twin(kind=TwinKind.NEAR, id=min(near)) if near else None

    def clashes(self, candidate: Candidate) -> bool:
        """Whether another program has the same id: LEMUR's id ignores indentation."""
        return self._ids.get(candidate.id, candidate.canonical) != candidate.canonical

    def add(self, candidate: Candidate, written: str = "", place: str = "") -> None:
        """Add a candidate to the index."""
        self._ids.setdefault(candidate.id, candidate.canonical)
        self._canonical.setdefault(candidate.canonical, candidate.id)
        if written:
            self.add_code(candidate.id, written, place)

    def add_code(self, name: str, written: str, place: str = "") -> None:
        """Add a piece of code under a candidate's id."""
        if name not in self._written[place]:
            # The log cuts long code: a part that does not parse resembles no other.
            with contextlib.suppress(SyntaxError, RecursionError):
                self._written[place][name] = tree_shingles(written)
