"""Cost of a campaign, and forecasts of the rest of it or of another one.

Cost is the wall time of the workers, which is the billed time on a machine with one accelerator.
Results copied from identical work cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nngen.archive.records import StoredTrial, TrialScore, TrialState
from nngen.space.pool import EXPERTS

_HOUR = 3600.0
_JOULE_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """An amount of work."""

    hours: float  # wall time of the workers, in hours
    kwh: float | None  # energy in kilowatt hours; None unless it was measured for every trial
    money: float | None  # cost at the given price; None without a price

    def over(self, parts: float) -> Share | None:
        """Divide it by a number of parts; None without parts."""
        if parts <= 0:
            return None
        kwh, money = (value if value is None else value / parts for value in (self.kwh, self.money))
        return Share(hours=self.hours / parts, kwh=kwh, money=money)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Cost of a set of trials."""

    trials: int  # finished trials, without those copied from identical work
    copied: int  # trials whose results were copied
    valid: int  # different candidates with an accuracy
    best_accuracy: float | None
    devices: Mapping[str, float]  # hours by kind of device
    total: Share
    failed: Share  # cost of the trials without an accuracy
    per_trial: Share | None  # total per trial; None without trials
    per_valid: Share | None  # total per valid candidate; None without one
    per_point: Share | None  # total per point (0.01) of the best accuracy; None without one
    notes: tuple[str, ...]  # missing information, one clause each

    def to_dict(self) -> dict[str, Any]:
        """Convert it to JSON types."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilySeconds:
    """Seconds that each family adds to one epoch of a quartet."""

    seconds: Mapping[str, float]  # seconds by measured family
    typical: float  # mean of ``seconds``, used for other families
    error: float  # standard deviation of a quartet's seconds around the sum of its families'
    trials: int  # number of trials that the measurement is based on

    def of(self, quartet: Iterable[str]) -> float:
        """Return the seconds of one epoch of a quartet."""
        return sum(self.seconds.get(name, self.typical) for name in quartet)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Forecast of the cost of future trials, run one after the other."""

    trials: int  # number of future trials
    hours: float
    low: float  # lower end of the 95 % interval, which covers the scatter of trials and the error of adding families
    high: float  # upper end of the interval
    money: float | None  # expected cost at the given price; None without a price
    unmeasured: tuple[str, ...]  # families without a measurement, for which the typical seconds are used

    def to_dict(self) -> dict[str, Any]:
        """Convert it to JSON types."""
        return asdict(self)


def cost(trials: Iterable[StoredTrial], price_per_hour: float | None = None) -> Cost:
    """Add up the cost of the finished ones of some trials, at a price of the machine in any currency."""
    done = [trial for trial in trials if trial.state is TrialState.DONE]
    work = [trial for trial in done if trial.copied_from is None]
    valid = len({trial.candidate_id for trial in done if _accuracy(trial) is not None})
    best = max((accuracy for trial in done if (accuracy := _accuracy(trial)) is not None), default=None)
    total = _share(work, price_per_hour)
    return Cost(
        trials=len(work),
        copied=len(done) - len(work),
        valid=valid,
        best_accuracy=best,
        devices=_by_device(work),
        total=total,
        failed=_share([trial for trial in work if _accuracy(trial) is None], price_per_hour),
        per_trial=total.over(len(work)),
        per_valid=total.over(valid),
        per_point=total.over(100 * (best or 0.0)),
        notes=tuple(_missing(done, work, valid, total)),
    )


