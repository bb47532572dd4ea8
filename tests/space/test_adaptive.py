"""Adaptive sampler."""

import math
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nngen.errors import UsageError
from nngen.space import Pool, draw
from nngen.space.adaptive import alternate, ask
from nngen.space.registry import Scores

POOL = Pool.of([f"F{number:02d}" for number in range(14)])
KNOWN = Scores(families={name: (0.01 * place, 0.001) for place, name in enumerate(POOL.families)})


def test_without_knowledge_everything_is_explored_in_the_orders_own_order():
    choices = ask(POOL, 20, 0, Scores())
    assert all(choice.explored for choice in choices)
    assert ask(POOL, 40, 0, Scores())[:20] == choices


def test_with_knowledge_the_best_are_taken_and_the_rest_explored():
    choices = ask(POOL, 40, 0, KNOWN, min_explore=0.25)
    chosen = [choice.quartet for choice in choices if not choice.explored]
    assert len(chosen) == 30
    assert chosen[0] == ("F10", "F11", "F12", "F13")
    assert sum(name >= "F07" for quartet in chosen for name in quartet) > 0.9 * 4 * len(chosen)


def test_a_pair_that_is_known_to_help_is_sought():
    even = Scores(families=dict.fromkeys(POOL.families, (0.0, 1e-6)), pairs={("F00", "F01"): (0.1, 1e-6)})
    chosen = [choice.quartet for choice in ask(POOL, 8, 0, even, min_explore=0.25) if not choice.explored]
    assert chosen
    assert all({"F00", "F01"} <= set(quartet) for quartet in chosen)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 1.0), st.lists(st.integers(1, 15), min_size=1, max_size=4))
def test_the_floor_holds_at_every_prefix_and_nothing_repeats(seed, floor, sizes):
    made = ()
    held = set(draw("random", POOL.families, 5, seed))
    for size in sizes:
        made += ask(POOL, size, seed, KNOWN, before=made, known=held, min_explore=floor)
    assert len({choice.quartet for choice in made}) == len(made) == sum(sizes)
    assert not held & {choice.quartet for choice in made}
    for length in range(1, len(made) + 1):
        assert sum(choice.explored for choice in made[:length]) >= math.ceil(floor * length - 1e-9)


def test_asking_twice_is_asking_once():
    first = ask(POOL, 10, 3, KNOWN)
    assert first + ask(POOL, 10, 3, KNOWN, before=first) == ask(POOL, 20, 3, KNOWN)


def test_it_ends_with_the_space():
    small = Pool.of("ABCDEF")
    scores = Scores(families=dict.fromkeys(small.families, (0.0, 1.0)))
    assert len({choice.quartet for choice in ask(small, 99, 0, scores)}) == 15


@pytest.mark.parametrize("floor", [0.0, 1.1, math.nan])
def test_a_floor_out_of_range(floor):
    with pytest.raises(UsageError, match="share of exploration"):
        ask(POOL, 1, 0, KNOWN, min_explore=floor)


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_that_is_not_positive(size):
    with pytest.raises(UsageError, match=f"--size must be at least 1, not {size}"):
        ask(POOL, size, 0, KNOWN)
    assert len(ask(POOL, 1, 0, KNOWN, min_explore=1)) == 1


def test_one_choice_of_four_is_explored_where_no_share_is_given():
    best = [("F00", "F01", "F02", f"F{number:02d}") for number in range(3, 14)]
    made = alternate(POOL, 9, 0, lambda taken, _: next(quartet for quartet in best if quartet not in taken))
    assert [choice.explored for choice in made] == [True, False, False, False] * 2 + [True]
    assert [choice.quartet for choice in made if not choice.explored] == best[:6]


def test_where_the_quartets_of_the_best_families_are_taken_others_are_compared():
    taken = [*combinations(POOL.families[2:], 4)]  # of all families but the two worst
    made = ask(POOL, 4, 0, KNOWN, known=taken)
    assert [choice.explored for choice in made] == [True, False, False, False]
    assert made[1].quartet == ("F01", "F11", "F12", "F13")


def certain(effects):
    return {name: (effect, 1e-9) for name, effect in effects.items()}


@pytest.mark.parametrize(
    ("strong", "own", "together", "expected"),
    [
        # Fourteen families of 0.02: a pair of -0.02 each that adds 0.1 together makes the best quartet.
        (14, {"A": -0.02, "B": -0.02}, [("A", "B")], {"A", "B"}),
        # Four families of 0.02 are better than any of six pairs that add 0.05 to -0.02 each.
        (4, dict.fromkeys("ABCDEFGHIJKL", -0.02), [("A", "B"), ("C", "D"), ("E", "F"), ("G", "H"), ("I", "J")], set()),
    ],
)
def test_a_pair_helps_each_of_its_families_by_half_of_its_effect(strong, own, together, expected):
    families = {f"S{number:02d}": 0.02 for number in range(strong)} | own
    worth = 0.1 if expected else 0.05
    scores = Scores(families=certain(families), pairs=dict.fromkeys(together, (worth, 1e-9)))
    chosen = ask(Pool.of(families), 2, 0, scores)[1]
    assert not chosen.explored
    assert {name for name in chosen.quartet if name in own} == expected


@pytest.mark.parametrize(
    ("others", "taken", "found"),
    [(11, 0, True), (12, 0, False), (23, 12, True), (24, 12, False)],
    ids=["twelve", "thirteen", "twenty-four, all of the first twelve taken", "twenty-five, all of them taken"],
)
def test_the_best_twelve_families_are_compared_and_twice_as_many_where_their_quartets_are_taken(others, taken, found):
    """One family alone is the worst, and its three pairs make the best quartet: found where it is looked at."""
    strong = [f"S{number:02d}" for number in range(others)]
    effects = {name: 0.02 - 0.0001 * place for place, name in enumerate(strong)} | {"X": -0.1}
    scores = Scores(families=certain(effects), pairs={(name, "X"): (0.06, 1e-9) for name in strong[:3]})
    chosen = ask(Pool.of(effects), 2, 0, scores, known=[*combinations(strong[:taken], 4)])[1]
    assert not chosen.explored
    assert chosen.quartet == (*strong[:3], "X" if found else strong[max(taken, 3)])
