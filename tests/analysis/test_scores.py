"""Scores of families and pairs for the adaptive sampler."""

import numpy as np
import pytest

from nngen.analysis.effects import effects, scores_of
from nngen.analysis.observations import Observation
from nngen.space import Pool, draw
from nngen.space.adaptive import ask

POOL = Pool.of([f"F{number:02d}" for number in range(16)])


def truth(quartet, rng, size=0.02):
    return 0.5 + sum(size * (int(name[1:]) - 7.5) / 4 for name in quartet) + 0.03 * rng.normal()


def test_errors_are_those_of_the_intervals():
    rng = np.random.default_rng(0)
    found = effects([Observation(quartet=q, accuracy=truth(q, rng)) for q in draw("random", POOL.families, 100, 0)])
    row = found.families[0]
    mean, error = scores_of(found).families[row.family]
    assert mean == row.point
    assert (row.interval.high - row.interval.low) / 2 == pytest.approx(error * 1.98, rel=0.02)


def test_nothing_known_gives_no_scores():
    assert scores_of(effects([])).families == {}


def test_asking_and_telling_finds_better_quartets_than_exploring():
    rng = np.random.default_rng(1)
    choices, lines = (), []
    for _ in range(5):
        more = ask(POOL, 40, 0, scores_of(effects(lines, POOL.families)), before=choices)
        lines += [Observation(quartet=choice.quartet, accuracy=truth(choice.quartet, rng)) for choice in more]
        choices += more
    last = lines[-40:]
    explored = [line.accuracy for line, choice in zip(lines, choices, strict=True) if choice.explored]
    assert np.mean([line.accuracy for line in last]) > np.mean(explored) + 0.04
