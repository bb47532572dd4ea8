"""Pools of families."""

import math
from itertools import combinations, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nngen.errors import FamilyError
from nngen.space import Pool
from nngen.space.permutation import Permutation


def numbered(n, k=4):
    return Pool.of([f"{number:03d}" for number in range(n)], k)


@pytest.mark.parametrize(("n", "k"), [(4, 4), (7, 4), (9, 1), (8, 3), (5, 5)])
def test_order_is_that_of_itertools(n, k):
    pool = numbered(n, k)
    assert [pool.quartet(i) for i in range(pool.space)] == list(combinations(pool.families, k))


@given(st.data())
def test_quartet_and_rank_are_inverse_far_beyond_64_bits(data):
    n = data.draw(st.integers(4, 500))
    pool = numbered(n, data.draw(st.integers(1, min(n, 120))))
    number = data.draw(st.integers(0, pool.space - 1))
    quartet = pool.quartet(number)
    assert len(set(quartet)) == pool.k
    assert pool.rank(quartet) == number


@pytest.mark.parametrize("number", [-1, 35])
def test_a_rank_outside_the_space_is_named(number):
    with pytest.raises(IndexError, match=str(number)):
        numbered(7).quartet(number)


@pytest.mark.parametrize("quartet", [("001", "001", "002", "003"), ("000", "001", "002", "007")])
def test_only_different_families_of_the_pool_have_a_rank(quartet):
    with pytest.raises(FamilyError, match=r"more than once|not in the pool: 007"):
        numbered(7).rank(quartet)


def test_the_order_of_typing_does_not_change_the_rank():
    assert numbered(7).rank(("003", "002", "001", "000")) == 0


@pytest.mark.long
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


def test_a_lexicographic_prefix_of_fifty_families_needs_no_list_of_the_space():
    pool = numbered(50)
    assert [pool.quartet(i) for i in range(200)] == list(islice(combinations(pool.families, 4), 200))
    assert pool.quartet(pool.space - 1) == pool.families[-4:]
