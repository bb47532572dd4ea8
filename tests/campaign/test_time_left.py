"""Tests of the estimate of the time that a campaign still takes."""

from dataclasses import replace
from itertools import pairwise

import pytest

from nngen.archive import Archive
from nngen.campaign.successive_halving import Workload, workload
from nngen.campaign.time_left import TimeLeft
from nngen.testing.fakes import fake_campaign
from nngen.types import EpochResult


class Clock:
    now = 100.0

    def __call__(self):
        return self.now

    def after(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def trials():
    with Archive.in_memory() as archive:
        fake_campaign(archive, size=6).run()
        return archive.trials("one")


def estimate(clock, trials=4, epochs=3):
    return TimeLeft(Workload(done=0, trials=trials, epochs=trials * epochs, rungs=(epochs,)), clock)


def pass_epochs(left, clock, trial, numbers, seconds):
    for number in numbers:
        clock.after(seconds)
        left.epoch(trial, EpochResult(epoch=number, validation_accuracy=0.5))


def test_none_before_the_first_epoch(clock, trials):
    left = estimate(clock)
    assert left.seconds() is None
    left.started(trials[0])
    clock.after(50)
    assert left.seconds() is None


def test_equal_trials_are_estimated_exactly_after_the_first_epoch(clock, trials):
    left = estimate(clock)
    left.started(trials[0])
    pass_epochs(left, clock, trials[0], [1], 10)
    assert left.seconds() == pytest.approx(110)
    pass_epochs(left, clock, trials[0], [2, 3], 10)
    left.finished(trials[0])
    assert left.seconds() == pytest.approx(90)


def test_a_training_that_begins_before_the_last_result_is_stored_does_not_count_as_a_second_worker(clock, trials):
    left = estimate(clock)
    left.started(trials[0])
    for before, after in pairwise(trials[:4]):
        pass_epochs(left, clock, before, [1, 2, 3], 10)
        left.started(after)  # the driver fills the slot first
        left.finished(before)
        assert left.seconds() == pytest.approx(30 * (4 - trials.index(after)))


def test_the_estimate_never_grows_while_an_epoch_passes(clock, trials):
    left = estimate(clock)
    left.started(trials[0])
    pass_epochs(left, clock, trials[0], [1], 10)
    seen = []
    for _ in range(40):  # four times as long as the epoch before
        clock.after(1)
        seen.append(left.seconds())
    assert seen == sorted(seen, reverse=True)


def test_two_workers_halve_the_time_of_what_is_to_come(clock, trials):
    left = estimate(clock, trials=6, epochs=1)
    left.started(trials[0])
    left.started(trials[1])
    pass_epochs(left, clock, trials[0], [1], 10)
    left.finished(trials[0])
    left.started(trials[2])
    assert left.seconds() == pytest.approx((3 * 10 + 10 + 0) / 2)


def test_copied_and_failed_trials_reduce_the_work_and_not_the_pace(clock, trials):
    left = estimate(clock)
    left.started(trials[0])
    pass_epochs(left, clock, trials[0], [1, 2, 3], 10)
    left.finished(trials[0])
    left.finished(trials[1])
    left.finished(trials[2])
    assert left.seconds() == pytest.approx(30)


def test_a_lost_training_is_to_come_again(clock, trials):
    left = estimate(clock, trials=2, epochs=1)
    left.started(trials[0])
    pass_epochs(left, clock, trials[0], [1], 10)
    left.finished(trials[0])
    left.started(trials[1])
    left.requeued(trials[1])
    clock.after(100)
    assert left.seconds() == pytest.approx(10)


def test_the_work_of_rungs_and_finalists_is_counted():
    with Archive.in_memory() as archive:
        campaign = fake_campaign(archive, size=9, rungs=(1, 3), epochs=3, reduction_factor=3, finalists=2, replicates=2)
        before = workload(campaign.spec, ())
        campaign.run()
        after = workload(campaign.spec, archive.trials("one"))
    assert (before.done, before.trials, before.epochs) == (0, 9 + 3 + 2, 9 * 1 + (3 + 2) * 3)
    assert after.done == after.trials
    assert after.epochs == 0


def forecast(trials, epochs, *, light="ABCD"):
    """Return work of trials whose quartets take 10 s an epoch, and 40 s where a family is not a light one."""

    def seconds_of(experts):
        return 10.0 if set(experts) <= set(light) else 40.0

    typical = sum(seconds_of(trial.experts) for trial in trials) / len(trials)
    return Workload(
        done=0,
        trials=len(trials),
        epochs=len(trials) * epochs,
        rungs=(epochs,),
        seconds_of=seconds_of,
        typical_s=typical,
    )


def test_the_forecast_is_the_estimate_before_the_first_epoch(clock, trials):
    work = forecast(trials, 3, light="ABCDEFG")
    left = TimeLeft(work, clock)
    assert left.seconds() == pytest.approx(6 * 3 * 10)
    left.started(trials[0])
    clock.after(20)
    assert left.seconds() == pytest.approx(6 * 3 * 10 - 20)


def test_the_first_trial_corrects_the_forecast_of_heavier_ones(clock, trials):
    light = next(trial for trial in trials)
    left = TimeLeft(forecast(trials, 1, light=light.experts), clock)
    heavy = sum(set(trial.experts) != set(light.experts) for trial in trials)
    left.started(light)
    pass_epochs(left, clock, light, [1], 15)  # half as long again as forecast
    left.finished(light)
    assert left.seconds() == pytest.approx(heavy * 60)


def test_two_workers_share_a_forecast_before_the_first_epoch(clock, trials):
    left = TimeLeft(forecast(trials, 3, light="ABCDEFG"), clock)
    left.started(trials[0])
    left.started(trials[0])
    assert left.seconds() == pytest.approx(6 * 3 * 10)
    left.started(trials[1])
    assert left.seconds() == pytest.approx(6 * 3 * 10 / 2)
    clock.after(10)
    assert left.seconds() == pytest.approx((6 * 3 * 10 - 2 * 10) / 2)


def test_the_estimate_step_by_step(clock, trials):
    """Two workers train A and B at a pace of their own, then C; four epochs each, each step computed by hand."""
    a, b, c = trials[:3]
    left = estimate(clock, trials=3, epochs=4)
    left.started(a)
    left.started(b)
    pass_epochs(left, clock, a, [1], 10)
    assert left.seconds() == pytest.approx((4 * 10 + 3 * 10 + (4 * 10 - 10)) / 2)
    pass_epochs(left, clock, b, [1], 10)  # it took 20 s, so the mean pace is 15 s
    assert left.seconds() == pytest.approx((4 * 15 + (3 * 10 - 10) + 3 * 20) / 2)
    pass_epochs(left, clock, a, [2, 3, 4], 10)
    pace = (50 + 20) / 5
    assert left.seconds() == pytest.approx((4 * pace + 0 + (3 * 20 - 30)) / 2)
    left.finished(a)
    assert left.seconds() == pytest.approx((4 * pace + (3 * 20 - 30)) / 2)
    left.started(c)  # another worker cannot take its epochs over
    assert left.seconds() == pytest.approx(4 * pace)
    clock.after(100)
    assert left.seconds() == 0
    left.epoch(b, EpochResult(epoch=2, validation_accuracy=0.5))  # 150 s for two epochs
    assert left.seconds() == pytest.approx(2 * 75)
    left.epoch(b, EpochResult(epoch=3, validation_accuracy=0.5))
    assert left.seconds() == pytest.approx(max((50 + 4 * 200 / 7 - 100) / 2, 50))
    left.requeued(c)
    left.requeued(c)
    assert left.seconds() == pytest.approx((4 * 200 / 7 + 50) / 2)
    left.finished(c)
    assert left.seconds() == pytest.approx(50)
    left.finished(c)
    assert left.seconds() == pytest.approx(50)  # never less than what runs, whatever else is counted


def test_epochs_of_a_rung_that_goes_on_are_those_that_it_trains_itself(clock, trials):
    work = Workload(done=0, trials=2, epochs=4, rungs=(1, 4), continues=True)
    assert [work.to_train(rung, replicate) for rung, replicate in ((0, 0), (1, 0), (1, 1))] == [1, 3, 4]
    again = replace(trials[1], rung=1)
    left = TimeLeft(work, clock)
    left.started(trials[0])
    pass_epochs(left, clock, trials[0], [1], 10)
    left.finished(trials[0])
    left.started(again)
    assert left.seconds() == pytest.approx(30)
    pass_epochs(left, clock, again, [2], 20)
    assert left.seconds() == pytest.approx(2 * 20)
    left.requeued(again)
    assert left.seconds() == pytest.approx(3 * 10)


def test_the_estimate_with_a_forecast_step_by_step(clock, trials):
    """Two epochs each of a mixture of 10 s and two of 40 s an epoch, which take twice as long as forecast."""
    light, copied, heavy = (
        replace(trial, plan=replace(trial.plan, experts=tuple(experts)))
        for trial, experts in zip(trials[:3], ("ABCD", "ABCE", "ABCF"), strict=True)
    )
    left = TimeLeft(forecast((light, copied, heavy), 2), clock)
    left.started(light)
    pass_epochs(left, clock, light, [1], 20)
    assert left.seconds() == pytest.approx(2 * (10 + 2 * 40 + 2 * 40))
    pass_epochs(left, clock, light, [2], 20)
    left.finished(light)
    assert left.seconds() == pytest.approx(2 * (2 * 40 + 2 * 40))
    left.finished(copied)
    assert left.seconds() == pytest.approx(2 * 2 * 40)
    left.started(heavy)
    pass_epochs(left, clock, heavy, [1], 20)  # this one takes half as long as forecast
    assert left.seconds() == pytest.approx(20)
    left.requeued(heavy)
    assert left.seconds() == pytest.approx(2 * 2 * 40)


def test_a_training_that_was_not_seen_to_begin_counts_from_its_first_epoch(clock, trials):
    left = estimate(clock, trials=2, epochs=3)
    pass_epochs(left, clock, trials[0], [1, 2], 10)
    assert left.seconds() == pytest.approx(5 + 3 * 5)  # two epochs in the ten seconds since
