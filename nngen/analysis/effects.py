"""Effects of families and of pairs of families on the accuracy of a mixture, with intervals.

The accuracy of a quartet is the sum of a mean, an effect of each of its families, an effect of each of
its pairs, and a residual. Family effects sum to zero over the families that can be compared; pair
effects sum to zero over each family's pairs, so a pair effect is the accuracy of two families together
beyond their own effects. The reasons are in ``docs/design/0005-effects.md``.
"""

from __future__ import annotations

import enum
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np

from nngen.analysis import mixed_model
from nngen.analysis.caveats import sample_notes
from nngen.analysis.design_matrix import Matrix, Structure, centred_pairs, family_matrix, pair_matrix, structure
from nngen.analysis.observations import Observation, success_rates, trained_quartets
from nngen.analysis.ranking.reliability import Reliability, reliability
from nngen.analysis.statistics import Interval, Rate, benjamini_hochberg, holm
from nngen.space.pool import EXPERTS
from nngen.space.rank import dimensions
from nngen.space.registry import Scores

_SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyEffect:
    """Effect of having a family in a mixture, against an average family in its place.

    Attributes:
        quartets: Trained quartets that contain it.
        point: Estimate; None where the sample does not identify it.
        interval: Estimate with its interval; None where the noise is not known.
        together_with: Families it always occurs with; the effect is then the mean of all of them.
        reason: Reason for having no effect; "" where there is one.
        success: Share of its quartets that could be trained.
    """

    family: str
    quartets: int
    point: float | None
    interval: Interval | None
    together_with: tuple[str, ...]
    reason: str
    success: Rate


class PairKind(enum.StrEnum):
    """Direction of a pair effect after correction for multiple comparisons."""

    SYNERGY = "synergy"
    ANTAGONISM = "antagonism"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True, kw_only=True)
