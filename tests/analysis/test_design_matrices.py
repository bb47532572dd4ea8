"""Design matrices of small samples, and the family effects that these samples identify, by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from nngen.analysis.design_matrix import centred_pairs, family_matrix, pair_matrix, structure

ANCHOR = "in every quartet that was trained, so the effect is part of the mean"
ABSENT = "in no quartet that was trained, so evidence is missing"
ALONE = "cannot be separated from the others in this sample"


@pytest.mark.parametrize(
    ("quartets", "units", "classes", "rank", "reasons"),
    [
        (["ABCD", "ABCE"], ["D", "E"], [(0, 1)], 2, {**dict.fromkeys("ABC", ANCHOR), **dict.fromkeys("FGHZ", ABSENT)}),
        (["ABCD", "AEFG"], ["BCD", "EFG"], [(0, 1)], 2, {"A": ANCHOR, "H": ABSENT, "Z": ABSENT}),
        (
            ["DCBA", "ABCE", "HGFA"],
            ["BC", "D", "E", "FGH"],
            [(1, 2)],
            3,
            {"A": ANCHOR, "Z": ABSENT, **dict.fromkeys("BCFGH", ALONE)},
        ),
        (["ABCD"], [], [], 1, {**dict.fromkeys("ABCD", ANCHOR), **dict.fromkeys("EFGHZ", ABSENT)}),
        (
            ["ABEF", "ABEG", "ABFG", "CDEF", "CDEG", "CDFG", "ABEH", "CDEH"],
            ["AB", "CD", "E", "F", "G", "H"],
            [(0, 1), (2, 3, 4, 5)],
            5,
            {"Z": ABSENT},
        ),
    ],
)
def test_what_a_sample_identifies(quartets, units, classes, rank, reasons):
    found = structure("ABCDEFGHZ", [tuple(quartet) for quartet in quartets])
    assert found.units == tuple(map(tuple, units))
    assert found.classes == tuple(classes)
    assert (found.rank, found.reasons) == (rank, reasons)
    assert found.basis.shape == (1 + len(units), rank)
    assert found.basis.T @ found.basis == pytest.approx(np.eye(rank))
    matrix = np.column_stack([np.ones(len(quartets)), family_matrix(found.units, [tuple(q) for q in quartets])])
    assert matrix @ found.basis @ found.basis.T == pytest.approx(matrix)


def test_families_and_pairs_are_counted_in_each_quartet():
    quartets = [tuple("DCBA"), tuple("ABCE"), tuple("EFGA")]
    units = [("B", "C"), ("D",), ("E",), ("F", "G")]
    assert family_matrix(units, quartets).tolist() == [[2, 1, 0, 0], [2, 0, 1, 0], [0, 0, 1, 2]]
    pairs = list(combinations("ABCDEFG", 2))
    found = pair_matrix("ABCDEFG", quartets)
    assert found.shape == (3, 21)
    assert found.toarray().tolist() == [[float(set(pair) <= set(quartet)) for pair in pairs] for quartet in quartets]


def test_few_families_have_no_centred_pairs():
    assert [centred_pairs(families).shape for families in range(4)] == [(0, 0), (0, 0), (1, 0), (3, 0)]
