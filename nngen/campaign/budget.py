"""Budgets of a campaign: trials, hours and money, with warnings at 50 and 80 % and a stop at 100 %.

The usage is computed from the archive's events, so that the time of a killed driver counts too, up to its last write.
A driver writes the seconds of its monotonic clock every half minute (``budget.clock``), so that a system clock that is
set in between changes an account by half a minute at most.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from nngen.archive.records import Event, TrialState
from nngen.archive.store import Archive
from nngen.campaign.successive_halving import Ladder
from nngen.campaign.watcher import Watcher
from nngen.errors import UsageError
from nngen.ranges import Positive, Size, check_ranges

_WARNED_AT = (0.5, 0.8)
_BEGINS = {"campaign.created", "campaign.resumed", "campaign.continued"}
_HOUR_S = 3600.0

_CLOCK_S = 30.0  # seconds between two entries of a driver's clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits of a campaign as a whole, None for no limit. They may change when it is resumed.

    Attributes:
        max_trials: Stop when so many trials are done, failed ones included.
        max_hours: Stop after so many hours of running; pauses do not count.
        max_cost: Stop when it has cost so much, in the currency of the price.
        price_per_hour: Price of an hour of all machines together.
    """

    max_trials: Size | None = None
    max_hours: Positive | None = None
    max_cost: Positive | None = None
    price_per_hour: Positive | None = None

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.max_cost is not None and self.price_per_hour is None:
            raise UsageError("--max-cost needs the price of an hour: add --price-per-hour")

    def less(self, used: Usage) -> Budget | None:
        """Return what a campaign leaves of its limits to the one after it; None where it leaves nothing."""
        left: dict[str, Any] = {f"max_{name}": limit - spent for name, (spent, limit) in used.shares(self).items()}
        if "max_trials" in left:
            left["max_trials"] = int(left["max_trials"])
        return replace(self, **left) if all(value > 0 for value in left.values()) else None

    def to_dict(self) -> dict[str, Any]:
        """Write the limits that are set as JSON types."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Usage of a campaign so far."""

    trials: int  # number of trials done
    hours: float  # hours in which a driver ran it
    cost: float | None  # cost of these hours; None without a price

    def shares(self, budget: Budget) -> dict[str, tuple[float, float]]:
        """Return (used, limit) of each limit that is set: ``trials``, ``hours``, ``cost``."""
        pairs = {name: (used, getattr(budget, f"max_{name}")) for name, used in asdict(self).items()}
        return {name: (float(used), float(limit)) for name, (used, limit) in pairs.items() if None not in (used, limit)}


def last_budget(events: Iterable[Event]) -> Budget:
    """Return the limits that were set last."""
    found: Mapping[str, Any] = {}
    for event in events:
        if event.kind == "budget.set":
            found = event.detail
    return Budget(**found)


def read_usage(archive: Archive, name: str) -> Usage:
    """Return the usage of a campaign until its last event."""
    events = archive.events(name, kinds=("campaign.", "budget."))
    ends = [event.id for event in events if event.kind in _BEGINS][1:]
    # The last event of each driver, of whatever kind: until then it was alive.
    last = [archive.last_event(name, before=before) for before in (*ends, None)]
    known = {event.id: event for event in (*events, *last) if event is not None}
    return usage([known[key] for key in sorted(known)], archive.counts(name)[TrialState.DONE])


def usage(events: Iterable[Event], trials: int) -> Usage:
    """Add up the hours of a campaign's drivers, each at the price that was set at its time.

    Args:
        events: Those of the kinds ``campaign`` and ``budget``, and the last one of each driver; others change nothing.
        trials: Number of trials done.
    """
    runs: list[list[Event]] = []  # events of each driver, from its beginning or from the end of a pause
    prices: list[float] = []
    price: float | None = None
    running = False
    for event in events:
        if event.kind.startswith("control."):
            continue  # written by another process; the driver may be dead
        if event.kind in _BEGINS:
            runs.append([])
            prices.append(price or 0.0)
            running = True
        if running:
            runs[-1].append(event)
        if event.kind == "campaign.paused":
            running = False
        elif event.kind == "budget.set" and "price_per_hour" in event.detail:
            price = float(event.detail["price_per_hour"])
            prices[-1:] = [price]
    hours = [_seconds(run) / _HOUR_S for run in runs]
    cost = math.fsum(used * each for used, each in zip(hours, prices, strict=True))
    return Usage(trials=trials, hours=math.fsum(hours), cost=None if price is None else cost)


