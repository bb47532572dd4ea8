"""Exact designs."""

from collections import Counter
from itertools import combinations

import pytest

from nngen.space.designs import STARTERS, STEINER, opening

KEPT = sorted([*STARTERS, *STEINER, 29])


def milestones(v):
    """List the exact designs in an order of v families, as (quartets, t, m).

    After that many quartets every t families were together exactly m times.
    """
    if v == 29:
        return ((203, 2, 3), (609, 2, 9), (1015, 2, 15), (1421, 2, 21), (1827, 3, 2))
    size = len(opening(v))
    return ((size, 2, size * 12 // (v * (v - 1))),) if size else ()


def counts(quartets, v, t):
    seen = Counter(part for quartet in quartets for part in combinations(quartet, t))
    return {seen[part] for part in combinations(range(v), t)}


@pytest.mark.parametrize("v", KEPT)
def test_every_milestone_is_an_exact_design_of_different_quartets(v):
    quartets = opening(v)
    assert len(set(quartets)) == len(quartets) == milestones(v)[-1][0]
    assert all(len(set(q)) == 4 and list(q) == sorted(q) and q[0] >= 0 and q[3] < v for q in quartets)
    for size, t, times in milestones(v):
        assert counts(quartets[:size], v, t) == {times}


@pytest.mark.parametrize("v", sorted([*STARTERS, *STEINER]))
def test_divisible_by_four_falls_into_classes_that_use_every_family_once(v):
    quartets = opening(v)
    for start in range(0, len(quartets), v // 4):
        assert counts(quartets[start : start + v // 4], v, 1) == {1}


def test_twenty_nine_opens_with_the_published_orbit():
    blocks = {tuple(sorted((2**i * x + s) % 29 for x in (1, 12, 17, 28))) for i in range(7) for s in range(29)}
    assert set(opening(29)[:203]) == blocks
    assert counts(opening(29)[:203], 29, 3) == {0, 1}


def test_twenty_nine_uses_families_within_one_of_each_other():
    used = [0] * 29
    for quartet in opening(29):
        for family in quartet:
            used[family] += 1
        assert max(used) - min(used) <= 1


def test_other_numbers_have_no_opening():
    assert opening(34) == () == milestones(34)


def test_sizes_are_the_smallest_that_counting_allows():
    for v in KEPT:
        size, _, times = milestones(v)[0]
        smaller = [m for m in range(1, times) if m * (v - 1) % 3 == 0 and m * v * (v - 1) % 12 == 0]
        assert not smaller
        assert size == times * v * (v - 1) // 12
