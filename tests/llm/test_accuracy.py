from __future__ import annotations

from random import Random

import pytest

from nngen.errors import UsageError
from nngen.llm.accuracy import Case, Predictor, judge_predictors
from nngen.llm.plans import PlanSpace

SPACE = PlanSpace(families=tuple("ABCDEFGHIJ"))


def _cases(count: int, seed: int = 0, noise: float = 0.0) -> list[Case]:
    """Accuracies that are a sum over families and the gate's width, so that a good fit must find them."""
    rng, found = Random(seed), []
    for _ in range(count):
        plan = SPACE.draw(rng)
        truth = 0.4 + sum((ord(name) - 65) * 0.01 for name in plan.experts) + plan.gate.width / 1000
        accuracy = truth + rng.gauss(0, noise)
        found.append(Case(plan=plan, early=(accuracy - 0.1,), accuracy=accuracy))
    return found


def test_what_can_be_learned_is_learned() -> None:
    judged = {row.predictor: row for row in judge_predictors(_cases(80))}
    assert judged["plan"].rmse < 0.1 * judged["families"].rmse < judged["mean"].rmse
    assert (judged["plan"].rank or 0) > 0.99
    assert judged["mean"].rank is None


def test_early_epochs_help_where_the_plan_cannot_tell() -> None:
    judged = {row.predictor: row for row in judge_predictors(_cases(80, noise=0.05))}
    assert judged["plan + 1 epoch"].rmse < 0.5 * judged["plan"].rmse


def test_predictions_stay_inside_the_range_and_never_see_the_truth() -> None:
    known = _cases(40)
    model = Predictor(known)
    asked = [Case(plan=case.plan, early=case.early, accuracy=0.0) for case in known[:5]]
    assert model.predict(asked) == model.predict(known[:5])
    assert all(0 <= value <= 1 for value in model.predict(known))


def test_too_few_quartets() -> None:
    with pytest.raises(UsageError, match="too few to learn from"):
        judge_predictors(_cases(5))
