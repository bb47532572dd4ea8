"""Coverage of samples."""

import json
import math
import random
from dataclasses import replace
from itertools import combinations

import pytest
from scipy.stats import hypergeom

from nngen.space import coverage, draw
from nngen.space.coverage import count_variance
from nngen.space.evenness import evenness

LETTERS = [f"F{i:02d}" for i in range(29)]


def test_the_published_bias_is_named():
    audit = coverage(LETTERS, draw("lexicographic", LETTERS, 1140, 0))
    assert audit.anchors == ("F00",)
    assert f"{audit.share:.3f}" == "0.048"
    assert audit.biased
    assert audit.verdict == "every quartet contains F00: nothing can be said about quartets without it"


def test_the_cure_has_no_anchor():
    audit = coverage(LETTERS, draw("stratified", LETTERS, 1140, 0))
    assert audit.anchors == () == audit.absent
    assert audit.family_range <= 2
    assert not audit.biased
    assert "every pair was seen together" in audit.verdict


def test_counts_are_exact():
    audit = coverage("ABCDEF", ["ABCD", "DCBA", "ABEF"])
    assert audit.quartets == 2
    assert audit.space == 15
    assert audit.families == {"A": 2, "B": 2, "C": 1, "D": 1, "E": 1, "F": 1}
    assert audit.pairs["A", "B"] == 2
    assert audit.unseen_pairs == (("C", "E"), ("C", "F"), ("D", "E"), ("D", "F"))
    assert (audit.family_range, audit.pair_range, audit.triple_range) == (1, 2, 1)
    assert audit.anchors == ("A", "B")
    assert not audit.biased


def test_absent_families_nothing_and_everything():
    assert coverage("ABCDE", ["ABCD"]).absent == ("E",)
    assert "no quartet was sampled" in coverage("ABCDE", []).verdict
    assert coverage("ABCDE", []).family_range == 0
    assert "whole space" in coverage("ABCDE", draw("random", "ABCDE", 5, 0)).verdict


def test_a_heavy_family_is_bias_even_without_being_an_anchor():
    quartets = [q for q in draw("random", LETTERS, 3000, 1) if "F03" in q][:60] + list(
        draw("stratified", LETTERS, 60, 1)
    )
    audit = coverage(LETTERS, quartets)
    assert "F03 is in" in audit.verdict
    assert audit.biased


def test_a_rare_family_is_bias_too():
    quartets = [q for q in draw("random", LETTERS, 3000, 1) if "F03" not in q][:300]
    quartets += [q for q in draw("random", LETTERS, 3000, 1) if "F03" in q][:1]
    audit = coverage(LETTERS, quartets)
    assert audit.verdict == "the sample is biased: F03 is in 1 of 301 quartets, 41.5 are expected"
    assert audit.biased


@pytest.mark.parametrize("more", [0, 1])
def test_bias_begins_beyond_four_standard_deviations(more):
    """The count of one family is set just below and just above the border, on either side of the expectation."""
    names = [name for name in LETTERS if name != "F07"]
    others, triples = list(combinations(names, 4)), list(combinations(names, 3))
    for drawn in (others, triples):
        random.Random(0).shuffle(drawn)
    size, v = 400, len(LETTERS)
    spread = hypergeom(M=math.comb(v, 4), n=math.comb(v - 1, 3), N=size).std()
    for border in (size * 4 / v + 4 * spread, size * 4 / v - 4 * spread):
        count = math.floor(border) + more if border > size * 4 / v else math.ceil(border) - more
        audit = coverage(LETTERS, [*others[: size - count], *((*triple, "F07") for triple in triples[:count])])
        assert audit.families["F07"] == count
        assert (audit._odd() == "F07") is bool(more)


@pytest.mark.parametrize("size", [1, 40, 4000, 23_000])
def test_the_variance_of_a_count_is_the_hypergeometric_one(size):
    audit = replace(coverage(LETTERS, []), quartets=size)
    families, pairs = (math.comb(29 - used, 4 - used) for used in (1, 2))
    for with_it in (families, pairs):
        exact = hypergeom(M=audit.space, n=with_it, N=size).var()
        assert count_variance(audit, with_it / audit.space) == pytest.approx(exact)


def test_an_anchor_of_a_short_sample_is_chance():
    assert not coverage(LETTERS, [("F00", "F01", "F02", "F03"), ("F00", "F04", "F05", "F06")]).biased
    three = coverage(LETTERS, [("F00", *LETTERS[start : start + 3]) for start in (1, 4, 7)])
    assert three.anchors == ("F00",)
    assert three.biased  # (4 / 29) ** 3 is below 1 %


