"""Closed loop of proposals and trainings."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from plan_engine import SPEC, PlanEngine

from nngen.analysis.statistics import mean_interval, wilson
from nngen.archive import Archive, LoopRole, StoredTrial, TrialState
from nngen.campaign.budget import Budget
from nngen.campaign.protocols import CampaignInputs, Watcher
from nngen.errors import UsageError
from nngen.llm.evolve import Evolution
from nngen.llm.proposals.log import Proposal, Stage, proposals
from nngen.llm.proposals.parents import islands_of
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.rewriters.bandit import Bandit
from nngen.llm.rewriters.base import Kind, Reply, Request
from nngen.llm.rewriters.baselines import Mutate, Uniform
from nngen.plan import Plan
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


def test_repeated_draws_of_the_start_are_drawn_anew(loop: Make, inputs: CampaignInputs, monkeypatch: Any) -> None:
    draw, plans = PlanSpace.draw, list[Plan]()

    def repeating(space: PlanSpace, rng: Random) -> Plan:
        plans.append(plans[0] if len(plans) in (1, 2) else draw(space, rng))
        return plans[-1]

    monkeypatch.setattr(PlanSpace, "draw", repeating)
    said: list[str] = []
    with Archive.in_memory() as archive:
        (start,) = loop(archive, Mutate(), note=said.append)._run(cycles=0)
        assert (start.new.successes, len(start.accuracies)) == (5, 5)
        assert len(plans) >= 7 and len(said) == 1


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


def test_a_bandit_asks_the_tuned_model_in_place_of_its_base(archive: Archive, loop: Make) -> None:
    class Tuned(Mutate):
        name = "mutate+adapter-1"

    bandit = Bandit([Uniform(), Mutate()])
    loop(archive, bandit, tune=lambda _, cycle: Tuned() if cycle == 1 else None).run()
    assert [one.name for one in bandit.rewriters] == ["random", "mutate+adapter-1"]


def test_the_test_accuracy_is_revealed_once_the_loop_is_over(
    archive: Archive, loop: Make, engine: PlanEngine, inputs: CampaignInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions, train = inputs.dataset.test_labels.astype("<u2"), engine.train
    predictions[0] += 1  # one is wrong

    def predicting(*given: Any, **named: Any) -> Trial:
        return replace(train(*given, **named), test_predictions=predictions.tobytes())

    monkeypatch.setattr(engine, "train", predicting)
    said: list[str] = []
    loop(archive, Mutate(), cycles=1, reveal=True, budget=Budget(max_trials=9), note=said.append).run()
    assert not any("test accuracy" in line for line in said)
    last = loop(archive, Mutate(), cycles=1, reveal=True, budget=Budget(max_trials=99), note=said.append).run()[-1]
    accuracy = 1 - 1 / len(predictions)
    assert said[-1] == f"test accuracy of {last.judged_candidate}: {accuracy:.4f} over 2 seeds"
    revealed = {
        t.campaign: t.test_accuracy for c in archive.campaigns() for t in archive.trials(c.name) if t.test_accuracy
    }
    assert revealed == {"loop-judge-1": pytest.approx(accuracy)}


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


def row(candidate: str, index: int, parent: str = "") -> Proposal:
    return Proposal(
        batch="b",
        index=index,
        rewriter="r",
        kind=Kind.PLAN,
        parent=parent,
        candidate=candidate,
        stage=Stage.CHECKED,
    )


def test_children_stay_on_their_island_and_the_best_migrate_after_two_cycles() -> None:
    start = [row(f"a{number}", number) for number in range(4)]
    cycles = [start, [row("b0", 0, "a0"), row("b1", 1, "a1")]]
    accuracies = {"a0": 0.5, "a1": 0.4, "a2": 0.3, "a3": 0.3, "b0": 0.6, "b1": 0.2, "c0": 0.1}
    assert islands_of(cycles, accuracies, 2) == {"a0": {0}, "a1": {1}, "a2": {0}, "a3": {1}, "b0": {0}, "b1": {1}}
    cycles += [[row("c0", 0, "b0")], [row("d0", 2, "b0"), row("d1", 3, "b0")]]
    homes = islands_of(cycles, accuracies, 2)
    assert (homes["b0"], homes["a1"], homes["c0"], homes["d0"], homes["d1"]) == ({0, 1}, {0, 1}, {0}, {0}, {1})
    assert set.union(*islands_of(cycles, accuracies, 1).values()) == {0}


def test_each_island_has_its_own_parents(archive: Archive, loop: Make) -> None:
    loop(archive, Mutate(), cycles=1, start=8, number=4, top=1, islands=4).run()
    scores = {trial.candidate_id: trial.validation_accuracy or 0.0 for trial in archive.trials("loop-0")}
    start = [one.candidate for one in proposals(archive, "loop-0")]
    best = {max(start[place::4], key=lambda name: scores[name]) for place in range(4)}
    assert {one.parent for one in proposals(archive, "loop-1")} == best


def test_cycles_take_the_kinds_of_proposals_in_turn(archive: Archive, loop: Make) -> None:
    kinds = (Kind.PLAN, Kind.REGION)
    found = loop(archive, Mutate(), cycles=4, kinds=kinds, isolation="process").run()
    rows = [proposals(archive, f"loop-{cycle}") for cycle in range(1, 5)]
    assert [{one.kind for one in cycle} for cycle in rows] == [{Kind.PLAN}, {Kind.REGION}] * 2
    # The engine gives 0.8 to code and less to plans: code is judged, and rewritten further, but plans come of plans.
    assert found[2].judged == pytest.approx(0.8, abs=0.01)
    assert archive.candidate(found[2].judged_candidate).plan is None
    assert all(archive.candidate(one.parent).plan for one in rows[2])
    again = [one for one in rows[3] if archive.candidate(one.parent).plan is None]
    assert again and sum(one.new for one in again) > 0
    plans = {trial.candidate_id: trial.plan for trial in archive.trials()}
    assert all(plans[one.candidate] == plans[one.parent] for one in again if one.new)


class Costly(Mutate):
    """Rewriter whose replies count tokens."""

    def propose(self, requests: Sequence[Request]) -> list[Reply]:
        return [replace(reply, prompt_tokens=100, reply_tokens=10) for reply in super().propose(requests)]


def test_a_loop_ends_after_so_many_new_candidates_or_tokens(archive: Archive, loop: Make) -> None:
    said: list[str] = []
    with Archive.in_memory() as whole:
        wanted = loop(whole, Costly()).run()
    assert loop(archive, Costly(), max_new=9, note=said.append).run() == wanted[:2]
    assert "--max-new 9 is reached with 9; a larger one continues the loop" in said[-1]
    assert loop(archive, Costly(), max_tokens=441, note=said.append).run() == wanted[:3]
    assert "--max-tokens 441 is reached with 880" in said[-1]
    assert loop(archive, Costly(), max_new=1000).run() == wanted
    with Archive.in_memory() as drafted:
        assert len(loop(drafted, Costly(), pool=12, max_tokens=1, note=said.append).run()) == 1 + 1
    assert "is reached with 1320" in said[-1]


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
