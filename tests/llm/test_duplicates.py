"""Duplicates among proposals."""

from __future__ import annotations

from nngen.families.near_duplicates import similarity, tree_shingles
from nngen.llm.proposals.checking import identify
from nngen.llm.proposals.duplicates import Known
from nngen.llm.proposals.log import TwinKind

CODE = "def f(x):\n    total = x.sum()\n    return total / len(x)\n"


def test_renamed_locals_make_no_difference() -> None:
    renamed = CODE.replace("total", "s")
    assert similarity(tree_shingles(CODE), tree_shingles(renamed)) == 1.0
    assert similarity(tree_shingles(CODE), tree_shingles(CODE.replace("sum", "mean"))) < 0.97


def test_exact_canonical_and_near_duplicates() -> None:
    known = Known()
    first = identify(CODE)
    known.add(first, CODE, "parent/gate")
    assert known.twin(first).kind is TwinKind.EXACT
    commented = identify("# a comment\n" + CODE)
    assert commented.id != first.id
    assert known.twin(commented).kind is TwinKind.CANONICAL
    assert known.twin(identify(CODE.replace("total", "s"))).kind is TwinKind.CANONICAL
    close = CODE.replace("def f", "def g")
    assert known.twin(identify(close), close, "parent/gate").kind is TwinKind.NEAR
    assert known.twin(identify(close), close, "parent/loss") is None
    assert known.twin(identify("y = 1"), "y = 1", "parent/gate") is None


def test_two_programs_with_one_lemur_id_clash() -> None:
    known = Known()
    known.add(identify("for i in x:\n    f(i)\ng()\n"))
    other = identify("for i in x:\n    f(i)\n    g()\n")
    assert known.clashes(other)
    assert not known.clashes(identify("z = 1"))
