"""Budgets of campaigns."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from nngen.archive import Event, TrialState
from nngen.campaign.budget import Budget, Usage, last_budget, read_usage, usage
from nngen.campaign.protocols import Watcher
from nngen.campaign.summary import read_status
from nngen.cli.options.engine import BudgetOptions
from nngen.errors import UsageError
from nngen.testing.fakes import FakeEngine
from nngen.testing.fakes import fake_campaign as campaign


class Notes(Watcher):
    def __init__(self):
        self.lines = []

    def note(self, line):
        self.lines.append(line)


def kinds(archive):
    return [event.kind for event in archive.events("one")]


def test_a_budget_of_trials_is_kept_to_the_trial_and_more_goes_on(archive, tmp_path):
    notes, engine = Notes(), FakeEngine(slots=3)
    summary = campaign(archive, size=12, engine=engine, budget=Budget(max_trials=5), watcher=notes).run()
    assert (summary.done, summary.over, summary.best.test_accuracy) == (5, False, None)
    assert archive.counts("one") == {TrialState.READY: 7, TrialState.RUNNING: 0, TrialState.DONE: 5}
    warned = [(e.detail["share"], e.detail["used"]) for e in archive.events("one") if e.kind == "budget.warned"]
    assert [share for share, _ in warned] == [0.5, 0.8]
    assert archive.events("one")[-1].detail == {"by": "budget"}
    assert kinds(archive).count("budget.spent") == 1
    assert notes.lines[-1] == "the budget of 5 trials is spent; a larger --max-trials resumes the campaign"

    again = campaign(archive, size=12, engine=engine).run()
    assert again.done == 5
    assert kinds(archive).count("budget.spent") == 1
    summary = campaign(archive, size=12, engine=engine, budget=Budget(max_trials=20)).run()
    assert (summary.done, summary.over) == (12, True)
    assert summary.best.test_accuracy is not None
    assert len(set(engine.trained)) == len(engine.trained) == 12
    assert last_budget(archive.events("one")) == Budget(max_trials=20)


def test_a_budget_that_is_spent_with_the_last_trial_leaves_nothing_undone(archive):
    summary = campaign(archive, budget=Budget(max_trials=6)).run()
    assert (summary.over, summary.best.test_accuracy is not None) == (True, True)
    assert "campaign.finished" in kinds(archive)


class Slow(FakeEngine):
    def train(self, *args, **kwargs):
        time.sleep(0.05)
        return super().train(*args, **kwargs)


@pytest.mark.parametrize(
    "budget", [Budget(max_hours=0.3 / 3600), Budget(max_cost=3.0, price_per_hour=3600 * 10.0)], ids=["hours", "cost"]
)
def test_a_budget_of_time_ends_it_cleanly(archive, budget):
    summary = campaign(archive, size=35, engine=Slow(), budget=budget).run()
    assert 1 <= summary.done < 35
    assert summary.states["running"] == 0
    used = read_status(archive, "one").spent
    name = "hours" if budget.max_hours else "cost"
    assert getattr(used, name) > 0.9 * getattr(budget, f"max_{name}")
    assert kinds(archive).count("budget.warned") == 2
    assert archive.events("one")[-1].detail == {"by": "budget"}
    assert kinds(archive).count("budget.spent") == 1


def at(second, kind, **detail):
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
    return Event(id=second, at=moment.isoformat(), campaign="one", trial_id=None, kind=kind, detail=detail)


def test_the_account_is_read_from_the_events():
    events = [
        at(0, "campaign.created"),
        at(0, "budget.set", price_per_hour=3600.0),
        at(10, "trial.started"),
        at(20, "trial.finished"),  # killed here
        at(500, "control.stop"),
        at(1000, "campaign.resumed"),
        at(1000, "budget.set", price_per_hour=7200.0),
        at(1005, "campaign.paused"),
        at(2000, "control.resume"),
        at(2001, "campaign.continued"),
        at(2006, "campaign.finished"),
    ]
    used = usage(events, 3)
    assert used.trials == 3
    assert used.hours == pytest.approx(30 / 3600)
    assert used.cost == pytest.approx(20 + 2 * 10)
    assert usage([], 0) == Usage(trials=0, hours=0.0, cost=None)


def test_a_system_clock_that_is_set_does_not_change_the_account(archive, monkeypatch):
    moment = datetime(2026, 1, 1, tzinfo=UTC)

    class Moved(Slow):
        def train(self, *args, **kwargs):
            nonlocal moment
            moment += timedelta(hours=5 if len(self.trained) % 2 else -2)
            return super().train(*args, **kwargs)

    monkeypatch.setattr("nngen.archive.store._now", lambda: moment.isoformat())
    campaign(archive, engine=Moved(), size=12, budget=Budget(max_trials=5)).run()
    campaign(archive, engine=Moved(), size=12, budget=Budget(max_trials=12)).run()
    assert 0.05 * 12 <= read_usage(archive, "one").hours * 3600 < 20


def test_the_clock_of_a_killed_driver_counts_up_to_its_last_write():
    events = [
        at(0, "campaign.created"),
        at(1, "budget.clock", seconds=0.0),
        at(31, "budget.clock", seconds=30.0),
        at(41, "trial.finished"),  # killed here
        at(50_000, "campaign.resumed"),
        at(50_001, "budget.clock", seconds=0.0),
        at(90_000, "trial.finished"),  # the system clock was set: half a minute at most
    ]
    assert usage(events, 0).hours * 3600 == pytest.approx(40 + 30)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_trials": 0}, "--max-trials must be a whole number from 1 to 1,000,000,000, not 0"),
        ({"max_hours": -1.0}, "--max-hours"),
        ({"max_hours": float("nan")}, "--max-hours"),
        ({"max_cost": 5.0}, "add --price-per-hour"),
        ({"max_cost": 5.0, "price_per_hour": 0.0}, "--price-per-hour must be a number above 0"),
    ],
)
def test_bad_limits(limits, words):
    with pytest.raises(UsageError, match=words):
        Budget(**limits)


def test_limits_that_are_not_given_stay():
    budget = Budget(max_hours=2.0, price_per_hour=0.5)
    typed = BudgetOptions(max_cost=3.0)  # type: ignore[call-arg]
    assert typed.change(budget) == Budget(max_hours=2.0, max_cost=3.0, price_per_hour=0.5)


def test_the_clock_is_written_while_the_driver_runs(archive, monkeypatch):
    campaign(archive).run()
    assert kinds(archive).count("budget.clock") == 2  # at its beginning and at its end
    monkeypatch.setattr("nngen.campaign.budget._CLOCK_S", 0.0)
    campaign(archive, name="two", seed=1).run()
    clocks = archive.events("two", kinds=("budget.clock",))
    assert len(clocks) > 3
    seconds = [event.detail["seconds"] for event in clocks]
    assert seconds == sorted(seconds) and seconds[0] < 0.1
