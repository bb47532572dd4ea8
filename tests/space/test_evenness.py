"""Counts of families, pairs and triples."""

import json
import math
import time
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, hypergeom
from scipy.stats import entropy as shannon

from nngen.space import coverage, draw
from nngen.space.evenness import entropy, evenness, gini

POOL = [f"F{number:02d}" for number in range(29)]


def test_known_values():
    assert entropy([5, 5, 5, 5]) == pytest.approx(1)
    assert entropy([4, 0]) == 0
    assert gini([5, 5, 5]) == pytest.approx(0)
    assert gini([0, 0, 0, 1]) == pytest.approx(0.75)
    assert entropy([0, 0]) is None is gini([0, 0])


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=50).filter(any))
def test_ranges_and_the_definition_of_gini(counts):
    mean = sum(counts) / len(counts)
    by_definition = sum(abs(a - b) for a in counts for b in counts) / (2 * len(counts) ** 2 * mean)
    assert gini(counts) == pytest.approx(by_definition, abs=1e-9)
    assert 0 <= entropy(counts) <= 1


def test_chi_square_of_random_samples_follows_its_distribution():
    values = [evenness(coverage(POOL[:10], draw("random", POOL[:10], 80, seed))) for seed in range(200)]
    assert np.mean([value.chi_square for value in values]) == pytest.approx(9, abs=1)
    assert 0.01 <= np.mean([value.p < 0.05 for value in values]) <= 0.1


def test_the_published_sample_is_uneven_and_the_stratified_one_more_even_than_chance():
    published = evenness(coverage(POOL, draw("lexicographic", POOL, 1140, 0)))
    cured = evenness(coverage(POOL, draw("stratified", POOL, 1140, 0)))
    assert published.p < 1e-100
    assert published.family_gini > 0.2 > 0.01 > cured.family_gini
    assert cured.p > 0.999
    assert cured.family_entropy > published.family_entropy


def test_expected_ranges_hold_95_of_100_counts():
    audit = coverage(POOL, draw("random", POOL, 1021, 4))
    low, high = evenness(audit).pair_expected
    assert np.mean([low <= count <= high for count in audit.pairs.values()]) == pytest.approx(0.95, abs=0.04)


def test_nothing_and_everything_are_left_to_no_chance():
    assert evenness(coverage(POOL, [])).chi_square is None
    whole = evenness(coverage(POOL[:6], combinations(POOL[:6], 4)))
    assert whole.chi_square is None
    assert whole.family_expected == (10, 10)
    assert whole.family_gini == pytest.approx(0)
    assert json.loads(json.dumps(whole.to_dict()))["p"] is None


def test_the_audit_of_the_whole_published_space_takes_less_than_a_second():
    quartets = list(combinations(POOL, 4))
    assert len(quartets) == math.comb(29, 4) == 23_751
    started = time.perf_counter()
    evenness(coverage(POOL, quartets))
    assert time.perf_counter() - started < 1


def test_expected_intervals_hold_95_percent_of_random_counts():
    size = 1140
    even = evenness(coverage(POOL, draw("random", POOL, size, 0)))
    for (low, high), used in ((even.family_expected, 1), (even.pair_expected, 2)):
        exact = hypergeom(M=math.comb(29, 4), n=math.comb(29 - used, 4 - used), N=size)
        assert low == pytest.approx(exact.mean() - 1.959964 * exact.std())
        assert high == pytest.approx(exact.mean() + 1.959964 * exact.std())


def test_expected_intervals_are_clipped_to_what_is_possible():
    few = evenness(coverage(POOL, [POOL[:4]]))
    assert few.family_expected[0] == 0
    assert few.family_expected[1] <= 1
    whole = evenness(coverage(POOL[:5], combinations(POOL[:5], 4)))
    assert whole.family_expected == (4, 4)
    assert whole.pair_expected == (3, 3)
    assert (whole.df, whole.p) == (4, None)
    # One of 15 quartets is left: no family is in more than 10 of them, and no pair in more than 6.
    almost = evenness(coverage(POOL[:6], [*combinations(POOL[:6], 4)][:14]))
    assert almost.family_expected == pytest.approx((14 * 4 / 6 - 1.959964 * math.sqrt(14 * 2 / 9 / 14), 10))
    assert almost.pair_expected == pytest.approx((14 * 6 / 15 - 1.959964 * math.sqrt(14 * 6 / 25 / 14), 6))


def test_all_measures_of_a_small_sample():
    """Counts of 3, 2, 2, 2, 2 and 1 of an expected 2; the variance is 3 * 2 / 3 * 1 / 3 * 12 / 14 * 6 / 5."""
    found = evenness(coverage("ABCDEF", ["ABCD", "ABEF", "ACDE"]))
    counts = [3, 2, 2, 2, 2, 1]
    squares = 2 / (3 * 2 / 3 / 3 * 12 / 14 * 6 / 5)
    half = 1.959964 * math.sqrt(3 * 2 / 3 / 3 * 12 / 14)
    pair_half = 1.959964 * math.sqrt(3 * 2 / 5 * 3 / 5 * 12 / 14)
    measured = found.to_dict()
    assert measured.pop("family_expected") == pytest.approx((2 - half, 3.0))
    assert measured.pop("pair_expected") == pytest.approx((0.0, 1.2 + pair_half))
    assert measured == pytest.approx(
        {
            "family_entropy": shannon(counts, base=6),
            "pair_entropy": shannon([2] * 5 + [1] * 8, base=15),
            "family_gini": 5 / 36,
            "pair_gini": 0.2814815,
            "chi_square": squares,
            "df": 5,
            "p": chi2.sf(squares, 5),
        },
        abs=1e-6,
    )


def test_one_and_two_families_alone():
    one = evenness(coverage("A", [("A",)], k=1))
    assert (one.family_entropy, one.pair_entropy, one.family_gini) == (1.0, None, 0.0)
    assert (one.family_expected, one.pair_expected) == ((1.0, 1.0), (0.0, 0.0))
    assert (one.chi_square, one.df, one.p) == (None, 0, None)
    two = evenness(coverage("AB", [("A",)], k=1))
    assert (two.chi_square, two.df) == (pytest.approx(1.0), 1)  # counts of 1 and 0: half a square over half a variance
    both = evenness(coverage("AB", [("A", "B")], k=2))
    assert (both.family_expected, both.pair_expected, both.pair_entropy) == ((1.0, 1.0), (1.0, 1.0), 1.0)


def test_rounding_never_lifts_the_entropy_of_equal_counts_above_one():
    assert [entropy([1] * size) for size in (5, 13, 19, 26)] == [1.0] * 4