def _seconds(run: Sequence[Event]) -> float:
    """Return the seconds between the first and the last event of a driver."""
    clocks = [event for event in run if event.kind == "budget.clock"]
    last = clocks[-1] if clocks else run[0]
    since = max(0.0, (datetime.fromisoformat(run[-1].at) - datetime.fromisoformat(last.at)).total_seconds())
    # Drivers of earlier versions wrote no clock: then the times of the events are all that is known.
    return float(clocks[-1].detail["seconds"]) + min(since, _CLOCK_S) if clocks else since


class BudgetTracker:
    """Tracks the usage of a running campaign; a stopping rule that warns before it stops.

    Args:
        archive: Archive; warnings and the end are stored in it as events.
        name: Name of the campaign.
        budget: Limits; stored with the campaign if they differ from those set last.
        watcher: Receives the warnings.
        ladder: Trials of the campaign, as the driver keeps count of them.
    """

    def __init__(self, archive: Archive, name: str, budget: Budget, watcher: Watcher, ladder: Ladder) -> None:
        self._archive, self._name, self.budget, self._watcher, self._ladder = archive, name, budget, watcher, ladder
        before = archive.events(name, kinds=("budget.",))
        if budget != last_budget(before):
            archive.log("budget.set", campaign=name, **budget.to_dict())
        self._warned = {
            (event.detail["budget"], event.detail["share"], event.detail["limit"])
            for event in before
            if event.kind in ("budget.warned", "budget.spent")
        }
        self._before = read_usage(archive, name)
        self._here_s = 0.0
        self._since: float | None = None
        if not ladder.over:
            self.resume()

    def pause(self) -> None:
        """Stop the clock, at a pause or at the end; comes before the event that says so."""
        if self._since is not None:
            self._write_clock(self._since)
            self._here_s += time.monotonic() - self._since
            self._since = None

    def resume(self) -> None:
        """Start the clock; comes after the event that says so."""
        self._since = time.monotonic()
        self._write_clock(self._since)

    def _write_clock(self, since: float) -> None:
        self._written = time.monotonic()
        self._archive.log("budget.clock", campaign=self._name, seconds=round(self._written - since, 3))

    def now(self) -> Usage:
        """Return the usage until now."""
        running = 0.0 if self._since is None else time.monotonic() - self._since
        hours = (self._here_s + running) / _HOUR_S
        price = self.budget.price_per_hour
        return Usage(
            trials=self._ladder.done,
            hours=self._before.hours + hours,
            cost=None if price is None else (self._before.cost or 0.0) + hours * price,
        )

    def reason(self) -> str | None:
        """Return ``budget`` once a limit is reached; warn before, each warning once."""
        if self._since is not None and time.monotonic() >= self._written + _CLOCK_S:
            self._write_clock(self._since)
        reached = False
        for name, (used, limit) in self.now().shares(self.budget).items():
            for share in (*_WARNED_AT, 1.0):
                if used >= share * limit and (name, share, limit) not in self._warned:
                    self._warn(name, share, used, limit)
            reached = reached or used >= limit
        return "budget" if reached else None

    def room(self, open_trials: int) -> bool:
        """Return whether one more trial may begin beside those that are open."""
        most = self.budget.max_trials
        return most is None or self._ladder.done + open_trials < most

    def _warn(self, name: str, share: float, used: float, limit: float) -> None:
        self._warned.add((name, share, limit))
        kind = "budget.spent" if share >= 1 else "budget.warned"
        self._archive.log(kind, campaign=self._name, budget=name, share=share, used=used, limit=limit)
        state = "is spent" if share >= 1 else f"is used to {share:.0%}"
        more = f"; a larger --max-{name} resumes the campaign" if share >= 1 else ""
        self._watcher.note(f"the budget of {limit:g} {'of money' if name == 'cost' else name} {state}{more}")
