"""What the effects say, in the form in which the adaptive sampler takes it."""

from __future__ import annotations

from scipy.special import stdtrit

from nngen.analysis.effects import Effects, Interval
from nngen.space.adaptive import Belief, Scores

__all__ = ["scores_of"]


def scores_of(effects: Effects) -> Scores:
    """Turn intervals back into means with standard errors; families without an interval stay unknown."""
    if effects.df < 1:
        return Scores()
    reach = float(stdtrit(effects.df, 0.5 + effects.confidence / 2))
    return Scores(
        families={row.family: _belief(row.interval, reach) for row in effects.families if row.interval is not None},
        pairs={row.families: _belief(row.interval, reach) for row in effects.pairs},
    )


def _belief(interval: Interval, reach: float) -> Belief:
    return interval.effect, (interval.high - interval.low) / (2 * reach)