@pytest.mark.parametrize(("size", "biased"), [(4, False), (5, True)])
def test_an_anchor_is_bias_where_chance_makes_one_in_less_than_a_hundred_samples(size, biased):
    """Of 12 families each is in a third of the quartets: (1 / 3) ** 4 is above 1 %, (1 / 3) ** 5 is below."""
    rest = ((1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 1), (2, 4, 7))[:size]
    audit = coverage(LETTERS[:12], [("F00", *(LETTERS[number] for number in three)) for three in rest])
    assert (audit.anchors, audit._odd(), audit.biased) == (("F00",), None, biased)


PLANE = ["ABCE", "BCDF", "CDEG", "DEFA", "EFGB", "FGAC", "GABD"]
"""Seven quartets of seven families, with every family in four of them and every pair in two."""


@pytest.mark.parametrize(
    ("families", "quartets", "verdict"),
    [
        ("ABCDE", [], "no quartet was sampled: nothing can be said about any family"),
        ("ABCDE", ["ABCD", "ABCE", "ABDE", "ACDE", "BCDE"], "the whole space was sampled (5 of 5 quartets)"),
        (
            "ABCDE",
            ["ABCD", "ABCE"],
            "every quartet contains A, B and C: nothing can be said about quartets without them",
        ),
        ("ABCDEFGHI", ["ABCD", "EFGH"], "no quartet contains I: nothing can be said about quartets with it"),
        (
            "ABCDEFGHIJKLMNOP",
            ["ABCD", "EFGH"],
            "no quartet contains I, J, K, L, M and 3 more: nothing can be said about quartets with them",
        ),
        ("ABCDEFG", PLANE, "every family is in 4 of 7 quartets; every pair was seen together"),
        (
            "ABCDEFGH",
            ["ABCD", "EFGH", "ABEF"],
            "every family is in 1 to 2 of 3 quartets; 12 of 28 pairs were never seen together",
        ),
    ],
)
def test_the_verdict_says_what_a_sample_supports(families, quartets, verdict):
    assert coverage(families, quartets).verdict == verdict


def test_ranges_count_parts_in_no_quartet_as_zero():
    def found(families, quartets):
        audit = coverage(families, quartets)
        return audit.family_range, audit.pair_range, audit.triple_range

    assert found("ABCDEF", combinations("ABCDEF", 4)) == found("ABCDEF", []) == (0, 0, 0)
    assert found("ABCDEF", ["ABCD", "ABCE", "ABCF"]) == (2, 3, 3)
    assert found("ABCDEFG", PLANE) == (0, 0, 1)


def test_quartets_with_a_family_outside_of_the_pool_are_left_out():
    audit = coverage("ABCDE", ["ABCX", "ABCD", "WXYZ"])
    assert audit == coverage("ABCDE", ["ABCD"])
    assert (audit.quartets, audit.families) == (1, {"A": 1, "B": 1, "C": 1, "D": 1, "E": 0})
    whole = coverage("ABCDE", [*combinations("ABCDE", 4), "ABCX"])
    assert (whole.quartets, whole.share, whole.biased) == (5, 1.0, False)
    assert evenness(whole) == evenness(coverage("ABCDE", combinations("ABCDE", 4)))


def test_the_variance_of_the_smallest_spaces():
    """Of two families alone one is drawn: with a chance of a half each, a variance of a quarter."""
    assert count_variance(coverage("AB", [("A",)], k=1), 0.5) == 0.25
    assert count_variance(coverage("AB", [("A",), ("B",)], k=1), 0.5) == 0
    assert count_variance(coverage("A", [("A",)], k=1), 0.5) == 0


def test_as_json():
    text = json.dumps(coverage("ABCDEF", ["ABCD", "ABEF"]).to_dict())
    none, once = ("CE", "CF", "DE", "DF"), ("AC", "AD", "AE", "AF", "BC", "BD", "BE", "BF", "CD", "EF")
    pairs = {**dict.fromkeys(none, 0), **dict.fromkeys(once, 1), "AB": 2}
    expected = {
        "quartets": 2,
        "space": 15,
        "share": 2 / 15,
        "families": {"A": 2, "B": 2, "C": 1, "D": 1, "E": 1, "F": 1},
        "pairs": [[*pair, count] for pair, count in sorted(pairs.items())],
        "family_range": 1,
        "pair_range": 2,
        "triple_range": 1,
        "unseen_pairs": [list(pair) for pair in none],
        "anchors": ["A", "B"],
        "absent": [],
        "biased": False,
        "verdict": "every quartet contains A and B: nothing can be said about quartets without them",
    }
    assert json.loads(text) == expected
    assert list(json.loads(text)) == list(expected)
