from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nngen.analysis.statistics import mean_interval
from nngen.archive import Archive
from nngen.errors import UsageError
from nngen.llm.evolve import Evolution, share_interval
from nngen.llm.rewriters.baselines import Mutate, Uniform


class Killed(BaseException):
    pass


def _loop(archive: Archive, ground: Any, rewriter: Any, **more: Any) -> Evolution:
    settings: dict[str, Any] = {"cycles": 3, "start": 5, "number": 4, "patience": 9, "seed": 2, **more}
    return Evolution(name="loop", archive=archive, ground=ground, rewriter=rewriter, **settings)


def test_it_climbs_and_reports_every_cycle(archive: Archive, ground: Any) -> None:
    found = _loop(archive, ground, Mutate(), start=1, number=24).run()
    assert [cycle.number for cycle in found] == [0, 1, 2, 3]
    judged = [cycle.judged or 0.0 for cycle in found]
    assert judged[-1] > judged[0]
    for cycle in found:
        assert cycle.valid_interval[0] <= cycle.valid / cycle.asked <= cycle.valid_interval[1]
        assert len(cycle.accuracies) == cycle.new


def test_every_rewriter_of_one_seed_begins_alike(ground: Any) -> None:
    starts = []
    for rewriter in (Uniform(), Mutate()):
        with Archive.in_memory() as archive:
            starts.append(_loop(archive, ground, rewriter, cycles=1).run()[0].accuracies)
    assert starts[0] == starts[1]


def test_killed_and_resumed_it_comes_to_the_same(ground: Any, judge: Any) -> None:
    with Archive.in_memory() as archive:
        wanted = _loop(archive, ground, Mutate()).run()
    train, limit = judge.train, 0

    def mortal(*given: Any, **named: Any) -> Any:
        nonlocal limit
        limit -= 1
        if limit < 0:
            raise Killed
        return train(*given, **named)

    judge.train = mortal
    with Archive.in_memory() as archive:
        for _ in range(60):
            limit = 2
            try:
                found = _loop(archive, ground, Mutate()).run()
            except Killed:
                continue
            break
        assert found == wanted
        assert not [trial for trial in archive.trials() if not trial.trained]


def test_it_stops_when_the_gain_is_noise(archive: Archive, ground: Any, judge: Any) -> None:
    flat = judge.train
    judge.train = lambda candidate, seed, trusted: replace(
        flat(candidate, seed, trusted=trusted), validation_accuracy=0.5 + seed % 7 / 1000
    )
    said: list[str] = []
    found = _loop(archive, ground, Mutate(), cycles=6, patience=2, note=said.append).run()
    assert len(found) < 7
    assert "gains inside the noise" in said[-1]


def test_a_teacher_is_asked_between_cycles(archive: Archive, ground: Any) -> None:
    lessons: list[int] = []

    def teach(_: Archive, cycle: int) -> Any:
        lessons.append(cycle)
        return Mutate() if cycle == 1 else None

    found = _loop(archive, ground, Uniform(), teach=teach).run()
    assert lessons == [1, 2]
    assert [cycle.rewriter for cycle in found] == ["random", "random", "mutate", "mutate"]


def test_too_little_to_judge_with(archive: Archive, ground: Any) -> None:
    with pytest.raises(UsageError, match="at least 1 cycle and 2 judging seeds"):
        _loop(archive, ground, Mutate(), judges=1).run()


def test_intervals_against_known_values() -> None:
    # Wilson, 8 of 10: 0.4902 to 0.9433 (Newcombe 1998 gives the formula).
    low, high = share_interval(8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)
    assert share_interval(0, 0) == (0.0, 1.0)
    # Student, n = 3, t(2; 0.975) = 4.3027, values 1, 2, 3: 2 +- 4.3027 / sqrt(3).
    span = mean_interval([1.0, 2.0, 3.0])
    assert span == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)
    assert mean_interval([1.0]) is None
