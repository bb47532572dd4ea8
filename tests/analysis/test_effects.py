"""Effects of families and pairs: planted effects, and samples that do not identify them."""

import json
import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nngen.analysis.effects import PairKind, effects
from nngen.analysis.observations import Observation
from nngen.space import draw
from nngen.types import Outcome

POOL = [f"F{number:02d}" for number in range(12)]


def planted(quartets, families, pairs=None, noise=0.0, seeds=1, seed=0):
    rng = np.random.default_rng(seed)
    lines = []
    for quartet in quartets:
        true = 0.5 + sum(families[name] for name in quartet)
        true += sum((pairs or {}).get(pair, 0.0) for pair in combinations(sorted(quartet), 2))
        lines += [
            Observation(quartet=quartet, seed=turn, accuracy=true + noise * rng.normal()) for turn in range(seeds)
        ]
    return lines


def centred(seed=0, size=0.02):
    values = np.random.default_rng(seed).normal(0, size, len(POOL))
    return dict(zip(POOL, values - values.mean(), strict=True))


def by_family(found):
    return {row.family: row for row in found.families}


def test_planted_family_effects_come_back_exactly_without_noise():
    truth = centred()
    found = effects(planted(draw("random", POOL, 120, 0), truth), POOL)
    for row in found.families:
        assert row.point == pytest.approx(truth[row.family], abs=1e-6)
        assert row.interval.low <= row.point <= row.interval.high
    assert [row.family for row in found.families] == sorted(truth, key=truth.__getitem__, reverse=True)


def test_planted_effects_lie_in_their_intervals_and_sum_to_zero():
    truth = centred()
    found = effects(planted(draw("stratified", POOL, 120, 0), truth, noise=0.02), POOL)
    inside = [row.interval.low <= truth[row.family] <= row.interval.high for row in found.families]
    assert sum(inside) >= 10
    assert sum(row.point for row in found.families) == pytest.approx(0, abs=1e-9)
    best = found.families[0]
    assert best.interval.p_adjusted >= best.interval.p


def test_synergy_and_antagonism_are_found_and_the_rest_left_unclear():
    strong = {("F01", "F02"): 0.2, ("F05", "F09"): -0.2}
    lines = planted(draw("random", POOL, 400, 3), dict.fromkeys(POOL, 0.0), strong, noise=0.01)
    found = {row.families: row for row in effects(lines, POOL).pairs}
    assert found["F01", "F02"].kind is PairKind.SYNERGY
    assert found["F05", "F09"].kind is PairKind.ANTAGONISM
    assert found["F01", "F02"].interval.low > 0 > found["F05", "F09"].interval.high
    assert next(iter(found)) in strong


def test_pairs_of_pure_noise_are_shrunk_and_unclear():
    lines = planted(draw("random", POOL, 150, 1), dict.fromkeys(POOL, 0.0), noise=0.05)
    found = effects(lines, POOL)
    assert {row.kind for row in found.pairs} == {PairKind.UNCLEAR}
    raw = max(abs(line.accuracy - 0.5) for line in lines)
    assert max(abs(row.interval.effect) for row in found.pairs) < raw / 4


def test_seeds_are_told_from_quartets():
    rng = np.random.default_rng(5)
    lines = [
        Observation(quartet=quartet, seed=turn, accuracy=0.5 + own + 0.01 * rng.normal())
        for quartet in draw("random", POOL, 200, 1)
        for own in [0.03 * rng.normal()]
        for turn in range(3)
    ]
    found = effects(lines, POOL)
    assert found.seeds == 3
    assert found.seed_sd == pytest.approx(0.01, rel=0.15)
    assert found.quartet_sd == pytest.approx(0.03, rel=0.35)
    assert not any("one seed" in note for note in found.notes)


def test_as_one_campaign_of_the_published_kind():
    lines = planted(draw("lexicographic", POOL, 100, 0), centred(), noise=0.01)
    found = effects(lines, POOL)
    anchor = by_family(found)["F00"]
    assert anchor.point is None
    assert anchor.interval is None
    assert "in every quartet" in anchor.reason
    assert found.families[-1].family == "F00"
    assert any("F00" in note and "in every quartet" in note for note in found.notes)


def test_families_that_always_come_together():
    quartets = [q for q in draw("random", POOL, 300, 0) if ("F00" in q) == ("F01" in q)]
    truth = centred()
    row = by_family(effects(planted(quartets, truth), POOL))["F00"]
    assert row.together_with == ("F01",)
    others = [truth[name] for name in POOL]
    assert row.point == pytest.approx((truth["F00"] + truth["F01"]) / 2 - np.mean(others), abs=1e-6)
    assert any("F00 and F01 are always together" in note for note in effects(planted(quartets, truth), POOL).notes)


