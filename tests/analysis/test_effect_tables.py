"""Effects by hand: what is read from a table, intervals of given estimates, and the quartets that are missing."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from figure_cases import EFFECTS, family, interval

from nngen.analysis.effects import (
    PairKind,
    _intervals,
    _kind,
    _needed,
    _root,
    effects,
    more_quartets,
    scores_of,
)
from nngen.analysis.mixed_model import Estimate
from nngen.analysis.observations import Observation
from nngen.analysis.ranking.reliability import reliability
from nngen.analysis.statistics import Interval, Rate, holm
from nngen.space import draw
from nngen.space.registry import Scores
from nngen.types import Outcome

stats = pytest.importorskip("scipy.stats")
POOL = [f"F{number:02d}" for number in range(9)]


def test_a_table_is_read_by_candidate_and_its_seeds_are_averaged():
    lines = [
        Observation(quartet=tuple("ABCD"), accuracy=0.5),
        Observation(quartet=tuple("DCBA"), accuracy=0.7, seed=1),
        Observation(quartet=tuple("ABCD"), accuracy=0.2, candidate="other gate"),
        Observation(quartet=tuple("ABCE"), accuracy=0.3),
        Observation(quartet=tuple("ABDE"), accuracy=0.9, suspect=True),
        Observation(quartet=tuple("ABDE"), accuracy=math.nan, seed=1),
        Observation(quartet=tuple("ACDE"), outcome=Outcome.MEMORY),
    ]
    found = effects(lines, ["Z"])
    assert (found.trials, found.quartets, found.trained, found.seeds) == (7, 4, 3, 2)
    assert found.mean_accuracy == pytest.approx((0.6 + 0.2 + 0.3) / 3)
    assert found.confidence == 0.95
    expected = reliability([0.6, 0.2, 0.3], [2, 1, 1], 0.02)
    assert vars_of(found.reliability) == pytest.approx(vars_of(expected))
    assert [(row.family, row.quartets) for row in found.families] == [
        ("D", 2),
        ("E", 1),
        ("A", 3),
        ("B", 3),
        ("C", 3),
        ("Z", 0),
    ]


def vars_of(found):
    return {name: getattr(found, name) for name in ("candidates", "replicated", "mean", "noise_sd", "icc", "p")}


def test_one_more_seed_than_unknowns_gives_intervals():
    lines = [Observation(quartet=q, accuracy=0.1 * place) for place, q in enumerate(combinations("ABCDE", 4))]
    bare = effects(lines, "ABCDE")
    assert (bare.df, bare.pairs, bare.seed_sd, bare.quartet_sd, bare.pair_sd) == (0, (), None, None, None)
    # The quartets leave out E, D, C, B and A in this order: what is left out takes its effect from the mean of 0.2.
    points = [(row.family, row.point) for row in bare.families]
    assert points == [(name, pytest.approx(0.2 - 0.1 * place)) for place, name in enumerate("EDCBA")]
    one = effects([lines[0], replace(lines[0], seed=1, accuracy=0.1)])
    assert (one.df, one.seed_sd, one.pairs, one.needed) == (0, None, (), 5)  # nothing to compare
    more = effects([*lines, replace(lines[0], seed=1, accuracy=0.01)], "ABCDE")
    assert (more.df, len(more.pairs), more.seeds) == (1, 10, 2)
    assert all(row.interval for row in more.families)


def test_pairs_are_ordered_by_strength_and_counted():
    rng = np.random.default_rng(0)
    quartets = draw("random", POOL, 60, 0)
    found = effects([Observation(quartet=q, accuracy=0.5 + 0.05 * rng.normal()) for q in quartets], POOL)
    keys = [(-abs(row.interval.effect), row.families) for row in found.pairs]
    assert keys == sorted(keys) and len(keys) == 36
    counts = {pair: sum(set(pair) <= set(q) for q in quartets) for pair in combinations(POOL, 2)}
    assert {row.families: row.quartets for row in found.pairs} == counts
    assert [row.family for row in found.families] == sorted(
        POOL, key=lambda name: -next(row.point for row in found.families if row.family == name)
    )


def test_intervals_are_students_and_their_errors_corrected():
    estimate = Estimate(mean=np.array([0.3, 9.0, -0.1, 0.0, 2.0]), variance=np.array([0.01, 1.0, 0.04, 0.0, -1e-20]))
    first, second, none, sure = _intervals(estimate, [0, 2, 3, 4], 5, 0.9, corrected=holm)
    reach = stats.t.ppf(0.95, 5)
    p_values = [2 * stats.t.sf(3, 5), 2 * stats.t.sf(0.5, 5), 1.0, 0.0]
    for found, mean, error, p, adjusted in zip(
        (first, second, none, sure), (0.3, -0.1, 0.0, 2.0), (0.1, 0.2, 0.0, 0.0), p_values, holm(p_values), strict=True
    ):
        expected = (mean, mean - reach * error, mean + reach * error, p, adjusted)
        assert (found.effect, found.low, found.high, found.p, found.p_adjusted) == pytest.approx(expected)


def test_a_pair_is_clear_below_five_percent():
    pair = Interval(effect=0.1, low=0.0, high=0.2, p=0.01, p_adjusted=0.05)
    assert _kind(pair) is PairKind.UNCLEAR
    assert _kind(replace(pair, p_adjusted=0.0499)) is PairKind.SYNERGY
    assert _kind(replace(pair, p_adjusted=0.0499, effect=-0.1)) is PairKind.ANTAGONISM
    assert (_root(None), _root(-1e-9), _root(0.04)) == (None, 0.0, pytest.approx(0.2))


def test_scores_are_effects_with_the_errors_behind_their_intervals():
    reach = 2 * stats.t.ppf(0.975, 3)
    assert scores_of(EFFECTS) == Scores(
        families={
            "A": (0.02, pytest.approx(0.04 / reach)),
            "B": (0.01, pytest.approx(0.04 / reach)),
            "D": (-0.03, pytest.approx(0.03 / reach)),
        },
        pairs={("A", "B"): (0.02, pytest.approx(0.03 / reach)), ("B", "D"): (-0.01, pytest.approx(0.1 / reach))},
    )
    assert scores_of(replace(EFFECTS, df=0)) == Scores()
    assert scores_of(replace(EFFECTS, df=1)).families.keys() == {"A", "B", "D"}


def bare(name, quartets=0, tries=0):
    success = Rate(successes=0, tries=tries, rate=None, low=0.0, high=1.0)
    return replace(family(name, None), quartets=quartets, success=success)


def test_the_least_number_of_quartets_for_every_effect():
    eight = [bare(name) for name in "ABCDEFGH"]
    assert _needed(eight, []) == 9
    assert _needed(eight, [tuple("ABCD"), tuple("ABCE")]) == 9
    # Fifteen quartets of six families span six dimensions; each of the other two needs one more.
    assert _needed(eight, [*combinations("ABCDEF", 4)] * 2) == 17
    assert _needed([*eight, bare("Z", tries=3)], []) == 9  # tried, and never trained
    assert _needed([*eight, bare("Z", quartets=1, tries=3)], []) == 10
    assert _needed([bare("Z", tries=3)], []) is None
    known = family("A", interval(0.02, 0.01, 0.05, 0.049))
    assert _needed([known], []) is None
    assert _needed([known, bare("B")], []) == 3


@pytest.mark.parametrize(
    ("count", "changes", "size", "says"),
    [
        (8, {"needed": None}, 3, ""),
        (8, {"needed": 9, "quartets": 10, "trained": 5}, 3, "8 9: nngen campaign run one --size 18 draws more"),
        (8, {"needed": 9, "quartets": 10, "trained": 7}, 3, "8 9: nngen campaign run one --size 13 draws more"),
        (8, {"needed": 9, "quartets": 10, "trained": 0}, 3, "8 9: nngen campaign run one --size 9 draws more"),
        (8, {"needed": 9, "quartets": 9, "trained": 9}, 30, "8 9: nngen campaign run one --size 31 draws more"),
        (8, {"needed": 9, "quartets": 70, "trained": 9}, 69, "8 9: nngen campaign run one --size 70 draws more"),
        (5, {"needed": 5, "quartets": 5, "trained": 5}, 2, "5 5: nngen campaign run one --size 5 draws more"),
        (5, {"needed": 6, "quartets": 5, "trained": 5}, 2, "5 6, and they make only 5: widen the pool"),
    ],
)
def test_the_quartets_that_are_missing_and_the_command_that_draws_them(count, changes, size, says):
    families = (*(bare(name) for name in "ABCDEFGH"[:count]),)
    found = more_quartets(replace(EFFECTS, families=families, **changes), "one", size)
    alive, _, rest = says.partition(" ")
    needed = rest[:1]
    assert found == (
        says
        and f"an effect with an interval for each of {alive} families needs at least {needed} trained quartets"
        f"{rest[1:]}"
    )


def test_families_that_were_tried_in_vain_need_no_quartets():
    families = (*(bare(name) for name in "ABCDEFGH"), bare("Z", tries=3), bare("Y", quartets=1, tries=3))
    found = more_quartets(replace(EFFECTS, families=families, needed=9, trained=0), "one", 3)
    assert found.startswith("an effect with an interval for each of 9 families")
