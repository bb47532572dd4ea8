"""Closed loop of proposals and trainings."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from plan_engine import SPEC, PlanEngine

from nngen.analysis.statistics import mean_interval, wilson
from nngen.archive import Archive, LoopRole, StoredTrial, TrialState
from nngen.campaign import Budget, CampaignInputs, Watcher
from nngen.errors import UsageError
from nngen.llm.evolve import Evolution
from nngen.llm.rewriters.baselines import Mutate, Uniform
from nngen.training.engine import TrainJob
from nngen.types import Trial


class Killed(BaseException):
    pass


Make = Callable[..., Evolution]


@pytest.fixture
def loop(engine: PlanEngine, inputs: CampaignInputs) -> Make:
    """Make a loop of three cycles with fixed seeds."""

    def make(archive: Archive, rewriter: Any, **more: Any) -> Evolution:
        settings: dict[str, Any] = {"cycles": 3, "start": 5, "number": 4, "patience": 9, **more}
        spec = replace(SPEC, name="loop", seed=2)
        return Evolution(spec=spec, archive=archive, inputs=inputs, engine=engine, rewriter=rewriter, **settings)

    return make


def test_judged_accuracy_rises_and_every_cycle_is_reported(archive: Archive, loop: Make) -> None:
    found = loop(archive, Mutate(), start=1, number=24).run()
    assert [cycle.number for cycle in found] == [0, 1, 2, 3]
    judged = [cycle.judged or 0.0 for cycle in found]
    assert judged[-1] > judged[0]
    for cycle in found:
        assert cycle.valid.low <= cycle.valid.successes / cycle.valid.tries <= cycle.valid.high
        assert len(cycle.accuracies) == cycle.new.successes


def test_all_rewriters_of_one_seed_share_the_start(loop: Make) -> None:
    starts = []
    for rewriter in (Uniform(), Mutate()):
        with Archive.in_memory() as archive:
            starts.append(loop(archive, rewriter, cycles=1).run()[0].accuracies)
    assert starts[0] == starts[1]


def test_a_killed_loop_resumes_to_the_same_cycles(
    loop: Make, engine: PlanEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Archive.in_memory() as archive:
        wanted = loop(archive, Mutate()).run()
    train, limit = engine.train, 0

    def mortal(*given: Any, **named: Any) -> Any:
        nonlocal limit
        limit -= 1
        if limit < 0:
            raise Killed
        return train(*given, **named)

    monkeypatch.setattr(engine, "train", mortal)
    with Archive.in_memory() as archive:
        for _ in range(60):
            limit = 2
            try:
                found = loop(archive, Mutate()).run()
            except Killed:
                continue
            break
        assert found == wanted
        assert not [trial for trial in archive.trials() if not trial.trained]


def test_the_loop_stops_when_the_gain_is_inside_the_noise(
    archive: Archive, loop: Make, engine: PlanEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = engine.train

    def flat(job: TrainJob, on_epoch: Any = None) -> Trial:
        return replace(train(job, on_epoch), validation_accuracy=0.5 + job.spec.seed % 7 / 1000)

    monkeypatch.setattr(engine, "train", flat)
    said: list[str] = []
    found = loop(archive, Mutate(), cycles=6, patience=2, note=said.append).run()
    assert len(found) < 7
    assert "gains inside the noise" in said[-1]


def test_the_model_is_tuned_between_cycles(archive: Archive, loop: Make) -> None:
    lessons: list[int] = []

    def tune(_: Archive, cycle: int) -> Any:
        lessons.append(cycle)
        return Mutate() if cycle == 1 else None

    found = loop(archive, Uniform(), tune=tune).run()
    assert lessons == [1, 2]
    assert [cycle.rewriter for cycle in found] == ["random", "random", "mutate", "mutate"]


def test_one_judging_seed_is_refused(archive: Archive, loop: Make) -> None:
    with pytest.raises(UsageError, match="--judges must be a whole number from 2"):
        loop(archive, Mutate(), judges=1).run()


def test_a_budget_counts_over_all_stages_and_a_larger_one_continues(archive: Archive, loop: Make) -> None:
    said: list[str] = []
    with Archive.in_memory() as whole:
        wanted = loop(whole, Mutate()).run()
    first = loop(archive, Mutate(), budget=Budget(max_trials=9), note=said.append).run()
    assert first == wanted[:1]
    assert sum(archive.counts(record.name)[TrialState.DONE] for record in archive.campaigns()) == 9
    assert "loop-1 was stopped before its last trial" in said[-1]
    assert loop(archive, Mutate(), note=said.append).run() == wanted[:1]
    assert "the budget of --max-trials 9 is used up" in said[-1]
    assert loop(archive, Mutate(), budget=Budget(max_trials=100)).run() == wanted


def test_a_stop_command_ends_the_loop_and_the_same_call_continues_it(
    archive: Archive, loop: Make, engine: PlanEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = engine.train

    def slow(job: TrainJob, on_epoch: Any = None) -> Trial:
        time.sleep(0.3)  # commands are read once a second
        return train(job, on_epoch)

    class Stop(Watcher):
        def stage(self, trial: StoredTrial, stage: str) -> None:
            if trial.campaign == "loop-1":
                archive.log("control.stop", campaign=trial.campaign)
                monkeypatch.setattr(engine, "train", slow)

    with Archive.in_memory() as whole:
        wanted = loop(whole, Mutate(), number=6).run()
    said: list[str] = []
    assert loop(archive, Mutate(), number=6, watcher=Stop(), note=said.append).run() == wanted[:1]
    monkeypatch.setattr(engine, "train", train)
    assert "loop-1 was stopped before its last trial; the same command continues it" in said[-1]
    assert loop(archive, Mutate(), number=6).run() == wanted


def test_stages_are_recorded_with_loop_cycle_and_role(archive: Archive, loop: Make) -> None:
    loop(archive, Mutate(), cycles=1).run()
    stages = {record.name: (record.loop, record.cycle, record.role) for record in archive.campaigns()}
    assert stages == {
        "loop-0": ("loop", 0, LoopRole.CYCLE),
        "loop-judge-0": ("loop", 0, LoopRole.JUDGE),
        "loop-1": ("loop", 1, LoopRole.CYCLE),
        "loop-judge-1": ("loop", 1, LoopRole.JUDGE),
    }


def test_other_settings_are_refused(archive: Archive, loop: Make) -> None:
    loop(archive, Mutate(), cycles=1).begin()
    other = loop(archive, Mutate())
    with pytest.raises(UsageError, match="loop loop began with other settings"):
        replace(other, spec=replace(other.spec, seed=3)).run()


def test_intervals_against_known_values() -> None:
    # Wilson, 8 of 10: 0.4902 to 0.9433 (Newcombe 1998 gives the formula).
    share = wilson(8, 10)
    assert (round(share.low, 4), round(share.high, 4)) == (0.4902, 0.9433)
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)
    # Student, n = 3, t(2; 0.975) = 4.3027, values 1, 2, 3: 2 +- 4.3027 / sqrt(3).
    span = mean_interval([1.0, 2.0, 3.0])
    assert span == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)
    assert mean_interval([1.0]) is None