class PairEffect:
    """Effect of two families together beyond their own effects, shrunk towards zero.

    Attributes:
        quartets: Trained quartets that contain both.
    """

    families: tuple[str, str]
    quartets: int
    interval: Interval
    kind: PairKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """Effects estimated from a table of trials.

    Attributes:
        trials: Trials read, failed ones included.
        quartets: Different quartets among them.
        trained: Different quartets with an accuracy.
        seeds: Largest number of seeds of one candidate.
        mean_accuracy: Mean over the trained candidates whose accuracy is not suspect; None without one.
        families: Effects of all families, best first; families without an effect last.
        pairs: Effects of the pairs that were trained together, strongest first.
        seed_sd: Standard deviation between seeds of one candidate; None without repeats.
        quartet_sd: Standard deviation between quartets beyond families and pairs (seeds included where
            nothing was repeated); None where it is not identified.
        pair_sd: Standard deviation of the pair effects.
        df: Degrees of freedom of the residual.
        needed: Least number of trained quartets for an effect with an interval of every family that can be trained;
            None where all have one.
        reliability: Reliability of the accuracies; None for fewer than three candidates.
        notes: Caveats, one clause each.
    """

    trials: int
    quartets: int
    trained: int
    seeds: int
    mean_accuracy: float | None
    families: tuple[FamilyEffect, ...]
    pairs: tuple[PairEffect, ...]
    seed_sd: float | None
    quartet_sd: float | None
    pair_sd: float | None
    df: int
    confidence: float
    needed: int | None
    reliability: Reliability | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Convert everything to JSON types."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """Trained candidates: their quartets, mean accuracies and numbers of seeds, row by row."""

    quartets: tuple[tuple[str, ...], ...]
    means: Matrix
    repeats: Matrix
    within: float


def effects(
    observations: Sequence[Observation], families: Sequence[str] | None = None, *, confidence: float = 0.95
) -> Effects:
    """Estimate family and pair effects from trials at one fidelity, with intervals of a confidence in (0, 1).

    No table raises an error: whatever is not identified is named in ``notes`` and in the families' ``reason``. The pool
    is that of the families that occur, unless it is given.

    Raises:
        ValueError: If the confidence is outside (0, 1).
    """
    pool = tuple(sorted({name for line in observations for name in line.quartet} | set(families or ())))
    rates = success_rates(pool, observations, confidence)
    table = _table(observations)
    design = structure(pool, table.quartets) if table.quartets else None
    fitted = _fit(table, design) if design else None
    rows = _families(pool, table, design, fitted, rates, confidence)
    trained = trained_quartets(observations)
    seeds = int(table.repeats.max(initial=0))
    return Effects(
        trials=len(observations),
        quartets=len(trained),
        trained=sum(trained.values()),
        seeds=seeds,
        mean_accuracy=float(table.means.mean()) if table.quartets else None,
        families=tuple(sorted(rows, key=lambda row: (row.point is None, -(row.point or 0.0), row.family))),
        pairs=_pairs(table, fitted, confidence) if fitted else (),
        seed_sd=_root(fitted.seed_variance if fitted else None),
        quartet_sd=_root(fitted.quartet_variance if fitted else None),
        pair_sd=_root(fitted.pair_variance if fitted else None),
        df=fitted.df if fitted else 0,
        confidence=confidence,
        needed=_needed(rows, table.quartets),
        reliability=reliability(table.means, table.repeats, table.within),
        notes=sample_notes(
            observations,
            rates=rates,
            structure=design,
            df=fitted.df if fitted else 0,
            between=len(table.quartets) - (design.rank if design else 0),
            seeds=seeds,
            flat=bool(table.quartets) and float(np.ptp(table.means)) == 0.0,
        ),
    )


def more_quartets(found: Effects, campaign: str, size: int) -> str:
    """Name the quartets that a campaign of so many needs for an effect of every family, and the command; "" if none."""
    if found.needed is None:
        return ""
    # As many fail as until now.
    asked = math.ceil(found.needed * found.quartets / found.trained) if found.trained else found.needed
    asked = max(asked, size + 1)
    alive = sum(bool(row.quartets or not row.success.tries) for row in found.families)
    needs = f"an effect with an interval for each of {alive} families needs at least {found.needed} trained quartets"
    if found.needed > (space := math.comb(alive, EXPERTS)):
        return f"{needs}, and they make only {space:,}: widen the pool"
    asked = min(asked, math.comb(len(found.families), EXPERTS))
    return f"{needs}: nngen campaign run {campaign} --size {asked} draws more"


def _needed(rows: Sequence[FamilyEffect], quartets: Sequence[tuple[str, ...]]) -> int | None:
    """Return the number of trained quartets with which every effect and the noise can be estimated at the earliest.

    Families that were tried and never trained have no effect, however many quartets are drawn.
    """
    alive = [row for row in rows if row.quartets or not row.success.tries]
    if not alive or all(row.interval for row in alive):
        return None
    names = [row.family for row in alive]
    return max(len(names) + 1, len(set(quartets)) + len(names) - dimensions(quartets, names))


def scores_of(effects: Effects) -> Scores:
    """Turn intervals into means with standard errors, for samplers that learn; effects without one are left out."""
    from scipy.special import stdtrit

    if effects.df < 1:
        return Scores()
    # An interval is Student's quantile times the standard error on either side of the mean.
    reach = 2 * float(stdtrit(effects.df, 0.5 + effects.confidence / 2))
    families = ((row.family, row.interval) for row in effects.families if row.interval is not None)
    return Scores(
        families={name: (found.effect, (found.high - found.low) / reach) for name, found in families},
        pairs={
            row.families: (row.interval.effect, (row.interval.high - row.interval.low) / reach) for row in effects.pairs
        },
    )


def _table(observations: Sequence[Observation]) -> _Table:
    groups: dict[Any, list[float]] = defaultdict(list)
    for line in observations:
        if line.trained and not line.suspect and line.accuracy is not None:
            groups[line.key].append(line.accuracy)
    keys = sorted(groups)
    means = {key: fmean(groups[key]) for key in keys}
    return _Table(
        quartets=tuple(key[0] for key in keys),
        means=np.array(list(means.values())),
        repeats=np.array([float(len(groups[key])) for key in keys]),
        within=math.fsum((value - means[key]) ** 2 for key in keys for value in groups[key]),
    )


def _fit(table: _Table, design: Structure) -> mixed_model.Fit | None:
    """Fit the mixed model; None where no degree of freedom is left for the noise."""
    if int(table.repeats.sum()) <= design.rank or not design.classes:
        return None
    present = _present(table)
    # Pair effects have fewer dimensions than pairs: what is common to all pairs of a family belongs to the family.
    loadings = centred_pairs(len(present))
    samples = mixed_model.Samples(
        fixed=_fixed(table, design),
        random=pair_matrix(present, table.quartets),
        means=table.means - table.means.mean(),  # centred for precision; the fixed effects include a mean
        repeats=table.repeats,
        within=table.within,
    )
    return mixed_model.fit(samples, _contrasts(design), loadings)


def _fixed(table: _Table, design: Structure) -> Matrix:
    """Return the design of mean and families in the basis of what is identified, ``(n, rank)``."""
    ones = np.ones((len(table.quartets), 1))
    fixed: Matrix = np.hstack([ones, family_matrix(design.units, table.quartets)]) @ design.basis
    return fixed


def _contrasts(design: Structure) -> Matrix:
    """Return each unit less the mean family of its class, ``(units, rank)``; zero for units without a class."""
    rows = np.zeros((len(design.units), 1 + len(design.units)))
    for members in design.classes:
        # The mean is over families, not over units: a unit of two that are always together counts twice.
        sizes = np.array([len(design.units[index]) for index in members], dtype=float)
        for index in members:
            rows[index, 1 + np.array(members)] = -sizes / sizes.sum()
            rows[index, 1 + index] += 1.0
    contrasts: Matrix = rows @ design.basis
    return contrasts


def _families(
    pool: Sequence[str],
    table: _Table,
    design: Structure | None,
    fitted: mixed_model.Fit | None,
    rates: Mapping[str, Rate],
    confidence: float,
) -> list[FamilyEffect]:
    counts = Counter(name for quartet in table.quartets for name in quartet)
    rows = {
        name: FamilyEffect(
            family=name,
            quartets=counts[name],
            point=None,
            interval=None,
            together_with=(),
            reason=design.reasons.get(name, "") if design else "no quartet has an accuracy that can be compared",
            success=rates[name],
        )
        for name in pool
    }
    indices = [index for members in design.classes for index in members] if design else []
    if design is None or not indices:
        return list(rows.values())
    intervals: Sequence[Interval | None]
    if fitted:
        points = fitted.fixed.mean
        intervals = _intervals(fitted.fixed, indices, fitted.df, confidence, corrected=holm)
    else:  # too few trials for intervals: least squares alone
        solution, *_ = np.linalg.lstsq(_fixed(table, design), table.means, rcond=None)
        points, intervals = _contrasts(design) @ solution, [None] * len(indices)
    # Families that are always together have one effect, which each of them is shown with.
    for index, interval in zip(indices, intervals, strict=True):
        for name in design.units[index]:
            others = tuple(other for other in design.units[index] if other != name)
            rows[name] = replace(rows[name], point=float(points[index]), interval=interval, together_with=others)
    return list(rows.values())


def _pairs(table: _Table, fitted: mixed_model.Fit, confidence: float) -> tuple[PairEffect, ...]:
    counts = Counter(pair for quartet in table.quartets for pair in combinations(sorted(quartet), 2))
    pairs = list(combinations(_present(table), 2))
    # The model predicts pairs that were never together too, from their families alone: those are not shown.
    seen = [index for index, pair in enumerate(pairs) if counts[pair]]
    intervals = _intervals(fitted.random, seen, fitted.df, confidence, corrected=benjamini_hochberg)
    rows = [
        PairEffect(families=pairs[index], quartets=counts[pairs[index]], interval=interval, kind=_kind(interval))
        for index, interval in zip(seen, intervals, strict=True)
    ]
    return tuple(sorted(rows, key=lambda row: (-abs(row.interval.effect), row.families)))


def _intervals(
    estimate: mixed_model.Estimate,
    indices: Sequence[int],
    df: int,
    confidence: float,
    corrected: Callable[[Sequence[float]], Sequence[float]],
) -> list[Interval]:
    from scipy.special import stdtr, stdtrit

    means, errors = estimate.mean[list(indices)], np.sqrt(np.maximum(estimate.variance[list(indices)], 0.0))
    reach = float(stdtrit(df, 0.5 + confidence / 2)) * errors
    # Without spread: an effect of exactly zero has p = 1, any other p = 0.
    ratio = np.divide(np.abs(means), errors, out=np.where(means == 0, 0.0, np.inf), where=errors > 0)
    p_values = [float(value) for value in 2 * stdtr(df, -ratio)]
    return [
        Interval(effect=float(mean), low=float(mean - half), high=float(mean + half), p=p, p_adjusted=adjusted)
        for mean, half, p, adjusted in zip(means, reach, p_values, corrected(p_values), strict=True)
    ]


def _kind(interval: Interval) -> PairKind:
    if interval.p_adjusted >= _SIGNIFICANT:
        return PairKind.UNCLEAR
    return PairKind.SYNERGY if interval.effect > 0 else PairKind.ANTAGONISM


def _present(table: _Table) -> list[str]:
    return sorted({name for quartet in table.quartets for name in quartet})


def _root(variance: float | None) -> float | None:
    return None if variance is None else math.sqrt(max(variance, 0.0))
