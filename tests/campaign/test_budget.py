"""Budgets of campaigns."""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from nngen.archive import Event, TrialState
from nngen.campaign.budget import Budget, BudgetTracker, Usage, last_budget, read_usage, usage
from nngen.campaign.protocols import Watcher
from nngen.campaign.summary import read_status
from nngen.cli.options.engine import BudgetOptions
from nngen.errors import UsageError
from nngen.testing.fakes import FakeEngine, fake_record
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


@pytest.mark.long
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


def test_drivers_without_a_price_cost_nothing_and_a_clock_that_went_back_counts_as_no_time():
    events = [
        at(0, "campaign.created"),
        at(10, "trial.finished"),
        at(100, "campaign.resumed"),
        at(100, "budget.set", price_per_hour=3600.0),
        at(105, "trial.finished"),
        at(200, "campaign.resumed"),
        replace(at(210, "trial.finished"), at=at(150, "").at),
    ]
    assert usage(events, 2) == Usage(trials=2, hours=pytest.approx(15 / 3600), cost=pytest.approx(5.0))
    assert usage(events[:2], 2).cost is None


def test_the_usage_is_read_from_a_few_events_of_each_driver(archive, monkeypatch):
    moment = datetime(2026, 1, 1, tzinfo=UTC)

    def log(after, kind, **detail):
        nonlocal moment
        moment += timedelta(seconds=after)
        archive.log(kind, campaign="one", **detail)

    monkeypatch.setattr("nngen.archive.store._now", lambda: moment.isoformat())
    archive.add_campaign(fake_record("one"), [])
    log(0, "budget.set", price_per_hour=7200.0)
    log(7, "trial.epoch")  # killed here
    for seconds in (11, 13):
        log(1000, "campaign.resumed")
        log(0, "budget.clock", seconds=0.0)
        log(seconds, "trial.epoch")
    log(500, "control.pause")
    hours = (7 + 11 + 13) / 3600
    expected = Usage(trials=0, hours=pytest.approx(hours), cost=pytest.approx(7200 * hours))
    assert read_usage(archive, "one") == expected == usage(archive.events("one"), 0)
    assert read_usage(archive, "one").hours == usage(archive.events("one"), 0).hours


@pytest.fixture
def clock(monkeypatch):
    """Stand in for the clock of drivers, which the test sets."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("nngen.campaign.budget.time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr("nngen.archive.store._now", lambda: "2026-01-01T00:00:00+00:00")
    return clock


def tracker(archive, budget, done=0, over=False):
    notes, ladder = Notes(), SimpleNamespace(done=done, over=over)
    return BudgetTracker(archive, "one", budget, notes, ladder), notes.lines, ladder


def used(trials, hours, cost):
    return Usage(trials=trials, hours=pytest.approx(hours), cost=cost if cost is None else pytest.approx(cost))


def test_a_tracker_counts_running_hours_and_warns_once_of_each_limit(archive, clock):
    archive.add_campaign(fake_record("one"), [])
    limits = Budget(max_trials=4, max_hours=1.0, max_cost=6.0, price_per_hour=3.0)
    budget, lines, ladder = tracker(archive, limits)
    clock.now += 0.1 * 3600
    assert budget.now() == used(0, 0.1, 0.3)
    assert (budget.reason(), lines) == (None, [])
    budget.pause()
    archive.log("campaign.paused", campaign="one")
    clock.now += 5000
    budget.pause()
    assert budget.now() == used(0, 0.1, 0.3)
    archive.log("campaign.continued", campaign="one")
    budget.resume()
    clock.now += 0.4 * 3600
    assert budget.now() == used(0, 0.5, 1.5)
    assert budget.reason() is budget.reason() is None
    assert lines == ["the budget of 1 hours is used to 50%"]
    ladder.done = 2
    clock.now += 0.5 * 3600
    assert budget.reason() == budget.reason() == "budget"
    assert lines[1:] == [
        "the budget of 4 trials is used to 50%",
        "the budget of 1 hours is used to 80%",
        "the budget of 1 hours is spent; a larger --max-hours resumes the campaign",
        "the budget of 6 of money is used to 50%",
    ]
    events = archive.events("one", kinds=("budget.warned", "budget.spent"))
    assert [(event.kind, event.detail) for event in events] == [
        ("budget.warned", {"budget": "hours", "share": 0.5, "limit": 1.0, "used": pytest.approx(0.5)}),
        ("budget.warned", {"budget": "trials", "share": 0.5, "limit": 4.0, "used": 2.0}),
        ("budget.warned", {"budget": "hours", "share": 0.8, "limit": 1.0, "used": pytest.approx(1.0)}),
        ("budget.spent", {"budget": "hours", "share": 1.0, "limit": 1.0, "used": pytest.approx(1.0)}),
        ("budget.warned", {"budget": "cost", "share": 0.5, "limit": 6.0, "used": pytest.approx(3.0)}),
    ]
    budget.pause()

    # The next driver knows the hours and the warnings, and warns of another limit anew.
    archive.log("campaign.resumed", campaign="one")
    again, lines, _ = tracker(archive, limits, done=2)
    assert again.now() == used(2, 1.0, 3.0)
    assert (again.reason(), lines) == ("budget", [])
    archive.log("campaign.resumed", campaign="one")
    wider, lines, _ = tracker(archive, replace(limits, max_hours=2.0), done=3)
    assert (wider.reason(), lines) == (None, ["the budget of 2 hours is used to 50%"])
    sets = [event.detail for event in archive.events("one", kinds=("budget.set",))]
    assert sets == [limits.to_dict(), limits.to_dict() | {"max_hours": 2.0}]


def test_the_clock_is_written_every_half_minute_and_at_each_pause(archive, clock):
    archive.add_campaign(fake_record("one"), [])
    budget, _, _ = tracker(archive, Budget())
    for seconds in (29.5, 0.5, 29.75, 0.25):
        clock.now += seconds
        budget.reason()
    clock.now += 5.0004
    budget.pause()
    clock.now += 1000
    assert budget.reason() is None
    budget.resume()
    written = [event.detail["seconds"] for event in archive.events("one", kinds=("budget.clock",))]
    assert written == [0.0, 30.0, 60.0, 65.0, 0.0]
    assert budget.now() == used(0, 65.0004 / 3600, None)
    assert archive.events("one", kinds=("budget.set",)) == ()


def test_the_clock_of_a_campaign_that_is_over_does_not_run(archive, clock):
    archive.add_campaign(fake_record("one"), [])
    budget, _, _ = tracker(archive, Budget(max_hours=1.0), done=1, over=True)
    clock.now += 7200
    assert (budget.now(), budget.reason()) == (used(1, 0.0, None), None)
    assert archive.events("one", kinds=("budget.clock",)) == ()


@pytest.mark.parametrize(
    ("limit", "open_trials", "room"), [(4, 1, True), (4, 2, False), (4, 3, False), (None, 99, True)]
)
def test_there_is_room_for_trials_up_to_the_limit(archive, clock, limit, open_trials, room):
    archive.add_campaign(fake_record("one"), [])
    budget, _, _ = tracker(archive, Budget(max_trials=limit), done=2)
    assert budget.room(open_trials) is room
