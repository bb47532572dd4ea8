"""Caveats of estimated effects, word for word, from hand-made observations and structures."""

from __future__ import annotations

import numpy as np
import pytest

from nngen.analysis.caveats import sample_notes
from nngen.analysis.design_matrix import Structure
from nngen.analysis.observations import Observation, success_rates
from nngen.types import Outcome

GOOD = Observation(quartet=tuple("ABCD"), accuracy=0.5)
BAD = Observation(quartet=tuple("ABCE"), outcome=Outcome.MEMORY)
SUSPECT = Observation(quartet=tuple("ABDE"), accuracy=0.9, suspect=True)


def made(**changes):
    structure = {"units": (("A",), ("B",)), "classes": ((0, 1),), "reasons": {}, "rank": 5, "basis": np.zeros((0, 0))}
    return Structure(**structure | changes)


def notes(observations, structure=None, *, df=9, between=9, seeds=2, flat=False, families="ABCDE"):
    rates = success_rates(families, observations)
    return sample_notes(observations, rates=rates, structure=structure, df=df, between=between, seeds=seeds, flat=flat)


def test_without_a_comparable_accuracy_the_only_note_says_why():
    assert notes([]) == ("no trial is finished: run nngen campaign run first",)
    assert notes([BAD]) == ("all 1 trial failed (memory 1): no accuracy can be explained",)
    assert notes([BAD, SUSPECT, SUSPECT]) == (
        "2 trials with a suspect accuracy left out: nngen leaderboard gives the reason",
    )


def test_a_complete_sample_has_no_caveats():
    complete = [GOOD, Observation(quartet=tuple("ABCE"), accuracy=0.4)]
    assert notes(complete, made()) == ()
    assert notes(complete, made(), flat=True) == ("all accuracies are equal: no differences can be explained",)
    # A failed trial with the mark of a suspect one has no accuracy to leave out.
    failed = Observation(quartet=tuple("ABCD"), outcome=Outcome.MEMORY, suspect=True)
    assert notes([*complete, failed], made()) == ()


def test_every_caveat_stands_in_its_order():
    structure = made(
        units=(("A",), ("B", "C"), ("D",), ("E",)),
        classes=((0, 1), (2, 3)),
        reasons={"F": "in no quartet", "G": "in every quartet", "H": "in no quartet"},
    )
    assert notes([SUSPECT, BAD], structure, df=0, between=0, seeds=1, flat=True) == (
        "1 trial with a suspect accuracy left out: nngen leaderboard gives the reason",
        "one quartet was trained: an effect needs quartets with and without a family",
        "accuracy is known for 1 of 2 quartets only (memory 1): the effects hold for quartets that can be trained",
        "no effect for F and H: in no quartet",
        "no effect for G: in every quartet",
        "B and C are always together and cannot be separated: their effect is a mean of all",
        "families are compared only within these groups: A, B and C; D and E",
        "no interval can be given: the quartets trained are as many as the unknowns (5); train more quartets, or each"
        " with several seeds",
        "one seed for each candidate: the noise between seeds cannot be separated from that between quartets (the"
        " intervals include both)",
        "all accuracies are equal: no differences can be explained",
    )


def test_long_lists_of_families_are_cut():
    names = tuple("ABCDEFG")
    structure = made(units=(names, ("H",)), classes=((0,), (1,)), reasons=dict.fromkeys(names, "absent"))
    six = "A, B, C, D, E and 2 more"
    assert notes([GOOD, GOOD], structure)[1:] == (
        f"no effect for {six}: absent",
        f"{six} are always together and cannot be separated: their effect is a mean of all",
        f"families are compared only within these groups: {six}; H",
    )


def test_families_that_fail_more_often_than_chance_explains_are_named():
    bad = [Observation(quartet=("A", "B", "C", f"X{turn}"), outcome=Outcome.MEMORY) for turn in range(10)]
    good = [Observation(quartet=("E", "F", "G", f"X{turn}"), accuracy=0.5) for turn in range(10)]
    known, rare = notes([*good, *bad], made(), families=["A", "B", "E", "X1", "Z"])
    assert known == (
        "accuracy is known for 10 of 20 quartets only (memory 10): the effects hold for quartets that can be trained"
    )
    assert rare == (
        "quartets with A and B fail more often than chance explains (50% of all fail), so their effects are estimated"
        " from the quartets that could be trained"
    )


SINGLE = (
    "one seed for each candidate: the noise between seeds cannot be separated from that between quartets (the intervals"
    " include both)"
)
NONE = (
    "no interval can be given: the quartets trained are as many as the unknowns (5); train more quartets, or each with"
    " several seeds"
)
ASSUMED = (
    "quartets are as many as the unknowns (5): the noise is estimated between seeds only, so the intervals rest on an"
    " assumption about the quartets"
)


@pytest.mark.parametrize(
    ("df", "between", "seeds", "expected"),
    [
        (0, 0, 2, (NONE,)),
        (1, 0, 2, (ASSUMED,)),
        (1, 1, 2, ("6 quartets for 5 unknowns: more quartets would narrow the intervals",)),
        (9, 4, 1, ("9 quartets for 5 unknowns: more quartets would narrow the intervals", SINGLE)),
        (9, 5, 1, (SINGLE,)),
        (9, 5, 0, ()),
    ],
)
def test_what_the_noise_is_estimated_from(df, between, seeds, expected):
    complete = [GOOD, Observation(quartet=tuple("ABCE"), accuracy=0.4)]
    assert notes(complete, made(), df=df, between=between, seeds=seeds) == expected
    assert notes(complete, made(classes=()), df=df, between=between, seeds=seeds) == ()
