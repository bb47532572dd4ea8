"""Pools of drafts: known plans dropped, the best picked by the ranker, asked again until enough are new."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from statistics import fmean
from typing import Any

import pytest
from plan_engine import SPEC, PlanEngine, train

from nngen.archive import Archive
from nngen.campaign.protocols import CampaignInputs
from nngen.llm.evolve import Evolution
from nngen.llm.proposals.log import proposals, shortfall
from nngen.llm.proposals.parents import top_parents
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.proposals.pool import MIN_RANKED, read_drafts
from nngen.llm.proposals.propose import Proposer
from nngen.llm.rewriters.base import Reply, Request, Status
from nngen.llm.rewriters.baselines import Mutate, Uniform
from nngen.surrogate.plan_text import plan_text


class Killed(BaseException):
    pass


class Scripted:
    """Rewriter that takes its replies from a list, and then writes the last one."""

    trusted = True
    name = "scripted"

    def __init__(self, *replies: str | Reply) -> None:
        self.replies, self.asked = list(replies), 0

    def propose(self, requests: Sequence[Request]) -> list[Reply]:
        self.asked += len(requests)
        taken = [self.replies.pop(0) if len(self.replies) > 1 else self.replies[0] for _ in requests]
        return [Reply(text=reply) if isinstance(reply, str) else reply for reply in taken]


@pytest.fixture
def make(archive: Archive, engine: PlanEngine, inputs: CampaignInputs, space: PlanSpace) -> Callable[..., Proposer]:
    def build(rewriter: Any, batch: str = "b", **more: Any) -> Proposer:
        settings = {"archive": archive, "pool": 24, **more}
        return Proposer(
            rewriter=rewriter, engine=engine, inputs=inputs, spec=SPEC, batch=batch, space=space, **settings
        )

    return build


def texts(space: PlanSpace, count: int, seed: int = 0) -> list[str]:
    rng = Random(seed)
    return [plan_text(space.draw(rng)) for _ in range(count)]


def test_the_ranker_picks_better_plans_than_those_drawn(
    make: Any, archive: Archive, engine: PlanEngine, inputs: CampaignInputs
) -> None:
    trials = train(archive, "start", make(Uniform(), "start", pool=None).plans(24, (), 0), engine, inputs)
    said: list[str] = []
    drawn = make(Uniform(), "drawn", pool=None).plans(8, (), 1, trials=trials)
    ranked = make(Uniform(), "ranked", pool=64, note=said.append).plans(8, (), 1, trials=trials)
    means = [
        fmean(trial.validation_accuracy or 0.0 for trial in train(archive, rows[0].batch, rows, engine, inputs))
        for rows in (drawn, ranked)
    ]
    assert [row.new for row in ranked] == [True] * 8
    assert means[1] > means[0] + 0.01
    assert said == [
        "ranked: 64 drafts, 0 not plans, 0 known, 0 repeated; "
        "picked the best 8 of 64 new ones by a ranker fitted to 24 trained plans"
    ]


def test_too_few_trials_take_the_first_drafts_and_say_so(
    make: Any, archive: Archive, space: PlanSpace, engine: PlanEngine, inputs: CampaignInputs
) -> None:
    few = train(archive, "few", make(Uniform(), "few", pool=None).plans(MIN_RANKED - 1, (), 9), engine, inputs)
    said: list[str] = []
    written = texts(space, 24)
    rows = make(Scripted(*written), note=said.append).plans(3, (), 0, trials=few)
    assert [row.text for row in rows] == written[:3]
    assert "took the first 3 of 24 new ones: a ranker needs 8 trained plans, and 7 are trained" in said[0]


def test_known_plans_are_dropped_before_assembly_and_more_are_asked_for(
    make: Any, archive: Archive, space: PlanSpace, engine: PlanEngine
) -> None:
    known, fresh = texts(space, 4), texts(space, 3, seed=1)
    make(Scripted(*known), "before", pool=None).plans(4, (), 0)
    before = len(engine.checked)
    # One turn of what the archive has and one new plan twice; a second turn with the others.
    writer = Scripted(*known, fresh[0], fresh[0], "no plan", *known, *fresh)
    rows = make(writer, pool=7).plans(3, (), 0)
    assert [row.text for row in rows] == fresh
    assert all(row.new for row in rows)
    assert len(engine.checked) == before + 3
    first, second = read_drafts(archive, "b")
    assert (first.known, first.repeated, first.faults, first.usable) == (4, 1, {"no-block": 1}, 1)
    assert (second.known, len(second.picked)) == (5, 2)


def test_plans_that_the_checks_refuse_are_replaced(make: Any, engine: PlanEngine, inputs: CampaignInputs) -> None:
    engine.refuse = 'routing = "top-k"'
    rows = make(Uniform(), pool=6).plans(6, (), 0)
    assert sum(row.new for row in rows) == 6
    assert len(rows) > 6
    assert [row.index for row in rows] == list(range(len(rows)))


def test_a_rewriter_that_only_repeats_ends_after_four_turns(make: Any, archive: Archive, space: PlanSpace) -> None:
    (known,) = texts(space, 1)
    make(Scripted(known), "before", pool=None).plans(1, (), 0)
    writer = Scripted(known)
    rows = make(writer, pool=5).plans(2, (), 0)
    assert [(row.text, row.new) for row in rows] == [(known, False)] * 2
    assert writer.asked == 4 * 5 + 2
    # The same command asks for nothing more.
    assert make(writer, pool=5).plans(2, (), 0) == rows
    assert writer.asked == 4 * 5 + 2


def test_a_batch_killed_at_any_proposal_goes_on_with_its_drafts(make: Any, archive: Archive) -> None:
    class Counted(Mutate):
        asked = 0

        def propose(self, requests: Sequence[Request]) -> list[Reply]:
            Counted.asked += len(requests)
            return super().propose(requests)

    def strike(row: Any) -> None:
        raise Killed

    with Archive.in_memory() as whole:
        wanted = [(row.index, row.text, row.candidate) for row in make(Mutate(), archive=whole).plans(5, (), 0)]
    for _ in range(5):
        with pytest.raises(Killed):
            make(Counted(), watch=strike).plans(5, (), 0)
    rows = make(Counted()).plans(5, (), 0)
    assert [(row.index, row.text, row.candidate) for row in rows] == wanted
    assert Counted.asked == 24
    more = make(Counted()).plans(7, (), 0)
    assert more[:5] == rows
    assert sum(row.new for row in more) == 7


def test_a_server_that_is_down_is_asked_again_by_the_same_call(make: Any, space: PlanSpace) -> None:
    down = Scripted(Reply(status=Status.REFUSED, detail="no server answers"))
    rows = make(down).plans(3, (), 0)
    assert str(shortfall(rows, 3)).startswith("no reply came back: no server answers")
    assert down.asked == 16 + 3
    again = make(Scripted(*texts(space, 30))).plans(3, (), 0)
    assert [row.new for row in again] == [True] * 3
    assert shortfall(again, 3) is None


def test_a_loop_with_drafts_resumes_to_the_same_cycles(
    engine: PlanEngine, inputs: CampaignInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loop(archive: Archive) -> Evolution:
        spec = replace(SPEC, name="loop", seed=2)
        sizes: dict[str, Any] = {"cycles": 2, "start": 8, "number": 4, "patience": 9, "pool": 20}
        return Evolution(spec=spec, archive=archive, inputs=inputs, engine=engine, rewriter=Mutate(), **sizes)

    with Archive.in_memory() as archive:
        wanted = loop(archive).run()
        assert [cycle.new.successes for cycle in wanted] == [8, 4, 4]
        assert all(turn.fitted >= 8 for turn in read_drafts(archive, "loop-1"))
        children = [row.parent for row in proposals(archive, "loop-1")]
        assert set(children) <= {candidate.id for candidate in archive.candidates()}
    check, limit = engine.check, 0

    def mortal(*given: Any) -> Any:
        nonlocal limit
        limit -= 1
        if limit < 0:
            raise Killed
        return check(*given)

    monkeypatch.setattr(engine, "check", mortal)
    with Archive.in_memory() as archive:
        for _ in range(30):
            limit = 1
            try:
                found = loop(archive).run()
            except Killed:
                continue
            break
        assert found == wanted


def test_parents_with_many_children_give_way(
    make: Any, archive: Archive, engine: PlanEngine, inputs: CampaignInputs
) -> None:
    trials = train(archive, "start", make(Uniform(), "start", pool=None).plans(6, (), 0), engine, inputs)
    order = [parent.id for parent in top_parents(archive, trials, 6)]
    best, second = (fmean(t.validation_accuracy or 0 for t in trials if t.candidate_id == name) for name in order[:2])
    tries = 2 ** (1 + int((best - second) / 0.014))  # 0.014 is assumed where no candidate has two seeds
    assert top_parents(archive, trials, 1, {order[0]: 2 * tries})[0].id == order[1]
    assert top_parents(archive, trials, 1, {order[1]: 3})[0].id == order[0]
    assert [parent.id for parent in top_parents(archive, trials, 6, dict.fromkeys(order, 1))] == order


def test_a_mean_of_several_seeds_is_preferred_to_one_lucky_seed(
    make: Any, archive: Archive, engine: PlanEngine, inputs: CampaignInputs
) -> None:
    trials = train(archive, "start", make(Uniform(), "start", pool=None).plans(2, (), 0), engine, inputs)
    one, other = (replace(trial, id=90 + place) for place, trial in enumerate(trials))
    accuracies = {"lucky": [0.525], "steady": [0.50, 0.52, 0.54]}
    rows = [
        replace(trial, validation_accuracy=value)
        for trial, values in ((one, accuracies["lucky"]), (other, accuracies["steady"]))
        for value in values
    ]
    assert top_parents(archive, rows, 1)[0].id == other.candidate_id