def test_families_that_exclude_each_other_are_compared_within_their_groups():
    quartets = [q for q in combinations(POOL[:8], 4) if sum(name in ("F00", "F01") for name in q) == 1]
    found = effects(planted(quartets, centred(), noise=0.01), POOL[:8])
    assert by_family(found)["F00"].point == pytest.approx(-by_family(found)["F01"].point)
    assert any("compared only within these groups: F00 and F01; F02" in note for note in found.notes)


def test_a_family_that_was_never_drawn():
    found = effects(planted(draw("random", POOL, 100, 0), centred(), noise=0.01), [*POOL, "Z"])
    assert "in no quartet" in by_family(found)["Z"].reason
    assert by_family(found)["Z"].success.tries == 0


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "no trial is finished"),
        ([Observation(quartet=tuple("ABCD"), accuracy=0.5)], "one quartet was trained"),
        (
            [Observation(quartet=q, outcome=Outcome.MEMORY) for q in draw("random", "ABCDEFG", 5, 0)],
            "all 5 trials failed (memory 5)",
        ),
        (
            [Observation(quartet=q, accuracy=math.nan) for q in draw("random", "ABCDEFG", 5, 0)],
            "all 5 trials failed (accuracy not a number 5)",
        ),
        ([Observation(quartet=q, accuracy=0.5) for q in draw("random", "ABCDEFG", 5, 0)], "all accuracies are equal"),
        ([Observation(quartet=q, accuracy=0.5) for q in draw("random", "ABCDEFG", 30, 0)], "all accuracies are equal"),
        ([Observation(quartet=q, accuracy=0.1 * i) for i, q in enumerate(combinations("ABCDE", 4))], "no interval"),
        ([Observation(quartet=q, accuracy=0.1) for q in draw("random", "ABCDEFG", 30, 0)], "one seed for each"),
    ],
)
def test_missing_data_is_reported_and_nothing_raises(lines, says):
    found = effects(lines, "ABCDEFG")
    assert any(says in note for note in found.notes), found.notes
    assert {row.family for row in found.families} == set("ABCDEFG")
    json.dumps(found.to_dict(), allow_nan=False)


def test_some_failed_says_what_the_effects_are_conditioned_on():
    lines = [
        Observation(quartet=q, outcome=Outcome.TIMEOUT)
        if "F03" in q
        else Observation(quartet=q, accuracy=0.5 + 0.01 * i)
        for i, q in enumerate(draw("stratified", POOL, 60, 0))
    ]
    found = effects(lines, POOL)
    assert any("can be trained" in note and "timeout 20" in note for note in found.notes)
    assert any("quartets with F03 fail more often" in note for note in found.notes)
    assert by_family(found)["F03"].success.rate == 0


def test_saturated_with_seeds_gives_intervals_and_says_what_they_rest_on():
    lines = planted(list(combinations("ABCDE", 4)), dict.fromkeys("ABCDE", 0.0), noise=0.01, seeds=3)
    found = effects(lines, "ABCDE")
    assert found.families[0].interval is not None
    assert any("rest on an assumption" in note for note in found.notes)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_no_table_raises(data):
    pool = "ABCDEFGH"[: data.draw(st.integers(4, 8))]
    quartets = st.sampled_from(list(combinations(pool, 4)))
    accuracies = st.one_of(st.none(), st.floats(0, 1), st.just(math.nan), st.just(math.inf), st.just(0.5))
    lines = data.draw(
        st.lists(
            st.builds(Observation, quartet=quartets, seed=st.integers(0, 2), accuracy=accuracies),
            min_size=0,
            max_size=40,
        )
    )
    found = effects(lines, pool)
    assert len(found.families) == len(pool)
    for row in found.families:
        assert (row.point is None) == bool(row.reason)
        if row.interval:
            assert row.interval.low <= row.interval.effect <= row.interval.high
            assert 0 <= row.interval.p <= row.interval.p_adjusted <= 1
    json.dumps(found.to_dict(), allow_nan=False)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(-0.3, 0.3), st.floats(0.1, 10))
def test_effects_shift_and_scale_with_the_accuracies(seed, shift, scale):
    lines = planted(draw("random", POOL, 60, seed), centred(seed), noise=0.02, seed=seed)
    moved = [Observation(quartet=line.quartet, accuracy=shift + scale * line.accuracy) for line in lines]
    before, after = by_family(effects(lines, POOL)), by_family(effects(moved, POOL))
    for name in POOL:
        assert after[name].interval.low == pytest.approx(scale * before[name].interval.low, rel=1e-5, abs=1e-9)
        assert after[name].point == pytest.approx(scale * before[name].point, rel=1e-5, abs=1e-9)


def test_pairs_that_the_families_determine_take_no_part():
    lines = [Observation(quartet=("A", "B", "C", "D"), seed=seed, accuracy=0.5) for seed in (0, 1)]
    found = effects([*lines, Observation(quartet=("A", "B", "C", "E"), accuracy=0.0)])
    assert found.pair_sd in (None, 0.0)
    assert [row.family for row in found.families if row.point is not None] == ["D", "E"]
