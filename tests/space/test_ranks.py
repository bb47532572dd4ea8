import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nngen.space.permutation import Permutation
from nngen.space.ranks import rank, unrank


@pytest.mark.parametrize(("n", "k"), [(4, 4), (7, 4), (9, 1), (8, 3), (5, 0)])
def test_order_is_that_of_itertools(n, k):
    assert [unrank(i, n, k) for i in range(math.comb(n, k))] == list(combinations(range(n), k))


@given(st.data())
def test_unrank_and_rank_are_inverse_far_beyond_64_bits(data):
    n = data.draw(st.integers(4, 10**40))
    k = data.draw(st.integers(1, 4 if n > 500 else min(n, 120)))
    number = data.draw(st.integers(0, math.comb(n, k) - 1))
    subset = unrank(number, n, k)
    assert len(set(subset)) == k
    assert rank(subset, n) == number


@pytest.mark.parametrize("number", [-1, 35])
def test_a_rank_outside_the_space_is_named(number):
    with pytest.raises(ValueError, match=str(number)):
        unrank(number, 7, 4)


@pytest.mark.parametrize("subset", [(1, 1, 2, 3), (3, 2, 1, 0), (0, 1, 2, 7), (-1, 0, 1, 2)])
def test_only_rising_subsets_have_a_rank(subset):
    with pytest.raises(ValueError, match="strictly rising"):
        rank(subset, 7)


@given(st.integers(1, 600), st.integers(0, 2**32 - 1))
def test_a_permutation_hits_everything_once(size, seed):
    shuffled = Permutation(size, seed)
    assert sorted(shuffled(i) for i in range(size)) == list(range(size))


def test_permutations_differ_by_seed_and_reach_into_huge_ranges():
    size = math.comb(10**30, 4)
    one, two = Permutation(size, 1), Permutation(size, 2)
    assert [one(i) for i in range(5)] != [two(i) for i in range(5)]
    assert max(one(i) for i in range(50)) > size // 2
    with pytest.raises(IndexError, match="outside"):
        one(size)
