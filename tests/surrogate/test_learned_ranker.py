"""The learned ranker: its covariances, what it learns from, and what it is told apart from."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import kendalltau

from nngen.surrogate import learned_ranker
from nngen.surrogate.learned_ranker import LearnedRanker, Shared, predict_left_out

FAMILIES = 9
MIXTURES = np.array(list(combinations(range(FAMILIES), 4)))
MEMBERS = np.zeros((len(MIXTURES), FAMILIES))
np.put_along_axis(MEMBERS, MIXTURES, 1.0, axis=1)
PAIRS = np.stack([MEMBERS[:, one] * MEMBERS[:, two] for one, two in combinations(range(FAMILIES), 2)], axis=1)


def rows(*scores):
    return np.column_stack([*scores, MEMBERS])


def tau(one, other):
    return kendalltau(one, other).statistic


@pytest.mark.parametrize(("what", "columns"), [("families", MEMBERS / 2), ("pairs", PAIRS / 6**0.5)])
def test_covariances_are_those_of_effects(what, columns):
    table, kernel = rows(np.zeros(len(MIXTURES))), Shared(what, 1, 3.0)
    assert kernel(table) == pytest.approx(3.0 * columns @ columns.T)
    assert kernel(table[:5], table[7:9]) == pytest.approx(3.0 * columns[:5] @ columns[7:9].T)
    assert kernel.diag(table) == pytest.approx(np.diag(kernel(table)))


def test_the_covariance_of_scores_is_that_of_a_linear_model():
    own = np.random.default_rng(0).normal(size=(len(MIXTURES), 3))
    kernel = Shared("scores", 3, 2.0)
    assert kernel(rows(*own.T)) == pytest.approx(2.0 / 3 * own @ own.T)
    assert kernel.diag(rows(*own.T)) == pytest.approx(np.diag(kernel(rows(*own.T))))
    value, gradient = kernel(rows(*own.T), eval_gradient=True)
    wider, narrower = (Shared("scores", 3, 2.0 * factor)(rows(*own.T)) for factor in (np.exp(1e-5), np.exp(-1e-5)))
    assert gradient[:, :, 0] == pytest.approx((wider - narrower) / 2e-5, abs=1e-6)
    assert value == pytest.approx(kernel(rows(*own.T)))


@pytest.fixture
def truth():
    """Accuracies that follow one of two scores, families and pairs, beside their noise."""
    random = np.random.default_rng(1)
    score, other = random.normal(size=(2, len(MIXTURES)))
    exact = 0.4 + 0.02 * score + MEMBERS @ random.normal(0, 0.02, FAMILIES) + PAIRS @ random.normal(0, 0.01, 36)
    return rows(score, other), exact, exact + random.normal(0, 0.004, len(exact))


def test_scores_families_and_pairs_are_learnt(truth):
    table, exact, seen = truth
    order = np.random.default_rng(2).permutation(len(seen))
    known, rest = order[:90], order[90:]
    means, deviations = LearnedRanker(2).fit(table[known], seen[known]).predict(table[rest])
    assert tau(means, exact[rest]) > 0.8
    alone = LearnedRanker(2).fit(table[known, :2], seen[known]).predict(table[rest, :2])[0]
    assert tau(means, exact[rest]) > tau(alone, exact[rest]) + 0.2
    # Calibrated: errors are as large as the deviations say.
    assert 0.6 < float(np.std((means - exact[rest]) / deviations)) < 1.6


def test_blocks_change_nothing(truth, monkeypatch):
    table, _, seen = truth
    ranker = LearnedRanker(2).fit(table, seen)
    whole = ranker.predict(table)
    monkeypatch.setattr(learned_ranker, "_BLOCK", 50)
    for one, other in zip(ranker.predict(table), whole, strict=True):
        assert one == pytest.approx(other)


def test_accuracies_that_are_equal_are_predicted():
    means, deviations = LearnedRanker(1).fit(rows(np.arange(126.0)), np.full(126, 0.25)).predict(rows(np.zeros(126)))
    assert means == pytest.approx(0.25) and np.isfinite(deviations).all()


def test_a_mixture_and_an_unseen_family_are_never_in_the_fit(truth, monkeypatch):
    table, _, seen = truth
    fits, real = [], LearnedRanker.predict
    kept = LearnedRanker.fit

    def fit(self, known, values, like=None):
        self.known = known
        return kept(self, known, values, like)

    def predict(self, asked):
        fits.append((self.known, asked))
        return real(self, asked)

    monkeypatch.setattr(LearnedRanker, "fit", fit)
    monkeypatch.setattr(LearnedRanker, "predict", predict)
    mixtures, families = predict_left_out(LearnedRanker(2).fit(table, seen), table, seen, 2, 8)
    assert np.isfinite(mixtures).all() and np.isfinite(families).all()
    assert len(fits) == 5 + FAMILIES
    for known, asked in fits:
        assert not {row.tobytes() for row in known} & {row.tobytes() for row in asked}
    for known, asked in fits[5:]:
        shared = asked[:, 2:].all(axis=0)  # the family that every predicted mixture has
        assert shared.sum() == 1 and not known[:, 2:][:, shared].any()
    assert families.shape == (4, len(MIXTURES)) and len(np.unique(families)) == 4 * len(MIXTURES)
    assert tau(mixtures, seen) > max(tau(row, seen) for row in families)


def test_too_few_mixtures_without_a_family_are_not_fitted(truth):
    table, _, seen = truth
    crowded = np.flatnonzero(MEMBERS[:, 0] + MEMBERS[:, 1] >= 1)[:40]  # a family that most of them have
    table, seen = table[crowded], seen[crowded]
    _, families = predict_left_out(LearnedRanker(2).fit(table, seen), table, seen, 2, 8)
    assert np.isnan(families).any() and np.isfinite(families).any()
