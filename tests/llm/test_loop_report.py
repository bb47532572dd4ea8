"""A rewriter's closed loop as the report tells it; the loops are run by ``Evolution`` with a judge that knows."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import pytest

from nngen.analysis.loop_report import last_cycle, loops
from nngen.analysis.report import collect, render
from nngen.analysis.statistics import difference_interval, mean_interval
from nngen.archive import Archive
from nngen.errors import UsageError
from nngen.llm.evolve import Cycle, Evolution
from nngen.llm.rewriters.baselines import Mutate, Uniform
from nngen.llm.rewriters.factory import REWRITERS


def _loop(archive: Archive, ground: Any, name: str, rewriter: Any, number: int = 4) -> list[Cycle]:
    loop = Evolution(
        name=name, archive=archive, ground=ground, rewriter=rewriter, cycles=2, start=5, number=number, patience=9
    )
    return loop.run()


def test_the_cycles_are_those_of_the_loop(archive: Archive, ground: Any) -> None:
    wanted = _loop(archive, ground, "tries-2", Mutate())
    found = loops(archive, "tries-2-1")
    assert found is not None
    assert found.name == "tries-2"
    for row, cycle in zip(found.cycles, wanted, strict=True):
        assert (row.number, row.rewriter, row.accuracies) == (cycle.number, cycle.rewriter, cycle.accuracies)
        assert (row.valid.successes, row.valid.tries) == (cycle.valid, cycle.asked)
        assert (row.valid.low, row.valid.high) == pytest.approx(cycle.valid_interval)
        assert (row.new.successes, row.new.tries) == (cycle.new, cycle.valid)
        assert row.span == cycle.mean_interval
        assert (row.best, row.judged) == (cycle.best, cycle.judged)


def test_it_is_compared_with_the_baselines_at_the_same_fidelity(archive: Archive, ground: Any, judge: Any) -> None:
    ones = _loop(archive, ground, "m", Mutate(), number=12)
    others = _loop(archive, ground, "r", Uniform(), number=12)
    object.__setattr__(judge.spec, "epochs", 2)
    _loop(archive, ground, "longer", Uniform())
    found = loops(archive, "m-judge-1", ("random", "mutate"))
    assert found is not None
    assert {row.loop for row in found.cycles} == {"m", "r"}
    (gap,) = found.gaps
    mine, theirs = ([v for cycle in side[1:] for v in cycle.accuracies] for side in (ones, others))
    assert gap.gap == pytest.approx(fmean(mine) - fmean(theirs))
    assert gap.span == difference_interval(mine, theirs)
    # Mutations of the best of five beat draws where accuracy is a sum over families.
    assert (gap.rewriter, gap.verdict) == ("random", "better")
    assert found.missing_baselines == ("mutate",)
    (back,) = loops(archive, "r").gaps  # type: ignore[union-attr]
    assert (back.rewriter, back.verdict) == ("mutate", "worse")


def test_the_report_shows_it(archive: Archive, ground: Any) -> None:
    pytest.importorskip("plotly")
    _loop(archive, ground, "m", Mutate())
    _loop(archive, ground, "r", Uniform())
    report = collect(archive, "m", baselines=[entry.argument for entry in REWRITERS if entry.trusted])
    assert report.campaign.name == last_cycle(archive, "m") == "m-2"
    text = render(report)
    assert "The closed loop" in text
    assert text.count('data-what="cycles"') == text.count('data-what="loop-gaps"') == 1
    assert "nngen evolve NAME --rewriter mutate" in text
    for row in report.loops.cycles:  # type: ignore[union-attr]
        assert f"{row.judged:.4f}" in text


def test_a_campaign_that_is_no_loop_s_has_no_such_section(archive: Archive, ground: Any) -> None:
    _loop(archive, ground, "m", Mutate())
    assert loops(archive, "x-1") is None
    assert last_cycle(archive, "x") is None
    with pytest.raises(UsageError, match="m-1"):
        collect(archive, "m-l")


def test_intervals_of_differences_against_known_values() -> None:
    # Welch: (1, 2, 3) and (2, 4, 6): variances 1 and 4, freedom (5/3)^2 / ((1/3)^2 / 2 + (4/3)^2 / 2) = 50 / 17.
    span = difference_interval([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    half = 3.2188 * (5 / 3) ** 0.5
    assert span == pytest.approx((-2 - half, -2 + half), abs=2e-3)
    assert difference_interval([1.0], [2.0, 3.0]) is None
    assert difference_interval([1.0, 1.0], [3.0, 3.0]) == (-2.0, -2.0)
    assert mean_interval([2.0]) is None