def family_seconds(trials: Iterable[StoredTrial | TrialScore]) -> FamilySeconds | None:
    """Measure each family's seconds an epoch by non-negative least squares over trained trials.

    The experts of a mixture run one after the other, so their times add up; a trial's fixed time is
    spread over its families. Returns None without a trained trial.
    """
    from scipy.optimize import nnls

    measured = (trial for trial in trials if _accuracy(trial) is not None and trial.seconds)
    rows = [trial for trial in measured if isinstance(trial, TrialScore) or trial.copied_from is None]
    if not rows:
        return None
    names = sorted({name for trial in rows for name in trial.experts})
    place = {name: index for index, name in enumerate(names)}
    matrix, seconds = np.zeros((len(rows), len(names))), np.zeros(len(rows))
    for index, trial in enumerate(rows):
        matrix[index, [place[name] for name in trial.experts]] = 1.0
        seconds[index] = (trial.seconds or 0.0) / _epochs(trial)
    # Ridge rows: where quartets are too few to separate families, each is pulled lightly to an equal share.
    typical = float(seconds.mean()) / float(matrix.sum(axis=1).mean())
    pull = 1e-3 * np.eye(len(names))
    # The triangular factor has the same least squares and as many rows as families, however many trials there are.
    rotation, factor = np.linalg.qr(np.vstack([matrix, pull]))
    found, _ = nnls(factor, rotation.T @ np.concatenate([seconds, np.full(len(names), 1e-3 * typical)]))
    left = seconds - matrix @ found
    free = len(rows) - int(np.linalg.matrix_rank(np.linalg.qr(matrix, mode="r")))
    if free:
        error = math.sqrt(float(left @ left) / free)
    else:  # no residual to estimate it from: the scatter of the trials, or the whole time of a single one
        error = float(seconds.std(ddof=1)) if len(seconds) > 1 else float(seconds[0])
    return FamilySeconds(
        seconds={name: float(found[index]) for name, index in place.items()},
        typical=typical,
        error=error,
        trials=len(rows),
    )


def forecast(
    quartets: Sequence[Iterable[str]],
    measured: FamilySeconds,
    *,
    epochs: int = 1,
    undrawn: int = 0,
    price_per_hour: float | None = None,
) -> Forecast:
    """Forecast the cost of trials of quartets by the seconds of families; ``undrawn`` more are of typical families."""
    plans = [tuple(quartet) for quartet in quartets]
    count = len(plans) + undrawn
    hours = epochs * (sum(map(measured.of, plans)) + undrawn * EXPERTS * measured.typical) / _HOUR
    # Variance of a sum of n trials, plus n^2 times that of the mean they are predicted by.
    half = 1.96 * epochs * measured.error * math.sqrt(count + count**2 / measured.trials) / _HOUR
    unknown = {name for plan in plans for name in plan} - measured.seconds.keys()
    return Forecast(
        trials=count,
        hours=hours,
        low=max(0.0, hours - half),
        high=hours + half,
        money=None if price_per_hour is None else hours * price_per_hour,
        unmeasured=tuple(sorted(unknown)),
    )


def remaining(
    trials: Sequence[StoredTrial],
    measured: FamilySeconds | None,
    *,
    epochs: int = 1,
    size: int = 0,
    price_per_hour: float | None = None,
) -> Forecast | None:
    """Forecast the rest of a campaign (typical families for what is not drawn); None before its first trained trial."""
    if measured is None:
        return None
    to_come = [trial.experts for trial in trials if trial.state is not TrialState.DONE]
    undrawn = max(0, size - len({trial.position for trial in trials}))
    return forecast(to_come, measured, epochs=epochs, undrawn=undrawn, price_per_hour=price_per_hour)


def _share(trials: Sequence[StoredTrial], price: float | None) -> Share:
    hours = math.fsum(trial.seconds or 0.0 for trial in trials) / _HOUR
    joules = [trial.energy_j for trial in trials if trial.seconds]
    known = [value for value in joules if value is not None]
    return Share(
        hours=hours,
        kwh=math.fsum(known) / _JOULE_PER_KWH if known and len(known) == len(joules) else None,
        money=None if price is None else hours * price,
    )


def _by_device(trials: Iterable[StoredTrial]) -> dict[str, float]:
    hours: dict[str, float] = {}
    for trial in trials:
        if trial.spec is not None and trial.seconds:
            hours[trial.spec.device] = hours.get(trial.spec.device, 0.0) + trial.seconds / _HOUR
    return dict(sorted(hours.items()))


def _missing(done: Sequence[StoredTrial], work: Sequence[StoredTrial], valid: int, total: Share) -> Iterable[str]:
    if not done:
        yield "no trial is finished: no cost can be computed yet"
        return
    if not work:
        yield "every result was copied from earlier work: nothing was spent"
    elif not valid:
        yield "no candidate has an accuracy: no cost per valid candidate or per point can be computed"
    if total.kwh is None and work:
        yield "energy was not measured: it needs an NVIDIA device and pynvml"


def _epochs(trial: StoredTrial | TrialScore) -> int:
    return max(trial.epochs_trained if isinstance(trial, StoredTrial) else trial.spec.epochs, 1)


def _accuracy(trial: StoredTrial | TrialScore) -> float | None:
    accuracy = trial.validation_accuracy
    return accuracy if accuracy is not None and math.isfinite(accuracy) else None
