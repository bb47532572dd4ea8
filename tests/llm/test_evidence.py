"""Evidence of trials about plans: noise, effects of numbers, edits that were tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest

from nngen.analysis.ranking.reliability import ASSUMED_SD
from nngen.archive import StoredTrial, TrialState
from nngen.llm.proposals.evidence import noise_of, number_effects, number_lines, trained_plans, tried_edits
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.plan import Plan
from nngen.types import Shape, TrialSpec

SPACE = PlanSpace(families=tuple("ABCDEF"))
PLAN = Plan(experts=tuple("ABCD"))


def trials(rows: Sequence[tuple[Plan, str, float]]) -> list[StoredTrial]:
    """Return trained trials from plans, candidates and accuracies."""
    return [
        StoredTrial(
            id=number,
            campaign="c",
            position=number,
            rung=0,
            replicate=0,
            plan=plan,
            state=TrialState.DONE,
            candidate_id=candidate,
            spec=TrialSpec(dataset="digits", shape=Shape(1, 8, 8), seed=number),
            validation_accuracy=accuracy,
        )
        for number, (plan, candidate, accuracy) in enumerate(rows)
    ]


def test_the_noise_is_that_between_the_seeds_of_one_candidate() -> None:
    rows = [(PLAN, "a", 0.50), (PLAN, "a", 0.60), (PLAN, "b", 0.90), (PLAN, "b", 0.98), (PLAN, "a", 0.55)]
    noise = noise_of(trials(rows))
    # Squares about the means 0.55 and 0.94: 2 * 0.0025 + 2 * 0.0016, of 3 degrees of freedom.
    assert (noise.sd, noise.df) == (pytest.approx((0.0082 / 3) ** 0.5), 3)


@pytest.mark.parametrize("rows", [[], [(PLAN, "a", 0.5)], [(PLAN, "a", 0.5), (PLAN, "a", 0.501)]])
def test_noise_that_was_hardly_measured_is_assumed(rows: list[tuple[Plan, str, float]]) -> None:
    assert noise_of(trials(rows)).sd == ASSUMED_SD
    assert noise_of(trials(rows)).points == f"{100 * 2 * 2**0.5 * ASSUMED_SD:.1f}"


def test_code_that_a_rewriter_changed_does_not_count_as_its_parents_plan() -> None:
    (row,) = trained_plans(trials([(PLAN, "own", 0.5), (PLAN, "rewritten", 0.9), (PLAN, "own", 0.6)]))
    assert (row.candidate, row.seeds, row.accuracy, row.first) == ("own", 2, pytest.approx(0.55), 0)


def test_effects_of_numbers_come_back() -> None:
    rng = Random(0)
    worth = {0.0: 0.03, 0.1: 0.01, 0.2: -0.01, 0.4: -0.03}
    plans = [SPACE.draw(rng) for _ in range(300)]
    found = number_effects(
        trained_plans(
            trials(
                [
                    (plan, str(n), 0.5 + 0.05 * ("A" in plan.experts) + worth[plan.recipe.mixup] + rng.gauss(0, 0.01))
                    for n, plan in enumerate(plans)
                ]
            )
        )
    )
    mixup = {row.value: row for row in found if row.path == "recipe.mixup"}
    assert {value: row.effect for value, row in mixup.items()} == pytest.approx(worth, abs=0.005)
    assert all(0.0003 < row.error < 0.003 for row in mixup.values())
    assert sum(row.plans for row in mixup.values()) == 300
    assert all(abs(row.effect) < 0.006 for row in found if row.path != "recipe.mixup")
    lines = number_lines(found)
    assert lines[0]["name"] == "recipe.mixup"
    assert lines[0]["effect"].startswith("0 +")


def test_nothing_is_estimated_from_too_little() -> None:
    assert number_effects([]) == []
    same = trials([(replace(PLAN, experts=tuple(names)), names, 0.5) for names in ("ABCD", "ABCE", "ABDE")])
    assert number_effects(trained_plans(same)) == []
    flat = [(replace(PLAN, gate=replace(PLAN.gate, width=width)), str(width), 0.5) for width in (16, 32, 64)]
    assert number_effects(trained_plans(trials(flat))) == []


def test_tried_edits_have_gain_and_verdict() -> None:
    def changed(width: int) -> Plan:
        return replace(PLAN, gate=replace(PLAN.gate, width=width))

    other = replace(PLAN, experts=tuple("CDEF"))
    rows = trained_plans(
        trials([(PLAN, "p", 0.5), (changed(16), "a", 0.6), (changed(64), "b", 0.51), (other, "o", 0.9)])
    )
    found = tried_edits(rows[0], rows, noise_of([]))
    assert [(dict(edit), round(gain, 4), verdict) for edit, gain, verdict in found] == [
        ({"gate.width": 16}, 0.1, "better"),
        ({"gate.width": 64}, 0.01, "inside the noise"),
    ]
