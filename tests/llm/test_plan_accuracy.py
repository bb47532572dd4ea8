"""Predictors of accuracy from plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest

from nngen.archive import Archive, ExternalModel, ExternalResult, StoredTrial, TrialState
from nngen.errors import UsageError
from nngen.llm.finetuning.examples import improvement_examples
from nngen.llm.proposals.parents import at_fidelity
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.plan import Plan
from nngen.surrogate.plan_accuracy import (
    LANGUAGE_MODEL,
    Case,
    Matrix,
    PlanRegressor,
    TextRegressor,
    compare_predictors,
    folds,
)
from nngen.surrogate.plan_text import plan_text
from nngen.surrogate.records import compare_on_records, recorded_cases
from nngen.types import Record, Shape, TrialSpec

SPACE = PlanSpace(families=tuple("ABCDEFGHIJ"))


def _cases(count: int, seed: int = 0, noise: float = 0.0) -> list[Case]:
    """Return cases whose accuracies are sums over families and the gate's width, which a good fit recovers."""
    rng, found = Random(seed), []
    for _ in range(count):
        plan = SPACE.draw(rng)
        truth = 0.4 + sum((ord(name) - 65) * 0.01 for name in plan.experts) + plan.gate.width / 1000
        accuracy = truth + rng.gauss(0, noise)
        found.append(Case(plan=plan, early=(accuracy - 0.1,), accuracy=accuracy))
    return found


def test_a_linear_truth_is_fitted() -> None:
    judged = {row.predictor: row for row in compare_predictors(_cases(80))}
    assert judged["plan"].rmse < 0.1 * judged["families"].rmse < judged["mean"].rmse
    assert (judged["plan"].rank or 0) > 0.99
    assert judged["mean"].rank is None


def test_early_epochs_explain_noise_that_the_plan_does_not() -> None:
    judged = {row.predictor: row for row in compare_predictors(_cases(80, noise=0.05))}
    assert judged["plan + 1 epoch"].rmse < 0.5 * judged["plan"].rmse


def test_predictions_lie_in_the_unit_interval_and_ignore_the_truth() -> None:
    known = _cases(40)
    model = PlanRegressor(known)
    asked = [Case(plan=case.plan, early=case.early, accuracy=0.0) for case in known[:5]]
    assert model.predict(asked) == model.predict(known[:5])
    assert all(0 <= value <= 1 for value in model.predict(known))


def test_too_few_quartets_are_refused() -> None:
    with pytest.raises(UsageError, match="too few to learn from"):
        compare_predictors(_cases(5))


def _letters(texts: Sequence[str]) -> Matrix:
    """Count family letters and the gate's width, in place of a language model."""
    return np.array(
        [[float(f'"{name}"' in text) for name in "ABCDEFGHIJ"] + [float('"width":64' in text)] for text in texts]
    )


def test_a_text_regressor_is_compared_with_the_others() -> None:
    known = _cases(80)
    judged = {row.predictor: row for row in compare_predictors(known, _letters)}
    assert LANGUAGE_MODEL not in {row.predictor for row in compare_predictors(known)}
    assert judged[LANGUAGE_MODEL].rmse < judged["families"].rmse < judged["mean"].rmse
    asked = [Case(plan=case.plan, early=(), accuracy=0.0) for case in known[:5]]
    assert TextRegressor(known, _letters).predict(asked) == pytest.approx(
        [case.accuracy for case in known[:5]], abs=0.02
    )


def test_no_group_is_on_both_sides_of_a_fold() -> None:
    groups = [f"g{number % 11}" for number in range(60)]
    for learned, held in folds(groups):
        assert not {groups[index] for index in learned} & {groups[index] for index in held}
        assert sorted(learned + held) == list(range(60))


def _foreign(archive: Archive, name: str, source: str, accuracy: float) -> None:
    model = ExternalModel(origin="o", name=name, kind="generated", nn_id=name, canonical=name, source=source)
    number = archive.external.add_models([model])[name]
    record = Record(model=name, dataset="cifar-10", epoch=1, accuracy=accuracy, duration_s=1.0, hyperparameters={})
    row = ExternalResult(model_id=number, task="img-classification", metric="acc", uid=name, record=record)
    archive.external.add_results([row])


