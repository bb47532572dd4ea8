"""Near-twins: LEMUR's real ones are found, and nothing else is."""

from __future__ import annotations

import pytest

from nngen.errors import FamilyError
from nngen.families.near_duplicates import NEAR, near_twins, without_near_twins
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


@pytest.mark.parametrize(("changed", "twins"), [(NEAR, True), (NEAR + 1, False)])
def test_so_many_tokens_and_no_more(changed: int, twins: bool) -> None:
    words = [f"a{number}" for number in range(40)]
    others = [f"b{place}" if place < changed else word for place, word in enumerate(words)]
    found = near_twins([family("A", "\n".join(words)), family("B", "\n".join(others))])
    assert bool(found) is twins


def test_what_is_no_python_has_no_twin() -> None:
    assert near_twins([family("A", "def f(:\n  '''"), family("B", "def f(:\n  '''")]) == {}


def test_one_kind_alone_is_no_pool() -> None:
    with pytest.raises(FamilyError, match="only A is left without near-twins"):
        without_near_twins([family("A", "x = 1\n"), family("B", "x = 2\n")])
