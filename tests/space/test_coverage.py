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


def test_as_json():
    text = json.dumps(coverage("ABCDEF", ["ABCD", "ABEF"]).to_dict())
    assert json.loads(text)["pairs"][0] == ["A", "B", 2]