def test_imported_models_are_predicted_from_their_code(archive: Archive) -> None:
    with pytest.raises(UsageError, match="0 imported models have records on cifar-10 after 1 epoch"):
        recorded_cases(archive, "cifar-10", 1, 100)
    for number in range(48):
        depth = number % 6 + 1
        code = "import torch.nn as nn\n" + "".join(f"a{place} = nn.Conv2d({number}, 3, 3)\n" for place in range(depth))
        code += f"b{number // 6} = 0\n"
        _foreign(archive, f"{'alt' if number % 2 else 'rag'}-{number:08x}", code, 0.3 + 0.05 * depth)
    known = recorded_cases(archive, "cifar-10", 1, 100)
    assert {case.family for case in known} == {"alt", "rag"}
    assert len(known) == len({case.group for case in known}) == 48
    judged = {
        row.predictor: row for row in compare_on_records(known, lambda texts: np.array([[len(t)] for t in texts]))
    }
    assert judged["size of the code"].rmse < 0.2 * judged["mean"].rmse
    assert {LANGUAGE_MODEL, f"families + {LANGUAGE_MODEL}", "families"} <= set(judged)
    assert len(recorded_cases(archive, "cifar-10", 1, 10)) == 10


def test_code_that_differs_in_constants_is_one_group(archive: Archive) -> None:
    for number in range(10):
        _foreign(archive, f"alt-{number:08x}", f"x = {number}", 0.5)
    with pytest.raises(UsageError, match="1 different models are too few"):
        compare_on_records(recorded_cases(archive, "cifar-10", 1, 100))


def test_trials_of_another_fidelity_are_not_comparable() -> None:
    def trial(
        number: int, experts: str, accuracy: float, data: str = "d", halved: int | None = None, **settings: Any
    ) -> StoredTrial:
        spec = TrialSpec(dataset="digits", shape=Shape(1, 8, 8), **settings)
        return StoredTrial(
            id=number, campaign="c", position=number, rung=0, replicate=0, plan=Plan(experts=tuple(experts)),
            state=TrialState.DONE, candidate_id=f"c{number}", spec=spec, validation_accuracy=accuracy,
            data_fingerprint=data, batch=halved,
        )  # fmt: skip

    trials = [
        trial(0, "ABCD", 0.3),
        trial(1, "ABCE", 0.6, batch=32),
        trial(2, "ABDE", 0.7, lr=0.1),
        trial(3, "ABCF", 0.8, halved=32),
        trial(4, "ABDF", 0.9, data="another version"),
        trial(5, "ACDF", 0.9, momentum=0.5),
        trial(6, "BCDF", 0.9, hyperparameters={"dropout": 0.5}),
    ]
    fidelity = trials[0].fidelity
    assert fidelity is not None
    assert at_fidelity(trials, fidelity) == trials[:1]
    assert trials[3].fidelity == replace(fidelity, batch=32)
    space = PlanSpace(families=tuple("ABCDEF"))
    # The one of batch 32 and the one that was halved to it are alike; the better one answers the other.
    good = {example.origin for example in improvement_examples(trials, space) if example.good}
    assert good == {plan_text(trials[1].plan)}
    assert list(improvement_examples([trials[0], replace(trials[1], spec=trials[0].spec)], space))


@pytest.mark.parametrize("code", ["x = (", "x = " + "-" * 100_000 + "1", "x = " + "not " * 900 + "1", "x = '\0'"])
def test_imported_models_whose_code_cannot_be_read_are_groups_of_their_own(archive: Archive, code: str) -> None:
    for number in range(10):
        _foreign(archive, f"alt-{number:08x}", f"{code}  # {number}", 0.5)
    cases = recorded_cases(archive, "cifar-10", 1, 100)
    assert len({case.group for case in cases}) in (1, 10)
