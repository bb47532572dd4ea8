"""Rankings of all mixtures of a pool, a ranker learnt from joint trainings, and the trust that each score deserves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, harmonic_mean

import numpy as np

from nngen.space.pool import EXPERTS
from nngen.surrogate.experts import Experts, Floats, Ints, JointAccuracies
from nngen.surrogate.learned_ranker import ACCURACIES, LearnedRanker, predict_left_out
from nngen.surrogate.plan_accuracy import MIN_GROUPS, fit_ridge, folds
from nngen.surrogate.scores import all_mixtures, score_mixtures
from nngen.surrogate.search import top_mixtures

LEARNED, EFFECTS = "learned", "effects"
"""Predictions that are fitted to joint trainings: from scores, families and pairs, and from the families alone."""

UNSEEN = "learned_unseen"
"""Agreement of the learned prediction where one of a mixture's families is in no training of the fit: the mean over
four choices of that family."""

DEFAULT = "mean_probabilities"
"""Score that ranks where too few mixtures were trained jointly for the learned one."""

MOST_LISTED = 100_000
"""Mixtures of a pool up to which all are scored (40 families have 91,390); else those that a search finds."""

_NORMAL = 1.96
_TOP = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Agreement of a score with accuracies after joint training."""

    score: str  # name of the score
    mixtures: int  # number of mixtures that were trained jointly
    tau: float | None  # Kendall's tau-b; None where the score or the accuracies are all equal
    low: float | None  # lower end of its 95 % interval
    high: float | None  # upper end of its 95 % interval
    regret: float | None  # accuracy of the best mixture less that of the best among the top twentieth by the score


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranking:
    """All mixtures of a pool with their scores."""

    experts: Experts  # the experts
    # places of the experts of each mixture, ``(Q, 4)``, in lexicographic order; all of them, or those that a search
    # found
    mixtures: Ints
    # scores by name, each ``(Q,)``; ``learned`` and ``effects`` where enough were trained jointly
    scores: Mapping[str, Floats]
    deviation: Floats | None  # standard deviation of the learned prediction, ``(Q,)``; None without one
    joint: JointAccuracies  # accuracies of the mixtures that were trained jointly
    # agreement of each score with these; that of fitted ones on mixtures left out of the fit, and on families
    agreements: tuple[Agreement, ...]
    ceiling: float | None  # largest tau that a score without noise would reach on average; None without repeated seeds

    @property
    def space(self) -> int:
        """Number of all mixtures of the experts."""
        return math.comb(len(self.experts.families), EXPERTS)

    @property
    def default(self) -> str:
        """Name of the score to rank by where none is asked for."""
        return LEARNED if LEARNED in self.scores else DEFAULT

    def order(self, by: str) -> Ints:
        """Return the mixtures from the best to the worst; what has no score comes last."""
        return np.argsort(-np.nan_to_num(self.scores[by], nan=-math.inf), kind="stable")

    def belief(self, by: str) -> str:
        """Say in one clause how far the order by a score can be believed."""
        found = next((row for row in self.agreements if row.score == by), None)
        if found is None or found.tau is None or found.low is None:
            trained = f"{len(self.joint)} of these mixtures were trained jointly" if self.joint else "none was trained"
            return (
                f"how well {by} ranks jointly trained mixtures is not known, because {trained} at this fidelity"
                f" (at least {MIN_GROUPS} are needed)"
            )
        most = "" if self.ceiling is None else f"; noise between seeds allows {self.ceiling:.2f} at most"
        unseen = next((row.tau for row in self.agreements if row.score == UNSEEN), None)
        left = ", on mixtures left out of its fit" if by == LEARNED else ""
        left += f" ({unseen:.2f} where one of their families is new to it)" if left and unseen is not None else ""
        return (
            f"{by} agrees with the accuracies of {found.mixtures} jointly trained mixtures by a tau of {found.tau:.2f}"
            f" ({found.low:.2f} to {found.high:.2f}){left}{most}"
        )


