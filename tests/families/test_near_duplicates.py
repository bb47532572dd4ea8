"""Near-duplicates: those of LEMUR are found, and all users of the module agree on them."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from datasketch import MinHash

from nngen.errors import FamilyError
from nngen.families.near_duplicates import (
    SAME_CODE,
    TWIN_FAMILIES,
    TWIN_MODELS,
    Sketch,
    group_sketches,
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


def test_the_thresholds_are_those_of_the_documentation() -> None:
    assert (TWIN_FAMILIES, SAME_CODE, TWIN_MODELS) == (0.95, 0.97, 0.9)


def runs(tokens: str) -> frozenset[tuple[str, ...]]:
    words = tokens.split()
    return frozenset(tuple(words[place : place + 3]) for place in range(len(words) - 2))


@pytest.mark.parametrize(
    ("code", "tokens"),
    [
        ("x = 1", "Module Assign Name #0 Constant 1"),
        ("b = 'a'\na = b", "Module Assign Name #0 Constant 'a' Assign Name #1 Name #0"),
        ("del y\nlist = z.w", "Module Delete Name y Assign Name list Attribute w Name z"),
        ("f(k=1, **m)", "Module Expr Call Name f keyword k Constant 1 keyword None Name m"),
        ("lambda p: p", "Module Expr Lambda arguments arg p Name p"),
    ],
)
def test_the_shingles_of_a_tree_are_runs_of_its_node_types_and_leaves(code: str, tokens: str) -> None:
    assert tree_shingles(code) == runs(tokens)


def test_short_code_is_one_shingle() -> None:
    assert tree_shingles("") == {("Module",)}
    assert tree_shingles("pass") == {("Module", "Pass")}


def test_no_family_is_no_pool() -> None:
    with pytest.raises(FamilyError, match=r"^only no family is left without near-twins: name more families$"):
        without_near_twins([])


def test_a_family_resembles_the_first_of_a_group_and_not_its_other_members() -> None:
    lines = [f"call_{number}()" for number in range(100)]
    sources = {}
    for name, changed in (("A", 0), ("B", 3), ("C", 6)):
        sources[name] = "\n".join([*lines[changed:], *(f"other_{number}()" for number in range(changed))])
    shingles = {name: tree_shingles(source) for name, source in sources.items()}
    assert similarity(shingles["B"], shingles["C"]) >= 0.94 > similarity(shingles["A"], shingles["C"])
    assert twin_families(sources, threshold=0.94) == {"A": "A", "B": "A", "C": "C"}
    assert twin_families(sources | {"D": sources["C"]}, threshold=0.94)["D"] == "C"


def test_a_sketch_is_the_minhash_of_runs_of_seven_tokens() -> None:
    def minhash(*shingles: str) -> Sketch:
        found = MinHash(num_perm=128, hashfunc=zlib.crc32)
        for shingle in shingles:
            found.update(shingle.encode())
        return found.hashvalues

    cases = {
        "": ("",),
        "a = b1 + c": ("a = b1 + c",),
        "f(x.y)\n1 2": ("f ( x . y ) 1", "( x . y ) 1 2"),
        "a b c d e f g a b c d e f g": tuple("a b c d e f g a b c d e f g"[2 * n : 2 * n + 13] for n in range(7)),
    }
    for text, shingles in cases.items():
        assert np.array_equal(sketch_text(text), minhash(*shingles)), text


def alike(sketch: Sketch, places: int) -> Sketch:
    """Return a sketch that agrees in the first places alone."""
    return np.concatenate([sketch[:places], sketch[places:] ^ sketch.dtype.type(1)])


def test_names_join_the_most_similar_group_from_the_threshold_on() -> None:
    first = sketch_text("the first of all texts that are sketched here")
    assert group_sketches({"b": first, "a": alike(first, 116)}) == (("a", "b"),)
    assert group_sketches({"a": first, "b": alike(first, 115)}) == ()
    assert group_sketches({"a": first, "b": alike(first, 96)}, threshold=0.75) == (("a", "b"),)
    assert group_sketches({"a": first, "b": alike(first, 95)}, threshold=0.75) == ()
    # Of two groups the nearer one; of two as near the first by name.
    other = alike(first, 110)
    between = np.concatenate([first[:120], other[120:]])
    assert group_sketches({"a": first, "b": other, "c": between, "d": alike(other, 120)}) == (("a", "c"), ("b", "d"))
    assert group_sketches({"a": other, "b": first, "c": between}) == (("b", "c"),)
    half = np.concatenate([first[:119], other[119:]])
    assert group_sketches({"a": first, "b": other, "c": half}) == (("a", "c"),)
