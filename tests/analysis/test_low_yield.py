"""Low-yield families."""

import pytest

from nngen.analysis.observations import Observation, low_yield
from nngen.space import draw
from nngen.types import Outcome

POOL = "ABCDEFGH"


def trials(bad, size=60):
    return [
        Observation(quartet=q, outcome=Outcome.MEMORY) if bad & set(q) else Observation(quartet=q, accuracy=0.5)
        for q in draw("stratified", POOL, size, 0)
    ]


def test_the_guilty_are_named_and_their_company_is_not_blamed():
    found = low_yield(trials({"C", "F"}), POOL)
    assert {row.family for row in found.excluded} == {"C", "F"}
    assert found.kept == tuple("ABDEGH")
    assert found.excluded[0].reason.startswith("C: 0 of 30 quartets trained (0%, 95% interval 0% to 11%), below 50%")
    assert "memory 30" in found.excluded[0].reason


def test_little_evidence_is_not_enough():
    assert low_yield([Observation(quartet=tuple("ABCD"), outcome=Outcome.MEMORY)], POOL).excluded == ()
    assert low_yield([], POOL).kept == tuple(POOL)


def test_four_families_remain():
    lines = [Observation(quartet=q, outcome=Outcome.SHAPE) for q in draw("random", POOL, 70, 0)]
    assert len(low_yield(lines, POOL).kept) >= 4
    few = low_yield([Observation(quartet=tuple("ABCD"), outcome=Outcome.SHAPE)], "ABCD", threshold=0.9)
    assert few.kept == tuple("ABCD")
    assert "a mixture needs 4 families" in few.note


def test_seeds_do_not_count_as_new_attempts():
    lines = [Observation(quartet=tuple("ABCD"), seed=seed, outcome=Outcome.TIMEOUT) for seed in range(50)]
    assert low_yield(lines, POOL).excluded == ()


@pytest.mark.parametrize("threshold", [0.0, 1.5])
def test_a_threshold_out_of_range(threshold):
    with pytest.raises(ValueError, match="threshold"):
        low_yield([], POOL, threshold=threshold)
