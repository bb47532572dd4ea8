"""Coverage of samples."""

import json

from nngen.space import coverage, draw

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


def test_as_json():
    text = json.dumps(coverage("ABCDEF", ["ABCD", "ABEF"]).to_dict())
    assert json.loads(text)["pairs"][0] == ["A", "B", 2]
