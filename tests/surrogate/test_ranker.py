"""Ranker of drafts, and the features of plans that it is fitted to."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from scipy.stats import kendalltau, norm, rankdata
from sklearn.gaussian_process import GaussianProcessRegressor

from nngen.llm.proposals.plan_space import PlanSpace
from nngen.plan import Gate, Losses, Plan, Recipe, flat_fields
from nngen.surrogate import ranker as module
from nngen.surrogate.plan_features import plan_features
from nngen.surrogate.plan_text import CHOICES
from nngen.surrogate.ranker import Anova, Ranker

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.random((120, 6))


def truth(rows):
    """Accuracies with an additive part, an interaction, and a column without effect."""
    return 0.5 + 0.1 * rows[:, 0] - 0.05 * rows[:, 1] + 0.1 * rows[:, 2] * rows[:, 3]


MEASURED = truth(ROWS) + 0.005 * RANDOM.standard_normal(len(ROWS))


def test_predictions_are_close_and_deviations_say_how_close():
    ranker = Ranker().fit(ROWS[:60], MEASURED[:60])
    mean, deviation = ranker.predict(ROWS[60:])
    errors = mean - truth(ROWS[60:])
    assert mean.shape == deviation.shape == (60,)
    assert float(kendalltau(mean, truth(ROWS[60:])).statistic) > 0.8
    assert np.mean(np.abs(errors) < 2 * deviation) > 0.8
    far = ranker.predict(ROWS[60:] + 3)[1]
    assert (far > deviation).all()


def test_a_choice_is_believed_as_if_it_were_measured():
    """Each step equals a process that got the predicted mean as an observation, with the same kernel."""
    ranker = Ranker().fit(ROWS[:30], MEASURED[:30])
    pool, kappa = ROWS[30:70], 2.0
    rows, values = ROWS[:30], norm.ppf((rankdata(MEASURED[:30]) - 0.5) / 30)
    wanted = []
    for _ in range(8):
        slow = GaussianProcessRegressor(ranker._signal, alpha=ranker._noise + 1e-10, optimizer=None)
        slow.fit(ranker._scaled(rows), values)
        mean, deviation = slow.predict(ranker._scaled(pool), return_std=True)
        score = mean + kappa * deviation
        score[wanted] = -np.inf
        wanted.append(int(score.argmax()))
        rows, values = np.vstack([rows, pool[wanted[-1]]]), np.append(values, mean[wanted[-1]])
    assert ranker.choose(pool, 8, kappa=kappa) == wanted


def test_twins_are_not_chosen_together():
    ranker = Ranker().fit(ROWS[:20], truth(ROWS[:20]))  # without noise a twin adds nothing
    pool = np.vstack([ROWS[40:80], ROWS[40:80]])
    chosen = ranker.choose(pool, 6, kappa=50.0)
    assert len({place % 40 for place in chosen}) == 6
    assert ranker.choose(pool[:3], 9) and sorted(ranker.choose(pool[:3], 9)) == [0, 1, 2]
    assert ranker.choose(pool[:0], 2) == []


def test_the_best_are_chosen_without_a_bonus():
    ranker = Ranker().fit(ROWS[:60], MEASURED[:60])
    mean, _ = ranker.predict(ROWS[60:])
    assert ranker.choose(ROWS[60:], 5, kappa=0) == np.argsort(-mean, kind="stable")[:5].tolist()


@pytest.mark.parametrize(
    ("rows", "values"),
    [
        (np.ones((3, 2)), np.array([0.5, 0.6, 0.7])),
        (ROWS[:9], np.full(9, 0.4)),
        (ROWS[:1], np.array([0.3])),
        (ROWS[[0, 0, 0, 1]], np.array([0.1, 0.2, 0.3, 0.4])),
    ],
    ids=["equal rows", "equal accuracies", "one row", "repeated rows"],
)
def test_data_that_say_nothing_are_fitted(rows, values):
    mean, deviation = Ranker().fit(rows, values).predict(rows)
    assert np.isfinite(mean).all()
    assert np.isfinite(deviation).all()
    assert mean == pytest.approx(np.full(len(rows), values.mean()), abs=0.15)


def test_rows_that_learn_nothing_do_not_hide_the_differences_between_the_best():
    rows = np.hstack([ROWS, RANDOM.integers(0, 2, (len(ROWS), 1))])
    learned = np.where(rows[:, 6] > 0, truth(ROWS), 0.1)
    measured = learned + 0.005 * RANDOM.standard_normal(len(ROWS))
    mean, _ = Ranker().fit(rows[:60], measured[:60]).predict(rows[60:])
    good = rows[60:, 6] > 0
    assert float(kendalltau(mean[good], learned[60:][good]).statistic) > 0.6
    assert np.mean((mean > 0.3) == good) > 0.95


def test_fields_without_effect_are_found_from_few_rows():
    """With the fields as groups, interactions of two of them stand out among twenty indicators without any effect."""
    rng = np.random.default_rng(1)
    taus: dict[str, list[float]] = {"fields": [], "one group": []}
    for _ in range(5):
        kinds, numbers = rng.integers(0, 5, (90, 4)), rng.random((90, 2))
        rows = np.hstack([*(np.eye(5)[kinds[:, place]] for place in range(4)), numbers])
        values = numbers[:, 0] * (0.2 + numbers[:, 1]) + 0.02 * rng.standard_normal(90)
        fields = [*(list(range(5 * place, 5 * place + 5)) for place in range(4)), [20], [21]]
        for name, groups in (("fields", fields), ("one group", None)):
            mean, _ = Ranker(groups).fit(rows[:26], values[:26]).predict(rows[26:])
            taus[name].append(float(kendalltau(mean, values[26:]).statistic))
    assert np.mean(taus["fields"]) > 0.7 > np.mean(taus["one group"]) + 0.1


def test_the_kernel_of_groups_is_that_of_its_formula_with_its_derivatives():
    groups, lengths, rows = [[0, 1], [2], [4]], (0.5, 0.3, 0.2), ROWS[:9]
    kernel = Anova(groups, lengths, np.array([0.4, 2.0, 1e-3]))
    expected = np.ones((9, 9))
    for own, length, weight in zip(groups, lengths, kernel.weights, strict=True):
        away = ((rows[:, np.newaxis, own] - rows[np.newaxis, :, own]) ** 2).sum(axis=2)
        expected *= 1 + weight * np.exp(-away / (2 * length**2))
    found, slope = kernel(rows, eval_gradient=True)
    assert found == pytest.approx(expected) and kernel(rows, rows) == pytest.approx(expected)
    assert kernel.diag(rows) == pytest.approx(np.diag(expected))
    for place in range(3):
        step = np.eye(3)[place] * 1e-6
        ahead, behind = (kernel.clone_with_theta(kernel.theta + sign * step)(rows) for sign in (1, -1))
        assert slope[:, :, place] == pytest.approx((ahead - behind) / 2e-6, abs=1e-6)


def test_many_rows_are_thinned_out(monkeypatch):
    monkeypatch.setattr(module, "_MOST_KNOWN", 60)
    monkeypatch.setattr(module, "_MOST_TUNED", 30)
    mean, _ = Ranker().fit(ROWS, MEASURED).predict(ROWS)
    assert float(kendalltau(mean, truth(ROWS)).statistic) > 0.7


SPACE = PlanSpace(families=tuple("ABCDEFGH"))


def test_every_field_of_a_plan_is_a_feature():
    plan = Plan(experts=tuple("ABCD"))
    others = [
        replace(plan, gate=Gate(routing="top-k")),
        replace(plan, gate=Gate(learned_noise=True)),
        replace(plan, losses=Losses(z=0.001)),
        replace(plan, losses=Losses(others=(("mine", 0.5),))),
        replace(plan, recipe=Recipe(optimizer="sgd")),
        replace(plan, recipe=Recipe(ema=0.99)),
        replace(plan, experts=tuple("ABCE")),
        replace(plan, experts=tuple("AABB"), repeats=True),
    ]
    for path, values in CHOICES.items():
        part, name = path.split(".")
        others += [replace(plan, **{part: replace(getattr(plan, part), **{name: value})}) for value in values]
    rows, groups = plan_features([plan, *others])
    assert len(groups) == len({*flat_fields(plan), *flat_fields(others[3])})
    same = [other for other, row in zip(others, rows[1:], strict=True) if (row == rows[0]).all()]
    assert all(other == plan for other in same)


def test_pairs_that_work_together_are_found():
    """Accuracies that a sum over families cannot express are ranked by the pairs among the features."""
    rng = Random(0)
    plans = [SPACE.draw(rng) for _ in range(160)]
    values = np.array([0.5 + 0.1 * (("A" in plan.experts) == ("B" in plan.experts)) for plan in plans])
    rows, groups = plan_features(plans)
    mean, _ = Ranker(groups).fit(rows[:120], values[:120]).predict(rows[120:])
    assert mean[values[120:] > 0.55].min() > mean[values[120:] < 0.55].max()
