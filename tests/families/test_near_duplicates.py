"""Near-duplicates: those of LEMUR are found, and all users of the module agree on them."""

from __future__ import annotations

import pytest

from nngen.errors import FamilyError
from nngen.families.near_duplicates import (
    TWIN_FAMILIES,
    near_twins,
    similarity,
    sketch_text,
    tree_shingles,
    twin_families,
    without_near_twins,
)
from nngen.text import MAX_PARSED
from nngen.types import Family


def family(name: str, source: str) -> Family:
    return Family(name=name, source=source, fingerprint="0" * 64, best=None)


def test_the_near_twins_of_lemur(families: dict[str, Family]) -> None:
    assert near_twins(families.values()) == {
        "InceptionV3-1": ("InceptionV3-2",),
        "InceptionV3-2": ("InceptionV3-1",),
        "SqueezeNet-1": ("SqueezeNet-2",),
        "SqueezeNet-2": ("SqueezeNet-1",),
    }


def test_the_better_one_is_kept(families: dict[str, Family]) -> None:
    kept, instead = without_near_twins(families.values())
    assert len(kept) == len(families) - 2
    assert set(instead) | set(kept) == set(families)
    for out, other in instead.items():
        worse, better = families[out].best, families[other].best
        assert worse is not None and better is not None
        assert other in kept
        assert worse.accuracy <= better.accuracy


def test_layout_and_comments_do_not_count() -> None:
    one = family("A", "x = 1  # one\ny = [1, 2]\n")
    other = family("B", "x = 1\n\n\ny = [\n    1, 2\n]\n")
    assert near_twins([one, other]) == {"A": ("B",), "B": ("A",)}


def test_the_threshold_is_a_similarity_of_shingles() -> None:
    calls = [f"call_{number}()" for number in range(100)]
    # Each name is in 3 of about 300 shingles, so that 3 other names leave just over 0.95 in common.
    for changed, twins in ((1, True), (3, True), (9, False)):
        others = [*calls[:-changed], *(f"other_{number}()" for number in range(changed))]
        one, other = "\n".join(calls), "\n".join(others)
        assert bool(near_twins([family("A", one), family("B", other)])) is twins
        share = similarity(tree_shingles(one), tree_shingles(other))
        assert (share >= TWIN_FAMILIES) is twins
        assert twin_families({"A": one, "B": other}, threshold=share)["B"] == "A"


def test_the_pool_and_the_split_agree_on_twins(families: dict[str, Family]) -> None:
    """``--without-near-twins`` leaves out those families that the leak-free split counts as one."""
    leader = twin_families({name: family.source for name, family in families.items()})
    kept, instead = without_near_twins(families.values())
    assert {frozenset(pair) for pair in instead.items()} == {
        frozenset(pair) for pair in leader.items() if pair[0] != pair[1]
    }
    assert len(kept) == len(set(leader.values()))


def test_invalid_python_has_no_twin() -> None:
    assert near_twins([family("A", "def f(:\n  '''"), family("B", "def f(:\n  '''")]) == {}


def test_one_kind_alone_is_no_pool() -> None:
    with pytest.raises(FamilyError, match="only A is left without near-twins"):
        without_near_twins([family("A", "x = 1\n"), family("B", "x = 1  # B\n")])


def test_a_text_of_any_length_is_sketched_by_its_beginning() -> None:
    begin = " ".join(f"a{n} = {n}" for n in range(20_000))[:MAX_PARSED]
    assert (sketch_text(begin + " b = 1" * 600_000) == sketch_text(begin)).all()
