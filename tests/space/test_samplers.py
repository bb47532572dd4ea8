"""Samplers that do not use results."""

from collections import Counter
from itertools import combinations, islice
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nngen.errors import FamilyError, NngenError, UsageError
from nngen.space import SAMPLERS, Pool, draw, sampler
from nngen.space.rank import _PRIME, RowSpace, dimensions
from nngen.space.samplers import Balanced, Lexicographic, Stratified, Uniform

LETTERS = [f"F{i:02d}" for i in range(29)]
samplers = pytest.mark.parametrize("name", sorted(name for name, entry in SAMPLERS.items() if entry.order))


@samplers
def test_the_whole_space_once(name):
    quartets = draw(name, LETTERS[:9], 126, seed=3)
    assert sorted(quartets) == list(combinations(LETTERS[:9], 4))


@samplers
@given(seed=st.integers(0, 2**31), stop=st.integers(0, 69))
@settings(max_examples=25, deadline=None)
def test_goes_on_from_any_position(name, seed, stop):
    pool = Pool.of(LETTERS[:8])
    held = list(combinations(LETTERS[:8], 4))[::7]
    whole = list(sampler(name, pool, seed, held).stream())
    assert not {q for _, q in whole} & set(held)
    assert len(whole) == 70 - len(held)
    cut = whole[min(stop, len(whole) - 1)][0] + 1
    assert list(sampler(name, pool, seed, held).stream(cut)) == [d for d in whole if d[0] >= cut]


@samplers
def test_the_order_of_typing_does_not_matter_and_experts_are_sorted(name):
    quartets = draw(name, LETTERS, 50, seed=5)
    assert quartets == draw(name, LETTERS[::-1], 50, seed=5)
    assert all(list(q) == sorted(q) for q in quartets)
    assert quartets[:20] == draw(name, LETTERS, 20, seed=5)


@pytest.mark.parametrize("name", ["random", "stratified"])
def test_seeds_differ(name):
    assert draw(name, LETTERS, 20, seed=1) != draw(name, LETTERS, 20, seed=2)


@given(st.integers(9, 34), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_stratified_uses_families_equally_at_every_prefix(n, seed):
    names = [f"F{i:02d}" for i in range(n)]
    used = Counter(dict.fromkeys(names, 0))
    for quartet in draw("stratified", names, 3 * n, seed):
        used.update(quartet)
        assert max(used.values()) - min(used.values()) <= 2


@pytest.mark.parametrize("name", ["stratified", "balanced"])
@pytest.mark.parametrize("n", [8, 12, 16, 20, 34])
def test_as_many_quartets_as_families_tell_all_of_them_apart(name, n):
    """Rounds that use every family once all add up to the same: 8 quartets of 8 families had rank 5."""
    names = [f"F{i:02d}" for i in range(n)]
    for seed in range(4):
        quartets = draw(name, names, n, seed)
        assert dimensions(quartets, names) == n
        used = Counter(family for quartet in quartets for family in quartet)
        assert max(used.values()) - min(used.values()) <= 2


@given(st.integers(5, 9), st.lists(st.integers(0, 2**31), min_size=1, max_size=12))
def test_dimensions_are_those_of_real_numbers(n, seeds):
    names = [f"F{i}" for i in range(n)]
    quartets = [draw("random", names, 1, seed)[0] for seed in seeds]
    rows = np.array([[float(name in quartet) for name in names] for quartet in quartets])
    assert dimensions(quartets, names) == np.linalg.matrix_rank(rows)
    assert dimensions([], names) == 0
    assert dimensions([("other", *quartets[0])], names) == 1


def test_stratified_stays_even_over_the_published_length():
    used = Counter(dict.fromkeys(LETTERS, 0))
    worst = 0
    for quartet in draw("stratified", LETTERS, 4463, seed=0):
        used.update(quartet)
        worst = max(worst, max(used.values()) - min(used.values()))
    assert worst <= 4


def test_lexicographic_is_the_published_bias():
    assert draw("lexicographic", LETTERS, 1140, 0) == tuple(islice(combinations(LETTERS, 4), 1140))
    assert all("F00" in q for q in draw("lexicographic", LETTERS, 1140, 0))


def test_huge_pools_cost_nothing():
    names = [f"F{i:05d}" for i in range(10_000)]
    assert len(set(draw("random", names, 20, seed=0))) == 20


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"name": "stratifed"}, "did you mean stratified"),
        ({"name": "x"}, "lexicographic, random, stratified"),
        ({"size": 36}, "36 quartets were asked for, but 7 families make only 35"),
        ({"size": 0}, "at least 1"),
        ({"families": LETTERS[:3]}, "4 different families, but there are only 3"),
        ({"size": 35, "known": [tuple(LETTERS[:4])]}, "only 34 are not known"),
    ],
)
def test_bad_input_names_the_way_out(kwargs, words):
    asked = {"name": "random", "families": LETTERS[:7], "size": 5, "seed": 0} | kwargs
    with pytest.raises(UsageError, match=words):
        draw(**asked)


def test_a_family_twice():
    with pytest.raises(FamilyError, match="F01"):
        draw("random", ["F00", "F01", "F01", "F02", "F03"], 1, 0)


