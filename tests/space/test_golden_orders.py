"""Orders and choices stay as they are: a campaign that was begun with an earlier version goes on where it was."""

import hashlib

import pytest

from nngen.space import Pool, draw
from nngen.space.adaptive import ask
from nngen.space.balanced import balanced_order
from nngen.space.permutation import Permutation
from nngen.space.registry import Scores

NAMES = [f"F{number:02d}" for number in range(34)]


def digest(value):
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("v", "k", "size", "expected"),
    [
        (5, 4, 5, "3d2c52ffa6a1ce25"),
        (9, 4, 126, "ffc70e1f0335d33d"),
        (12, 4, 495, "d6a41e2557d38fbd"),
        (12, 3, 220, "8999cedcf4400d79"),
        (11, 5, 462, "1dbea1c0380fd7c9"),
        (12, 6, 924, "1f36209d6c8c1b0f"),
        (9, 2, 36, "e30a72aa02d2562c"),
        (20, 4, 1500, "1568d32653534114"),
        (28, 4, 400, "349451e91cffd109"),
        (29, 4, 400, "cd1ba2027c3b63f3"),
        (40, 4, 400, "7f6b038e67d32183"),
        (7, 3, 35, "b0f7bfb55026b479"),
        (9, 3, 84, "de087a95d9b94800"),
        (9, 7, 36, "618da29e9eef730b"),
        (13, 5, 150, "bad0816f357aecc8"),
        (24, 4, 200, "5d5bdcb119e4c89e"),
        (32, 4, 300, "f1a99ebe2df11d13"),
        (36, 4, 300, "78d06c98682344cc"),
        (60, 4, 50, "8a819d666394227a"),
        (10, 3, 120, "6da550e85ee73549"),
        (11, 3, 165, "43e8ffb6331c39e2"),
        (15, 5, 90, "b62eab7a53c223fe"),
        (16, 5, 90, "45a82adbe3b538a8"),
        (13, 6, 80, "861078f41890030c"),
        (18, 6, 60, "8d3add2571b678ac"),
    ],
)
def test_the_balanced_order(v, k, size, expected):
    order = balanced_order(v, k)
    assert digest([order[place] for place in range(size)]) == expected


@pytest.mark.parametrize(
    ("v", "expected"),
    [
        (10, "887e185ea31cdc14"),
        (11, "c4e15b4598592d85"),
        (13, "72c8d346a365edb5"),
        (14, "e3696c4af1f1676e"),
        (15, "c9f6d341e61ebda5"),
        (16, "67a04e3e81a90d82"),
        (17, "839417c5701f6002"),
        (18, "65033ccbcdf667ea"),
        (19, "6ad2270f70ad2f6d"),
    ],
)
def test_small_spaces_keep_the_ties_that_were_found_most_even(v, expected):
    assert digest([balanced_order(v)[place] for place in range(60)]) == expected


@pytest.mark.parametrize(
    ("size", "order"), [(1, [0]), (2, [1, 0]), (3, [1, 0, 2]), (4, [3, 0, 2, 1]), (5, [0, 3, 2, 4, 1])]
)
def test_permutations_of_the_smallest_ranges(size, order):
    assert [Permutation(size, 0)(place) for place in range(size)] == order


@pytest.mark.parametrize(
    ("name", "families", "size", "expected"),
    [
        ("balanced", 12, 200, "95ad2f7ced20a6db"),
        ("random", 12, 495, "ae99c1c0b9d32847"),
        ("random", 34, 300, "25fe480d341634ca"),
        ("stratified", 9, 126, "239a225d3a37ff57"),
        ("stratified", 34, 300, "932f529fe91482ec"),
    ],
)
def test_the_quartets_of_a_seed(name, families, size, expected):
    assert digest(draw(name, NAMES[:families], size, seed=7)) == expected


@pytest.mark.parametrize(("min_explore", "expected"), [(0.1, "5e1733c7be926f90"), (0.5, "e97fe32ff8090798")])
def test_choices_by_results(min_explore, expected):
    scores = Scores(
        families={name: (0.01 * place, 0.02) for place, name in enumerate(NAMES[:17])},
        pairs={(NAMES[0], NAMES[20]): (0.3, 0.01), (NAMES[1], NAMES[2]): (-0.2, 0.05)},
    )
    made = ask(Pool.of(NAMES), 60, 3, scores, min_explore=min_explore, known=draw("random", NAMES, 50, 0))
    assert digest([(choice.quartet, choice.explored) for choice in made]) == expected
