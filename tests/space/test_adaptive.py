"""Adaptive sampler."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nngen.errors import UsageError
from nngen.space import Pool, draw
from nngen.space.adaptive import ask
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
