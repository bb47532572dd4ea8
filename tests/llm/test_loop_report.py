"""Report of closed loops, run by ``Evolution`` with a fake engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
from plan_engine import SPEC, PlanEngine

from nngen.analysis.loop_report import LoopCycle, last_cycle, loops
from nngen.analysis.report import collect, render
from nngen.analysis.statistics import difference_interval, mean_interval, mean_share_interval, wilson
from nngen.archive import Archive
from nngen.campaign.protocols import CampaignInputs
from nngen.errors import UsageError
from nngen.llm.evolve import Evolution
from nngen.llm.rewriters.baselines import Mutate, Uniform
from nngen.llm.rewriters.factory import REWRITERS

Run = Callable[..., list[LoopCycle]]


@pytest.fixture
def run(archive: Archive, engine: PlanEngine, inputs: CampaignInputs) -> Run:
    """Run a loop of two cycles."""

    def run(name: str, rewriter: Any, number: int = 4, epochs: int = 1) -> list[LoopCycle]:
        spec = replace(SPEC, name=name, epochs=epochs)
        settings: dict[str, Any] = {"cycles": 2, "start": 5, "number": number, "patience": 9}
        loop = Evolution(spec=spec, archive=archive, inputs=inputs, engine=engine, rewriter=rewriter, **settings)
        return loop.run()

    return run


def test_cycles_equal_those_of_the_loop(archive: Archive, run: Run) -> None:
    wanted = run("tries-2", Mutate())
    found = loops(archive, "tries-2-1")
    assert found is not None
    assert found.name == "tries-2"
    assert list(found.cycles) == wanted
    assert wanted[1].gain is not None


def test_loops_of_the_same_fidelity_are_compared(archive: Archive, run: Run) -> None:
    ones = run("m", Mutate(), number=12)
    others = run("r", Uniform(), number=12)
    run("longer", Uniform(), epochs=2)
    found = loops(archive, "m-judge-1", ("random", "mutate"))
    assert found is not None
    assert {row.loop for row in found.cycles} == {"m", "r"}
    (gap,) = found.gaps
    mine, theirs = ([v for cycle in side[1:] for v in cycle.accuracies] for side in (ones, others))
    assert gap.gap == pytest.approx(fmean(mine) - fmean(theirs))
    assert gap.span == difference_interval(mine, theirs)
    # If accuracy is a sum over families, mutations of the best of five are better than draws.
    assert (gap.rewriter, gap.verdict) == ("random", "better")
    assert found.missing_baselines == ("mutate",)
    (back,) = loops(archive, "r").gaps  # type: ignore[union-attr]
    assert (back.rewriter, back.verdict) == ("mutate", "worse")


def test_the_report_has_a_section_on_the_loop(archive: Archive, run: Run) -> None:
    run("m", Mutate())
    run("r", Uniform())
    report = collect(archive, "m", baselines=[entry.argument for entry in REWRITERS if entry.trusted])
    assert report.campaign.name == last_cycle(archive, "m") == "m-2"
    text = render(report)
    assert "The closed loop" in text
    assert text.count('data-what="cycles"') == text.count('data-what="loop-gaps"') == 1
    assert "nngen evolve NAME --rewriter mutate" in text
    for row in report.loops.cycles:  # type: ignore[union-attr]
        assert f"{row.judged:.4f}" in text


def test_a_campaign_outside_of_loops_has_no_such_section(archive: Archive, run: Run) -> None:
    run("m", Mutate())
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


def test_intervals_of_shares_stay_between_0_and_1() -> None:
    assert mean_share_interval([0.99, 1.0, 0.95]) == (pytest.approx(0.9143, abs=1e-3), 1.0)
    assert mean_share_interval([0.0, 0.02, 0.01])[0] == 0.0  # type: ignore[index]
    assert mean_share_interval([0.5]) is None
    for successes in (0, 7):
        rate = wilson(successes, 7)
        assert 0.0 <= rate.low <= rate.high <= 1.0
