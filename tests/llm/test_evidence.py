"""Evidence of trials about plans: noise, effects of numbers, edits that were tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest

from nngen.analysis.ranking.reliability import ASSUMED_SD
from nngen.archive import StoredTrial, TrialState
from nngen.llm.prompts import estimate_tokens, prompt, render
from nngen.llm.proposals.evidence import noise_of, number_effects, number_lines, trained_plans, tried_edits
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.proposals.prompt_context import plan_values
from nngen.plan import Plan
from nngen.types import Outcome, Shape, TrialSpec, Verdict

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
            verdict=Verdict(outcome=Outcome.VALID),
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


def test_effects_of_rates_are_those_of_the_plans_that_have_the_family() -> None:
    rng = Random(1)
    plans = [SPACE.draw(rng) for _ in range(300)]
    worth = {0.1: 0.0, 0.3: 0.02, 1.0: 0.05, 3.0: 0.1}
    gains = [worth[dict(plan.rates).get("A", 1.0)] if "A" in plan.experts else 0.0 for plan in plans]
    rows = [(plan, str(number), 0.5 + gain) for number, (plan, gain) in enumerate(zip(plans, gains, strict=True))]
    found = {row.value: row for row in number_effects(trained_plans(trials(rows))) if row.path == "rates.A"}
    assert sum(row.plans for row in found.values()) == sum("A" in plan.experts for plan in plans)
    mean = sum(gains) / sum("A" in plan.experts for plan in plans)
    for value, row in found.items():
        assert row.effect == pytest.approx(worth[float(value)] - mean, abs=0.01)


def test_a_prompt_has_room_for_families_and_plans_beside_the_clearest_numbers() -> None:
    rng = Random(2)
    plans = [SPACE.draw(rng) for _ in range(40)]
    values = plan_values(trials([(plan, str(n), rng.random()) for n, plan in enumerate(plans)]), SPACE)
    assert len(values["numbers"]) == 6
    text = render(prompt("plan"), values, estimate_tokens).messages[-1].content
    assert "Families and their measured effect" in text and "The best plans so far" in text


def test_a_prompt_names_the_pairs_that_are_clear_of_zero() -> None:
    rng = Random(3)
    plans = [SPACE.draw(rng) for _ in range(200)]
    gains = [0.2 if {"A", "B"} <= set(plan.experts) else 0.0 for plan in plans]
    rows = [
        (plan, str(n), 0.5 + gain + rng.gauss(0, 0.005))
        for n, (plan, gain) in enumerate(zip(plans, gains, strict=True))
    ]
    pairs = {row["name"]: row["effect"] for row in plan_values(trials(rows), SPACE)["pairs"]}
    assert pairs["A + B"].startswith("+")
    spans = [effect.split("[")[1].split("]")[0].split(", ") for effect in pairs.values()]
    assert all(float(low) * float(high) > 0 for low, high in spans)
    noise = [(plan, str(n), 0.5 + rng.gauss(0, 0.02)) for n, plan in enumerate(plans[:30])]
    assert plan_values(trials(noise), SPACE)["pairs"] == []