@samplers
def test_every_quartet_holds_what_is_included(name):
    quartets = draw(name, LETTERS[:12], 30, seed=2, include=["F03", "F07"])
    assert len(set(quartets)) == 30
    for quartet in quartets:
        assert {"F03", "F07"} <= set(quartet)
        assert len(quartet) == 4
        assert list(quartet) == sorted(quartet)
    held = quartets[:10]
    assert not set(held) & set(draw(name, LETTERS[:12], 35, seed=2, include=["F03", "F07"], known=held))


@pytest.mark.parametrize(
    ("include", "says"),
    [(["F99"], "F99: to be in every quartet, but not in the pool"), (["F00", "F01", "F02", "F03"], "fewer than 4")],
)
def test_what_cannot_be_included(include, says):
    with pytest.raises(NngenError, match=says):
        draw("random", LETTERS, 3, seed=0, include=include)


def test_a_family_named_twice_is_refused_also_where_it_is_included():
    with pytest.raises(NngenError, match="named more than once: A"):
        draw("random", "AABCDEF", 2, seed=0, include=["A"])


def test_a_mixture_without_families_is_refused():
    with pytest.raises(NngenError, match="a mixture takes 0 different families, but there are only 6"):
        draw("random", "ABCDEF", 2, seed=0, k=0)


def test_exhaustive_is_the_whole_space():
    assert set(draw("exhaustive", LETTERS[:9], 126, seed=0)) == set(combinations(LETTERS[:9], 4))


@samplers
def test_known_quartets_of_other_pools_and_sizes_leave_the_space_whole(name):
    foreign = [("F00", "F01", "F02", "X"), ("F00", "F01", "F02"), ("F00", "F01", "F02", "F03", "F04")]
    quartets = draw(name, LETTERS[:6], 15, seed=1, known=foreign)
    assert sorted(quartets) == list(combinations(LETTERS[:6], 4))
    assert list(sampler(name, Pool.of(LETTERS[:4]), 0, [tuple(LETTERS[:4])]).stream()) == []


def test_dimensions_are_counted_modulo_the_largest_prime_below_two_to_the_twentieth():
    prime = [n for n in range(2**20 - 50, 2**20) if all(n % divisor for divisor in range(2, 1025))][-1]
    assert prime == _PRIME
    assert 1000 * _PRIME**2 < 2**63


def test_families_outside_of_a_space_add_nothing_to_it():
    space = RowSpace("ABC")
    space.take("XYZ")
    assert (space.dimensions, space.full, space.adds("XYZ"), space.adds("AX")) == (0, False, False, True)
    for quartet in ("AX", "AB", "BC"):
        assert not space.full
        space.take(quartet)
    assert (space.dimensions, space.full, space.adds("AB")) == (3, True, False)
    before = space.leverage("A")
    space.take("AB")
    assert space.leverage("A") == before


def test_the_leverage_of_a_quartet_is_its_variance_under_the_quartets_before():
    """(x' (P + X' X)^-1 x) with the prior information of a thousandth on each family."""
    space, taken, asked = RowSpace("ABCDE"), ("ABC", "ABD", "CDE"), ("ABC", "ADE", "E")
    rows = np.array([[float(name in quartet) for name in "ABCDE"] for quartet in taken])
    variance = np.linalg.inv(0.001 * np.eye(5) + rows.T @ rows)
    for quartet in taken:
        space.take(quartet)
    for quartet in asked:
        x = np.array([float(name in quartet) for name in "ABCDE"])
        assert space.leverage(quartet) == pytest.approx(x @ variance @ x)


def test_seed_zero_is_that_of_samplers_built_by_hand():
    pool = Pool.of(LETTERS[:7])
    for kind in (Lexicographic, Uniform, Balanced, Stratified):
        assert list(kind(pool).stream()) == list(kind(pool, 0).stream())


def test_an_informative_quartet_keeps_counts_within_two(monkeypatch):
    pool = Pool.of("ABCDEF")
    found = Stratified(pool, 0)
    monkeypatch.setattr(found, "_least_used", lambda *_: iter([tuple("ABCD"), tuple("BCDF")]))
    used = {"A": 2, "B": 0, "C": 0, "D": 0, "E": 0, "F": 1}
    assert found._informative(used, (), Random(0), RowSpace("ABCDEF")) == tuple("BCDF")
    assert found._informative(used | {"A": 1}, (), Random(0), RowSpace("ABCDEF")) == tuple("ABCD")
    assert found._informative(dict.fromkeys("ABCDEF", 1) | {"A": 3, "F": 3}, (), Random(0), RowSpace("ABCDEF")) is None


def test_where_no_even_quartet_is_found_the_next_of_a_random_order_is_taken(monkeypatch):
    monkeypatch.setattr(Stratified, "tries", 0)
    pool = Pool.of(LETTERS[:7])
    made = Stratified(pool, 3, [tuple(LETTERS[:4])])
    order = [quartet for _, quartet in Uniform(pool, made.seed).stream() if quartet != tuple(LETTERS[:4])]
    assert [quartet for _, quartet in made.stream()] == order


def test_the_tie_of_the_least_used_families_is_widened_in_256_draws():
    used = dict.fromkeys("ABCD", 0) | {"E": 1, "F": 8, "G": 16}
    drawn = [set(quartet) for quartet in Stratified(Pool.of(used))._least_used(used, (), Random(0))]
    assert len(drawn) == 256
    assert drawn[:32] == [set("ABCD")] * 32
    first = [next(place for place, quartet in enumerate(drawn) if name in quartet) for name in "EF"]
    assert 32 <= first[0] < 64 and first[1] > 128
    assert not any("G" in quartet for quartet in drawn)