def rank_mixtures(
    experts: Experts,
    joint: JointAccuracies,
    *,
    scores: Mapping[str, Floats] | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Ranking:
    """Score all mixtures of four experts, and compare the scores with joint trainings where there are enough.

    Args:
        experts: The experts.
        joint: Accuracies of mixtures that were trained jointly with the experts' fidelity.
        scores: Scores of an earlier ranking of the same experts; None to compute them.
        device: ``cpu`` or ``cuda``.
        progress: Receives (done, total) seeds.
    """
    mixtures = listed_mixtures(experts, joint, device)
    if scores is None:
        scores = score_mixtures(experts, mixtures, device=device, progress=progress)
    scores = {name: values for name, values in scores.items() if name not in (LEARNED, EFFECTS)}
    place = {tuple(row): number for number, row in enumerate(mixtures.tolist())}
    trained = np.array([place[members] for members in joint], dtype=np.int64)
    truth = np.array([fmean(seeds) for seeds in joint.values()])
    deviation, rows = None, []
    if len(trained) >= MIN_GROUPS:
        rows = [agreement(name, values[trained], truth) for name, values in scores.items()]
        members = _membership(mixtures, len(experts.families))
        scores[EFFECTS] = np.array(fit_ridge(members[trained], truth.tolist())(members))
        rows.append(agreement(EFFECTS, _left_out(members[trained], truth), truth))
        table, width = _rows(scores, members)
        ranker = LearnedRanker(width).fit(table[trained], truth)
        scores[LEARNED], deviation = ranker.predict(table)
        left_out, unseen = predict_left_out(ranker, table[trained], truth, width, MIN_GROUPS)
        rows += [agreement(LEARNED, left_out, truth), *_averaged([agreement(UNSEEN, row, truth) for row in unseen])]
    return Ranking(
        experts=experts,
        mixtures=mixtures,
        scores=scores,
        deviation=deviation,
        joint=joint,
        agreements=tuple(rows),
        ceiling=_ceiling(joint),
    )


def listed_mixtures(experts: Experts, joint: JointAccuracies, device: str) -> Ints:
    """List all mixtures of four, or of a pool with too many those that a search finds and those that were trained."""
    if math.comb(len(experts.families), EXPERTS) <= MOST_LISTED:
        return all_mixtures(len(experts.families))
    found = top_mixtures(experts, device=device)
    return np.unique(np.vstack([found, *(np.array([members]) for members in joint)]), axis=0)


def agreement(score: str, values: Floats, truth: Floats) -> Agreement:
    """Compare a score with accuracies; the interval is Fieller's (1957), what is not finite is left out."""
    from scipy.stats import kendalltau

    known = np.isfinite(values)
    values, truth = values[known], truth[known]
    tau = float(kendalltau(values, truth).statistic) if len(values) > 1 else math.nan
    if math.isnan(tau):
        return Agreement(score=score, mixtures=len(values), tau=None, low=None, high=None, regret=None)
    half = _NORMAL * math.sqrt(0.437 / (len(values) - 4)) if len(values) > 4 else math.inf
    middle = math.atanh(min(max(tau, -1 + 1e-9), 1 - 1e-9))
    low, high = math.tanh(middle - half), math.tanh(middle + half)
    top = np.argsort(-values, kind="stable")[: math.ceil(_TOP * len(values))]
    regret = float(truth.max() - truth[top].max())
    return Agreement(score=score, mixtures=len(values), tau=tau, low=low, high=high, regret=regret)


def seed_ceiling(first: Floats, second: Floats, seeds: float) -> float | None:
    """Return the highest tau that a score without noise can have with the means of so many seeds.

    The intraclass correlation is that of two normal variables whose order agrees like that of two seeds,
    ``sin(pi tau / 2)``. An analysis of variance would take a few bad mixtures for reliability: on NAS-Bench-201 it
    predicts a tau of .97 where .92 is measured (``eval/surrogate_tables.py``).

    Args:
        first: Accuracies with one seed, ``(n,)``.
        second: Accuracies of the same mixtures with another seed.
        seeds: Number of seeds of the means.
    """
    from scipy.stats import kendalltau

    tau = float(kendalltau(first, second).statistic) if len(first) >= MIN_GROUPS else math.nan
    if math.isnan(tau):
        return None
    one = math.sin(math.pi / 2 * max(tau, 0.0))
    return 2 / math.pi * math.asin(math.sqrt(seeds * one / (1 + (seeds - 1) * one)))


def _ceiling(joint: JointAccuracies) -> float | None:
    again = np.array([seeds[:2] for seeds in joint.values() if len(seeds) > 1]).reshape(-1, 2)
    return seed_ceiling(again[:, 0], again[:, 1], harmonic_mean(map(len, joint.values()))) if joint else None


def _averaged(rows: Sequence[Agreement]) -> list[Agreement]:
    """Average agreements that all have a tau and an interval; nothing where one has none."""
    found = [(row.tau, row.low, row.high, row.regret) for row in rows if row.tau is not None]
    if len(found) < len(rows):
        return []
    tau, low, high, regret = (float(np.mean(values)) for values in zip(*found, strict=True))
    return [replace(rows[0], tau=tau, low=low, high=high, regret=regret)]


def _membership(mixtures: Ints, experts: int) -> Floats:
    found = np.zeros((len(mixtures), experts))
    np.put_along_axis(found, mixtures, 1.0, axis=1)
    return found


def _rows(scores: Mapping[str, Floats], members: Floats) -> tuple[Floats, int]:
    """Return the accuracies that are known for every mixture and its families, ``(Q, S + E)``, and their number."""
    own = [scores[name] for name in ACCURACIES if name in scores and np.isfinite(scores[name]).all()]
    return np.hstack([np.stack(own, axis=1), members]), len(own)


def _left_out(members: Floats, truth: Floats) -> Floats:
    """Predict each mixture by family effects fitted to the mixtures of the other folds."""
    found = np.full(len(truth), np.nan)
    for train, test in folds([str(number) for number in range(len(truth))]):
        found[test] = fit_ridge(members[train], truth[train].tolist())(members[test])
    return found
