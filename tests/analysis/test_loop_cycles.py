"""Figures of closed loops, from hand-made campaigns: shares of proposals, gains, noise, and gaps between loops."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from nngen.analysis.loop_report import LoopGap, last_cycle, loops, read_cycle
from nngen.analysis.statistics import difference_interval, mean_share_interval, wilson
from nngen.archive import Archive, LoopRole
from nngen.testing.fakes import FakeEngine, fake_campaign, fake_record


class Given(FakeEngine):
    """Engine with given accuracies, in the order of the trainings; a negative one is of a smaller batch."""

    def __init__(self, accuracies):
        super().__init__()
        self.accuracies = list(accuracies)

    def train(self, job, on_epoch=None):
        trial, accuracy = FakeEngine.train(self, job, on_epoch), self.accuracies.pop(0)
        batch = job.spec.batch if accuracy >= 0 else job.spec.batch // 2
        return replace(trial, validation_accuracy=abs(accuracy), batch=batch)


@pytest.fixture
def archive():
    with Archive.in_memory() as archive:
        yield archive


def stage(archive, loop, cycle, accuracies, *, role=LoopRole.CYCLE, proposals=(), **more):
    name = f"{loop}-{role}-{cycle}"
    seed = len(archive.campaigns())  # other quartets in each, so that no result is copied
    arguments = {"size": len(accuracies), "engine": Given(accuracies), "seed": seed, "loop": loop, "cycle": cycle}
    fake_campaign(archive, name=name, role=role, device="cuda", **arguments | more).run()
    for proposal in proposals:
        archive.log("proposal", campaign=name, **proposal)
    return name


def proposal(index, stage="checked", **more):
    return {"index": index, "stage": stage, "rewriter": "a", **more}


def test_the_figures_of_each_cycle(archive):
    proposals = [
        proposal(0, "parsed"),
        proposal(0),  # the second try replaces the first
        proposal(1, twin="MoE4-x", rewriter="b"),
        proposal(2, "refused"),
        proposal(3, twin=None),
    ]
    stage(archive, "l", 0, [0.4, 0.5, -0.9, 0.6], proposals=proposals)
    stage(archive, "l", 0, [0.55, 0.65], role=LoopRole.JUDGE)
    second = stage(archive, "l", 1, [0.7, 0.8], proposals=[proposal(0), proposal(1)])
    judging = stage(archive, "l", 1, [0.75, 0.85], role=LoopRole.JUDGE)
    found = loops(archive, second, ("a", "random"))
    assert (found.name, found.gaps, found.missing_baselines) == ("l", (), ("a", "random"))
    first, later = found.cycles
    assert (first.number, first.rewriter, first.writers) == (0, "a, b", {"a": 3, "b": 1})
    assert (first.shares, later.shares) == ("a 75%, b 25%", "a")
    assert (first.valid, first.new) == (wilson(3, 4), wilson(2, 3))
    assert (first.accuracies, first.left_out) == ((0.4, 0.5, 0.6), 1)
    assert (first.mean, first.best, first.span) == (pytest.approx(0.5), 0.6, mean_share_interval([0.4, 0.5, 0.6]))
    assert (first.judged, first.gain, first.noise) == (pytest.approx(0.6), None, None)
    assert (later.valid, later.new) == (wilson(2, 2), wilson(2, 2))
    assert later.gain == pytest.approx(0.2)
    # Two means of two seeds each, whose spread is that of the second.
    assert later.noise == pytest.approx(1.959964 * math.sqrt(2 * 0.005 / 2))
    assert later.judged_candidate == archive.trials(judging)[0].candidate_id
    assert last_cycle(archive, "l") == second
    assert last_cycle(archive, "x") is None is loops(archive, "x")


def test_one_fresh_seed_has_no_spread(archive):
    for cycle, accuracy in enumerate((0.5, 0.7)):
        stage(archive, "l", cycle, [0.4])
        stage(archive, "l", cycle, [accuracy], role=LoopRole.JUDGE)
    first, later = loops(archive, "l").cycles
    assert (first.span, first.shares, later.noise) == (None, "", 0.0)
    assert later.gain == pytest.approx(0.2)


def test_loops_at_the_same_fidelity_are_compared_after_their_start(archive):
    for loop, accuracies in (("l", [0.7, 0.8, 0.9]), ("m", [0.5, 0.6])):
        stage(archive, loop, 0, [0.1])
        stage(archive, loop, 0, [0.5], role=LoopRole.JUDGE)
        stage(archive, loop, 1, accuracies, proposals=[proposal(0, rewriter=loop)])
    stage(archive, "longer", 0, [0.1], epochs=3)
    stage(archive, "longer", 0, [0.5], role=LoopRole.JUDGE, epochs=3)
    stage(archive, "no start", 1, [0.1])
    stage(archive, "not judged", 0, [0.1])
    found = loops(archive, "l", ("m", "n"))
    assert [cycle.loop for cycle in found.cycles] == ["l", "l", "m", "m"]
    (gap,) = found.gaps
    assert (gap.other, gap.rewriter, gap.gap) == ("m", "m", pytest.approx(0.25))
    assert gap.span == difference_interval([0.7, 0.8, 0.9], [0.5, 0.6])
    assert found.missing_baselines == ("n",)
    assert loops(archive, "no start") is None is loops(archive, "not judged")
    assert loops(archive, "longer").gaps == ()


def test_a_loop_of_several_writers_is_a_model_and_one_without_later_trials_is_not_compared(archive):
    for loop, last in (("l", 3), ("m", 2), ("n", 0)):
        stage(archive, loop, 0, [0.1], proposals=[proposal(0, rewriter="start")])
        stage(archive, loop, 0, [0.5], role=LoopRole.JUDGE)
        for cycle in range(1, last + 1):
            stage(archive, loop, cycle, [0.5 + cycle / 10], proposals=[proposal(0, rewriter=f"{loop}{cycle}")])
    archive.add_campaign(fake_record("no cycle", loop="l", role=LoopRole.CYCLE), [])
    archive.add_campaign(fake_record("no role", loop="l", cycle=9), [])
    found = loops(archive, "l", ("a model", "m1"))
    (gap,) = found.gaps
    assert (gap.other, gap.rewriter, gap.gap) == ("m", "a model", pytest.approx(0.7 - 0.65))
    assert found.missing_baselines == ("m1",)
    assert loops(archive, "n").gaps == ()
    assert [(cycle.loop, cycle.number) for cycle in found.cycles] == [
        *[("l", number) for number in range(4)],
        *[("m", number) for number in range(3)],
        ("n", 0),
    ]
    # Nothing was judged after the start, so that there is nothing to gain.
    assert {(cycle.judged, cycle.judged_candidate, cycle.gain) for cycle in found.cycles[1:4]} == {(None, "", None)}
    assert last_cycle(archive, "l") == "l-cycle-3"


def test_a_cycle_without_trials_has_no_mean_and_gains_start_where_something_was_judged(archive):
    name = stage(archive, "l", 0, [0.4])
    trials = archive.trials(name)
    start = read_cycle(archive, "l", 0, name, (), (), None)
    assert (start.mean, start.best, start.span, start.judged, start.left_out) == (None, None, None, None, 0)
    first = read_cycle(archive, "l", 1, name, trials, trials, start)
    assert (first.mean, first.judged, first.gain, first.noise) == (0.4, 0.4, None, None)
    second = read_cycle(archive, "l", 2, name, trials, trials, first)
    assert (second.gain, second.noise) == (0.0, 0.0)
    unjudged = read_cycle(archive, "l", 3, name, trials, (), second)
    assert (unjudged.gain, unjudged.noise) == (None, None)
    nobody = [replace(trials[0], candidate_id=None, batch=None)]
    assert read_cycle(archive, "l", 3, name, nobody, nobody, None).judged_candidate == ""
    assert read_cycle(archive, "l", 3, name, nobody, nobody, None).accuracies == (0.4,)
    other = [replace(trials[0], suspect="perfect"), replace(trials[0], spec=None)]
    assert (read_cycle(archive, "l", 3, name, other, (), None).left_out) == 2
    assert replace(start, writers={"a": 1, "b": 2}).shares == "a 33%, b 67%"


@pytest.mark.parametrize(
    ("span", "verdict"),
    [
        (None, "too few trials to compare"),
        ((0.01, 0.2), "better"),
        ((0.0, 0.2), "not distinguishable"),
        ((-0.2, 0.0), "not distinguishable"),
        ((-0.2, -0.01), "worse"),
    ],
)
def test_the_interval_decides_on_the_verdict(span, verdict):
    assert LoopGap(other="m", rewriter="a", gap=0.1, span=span).verdict == verdict
