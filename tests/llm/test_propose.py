"""Proposals, from reply to event."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from plan_engine import PlanEngine, Scripted, train

from nngen.archive import Archive, StoredTrial
from nngen.campaign.protocols import CampaignInputs, Watcher
from nngen.errors import NngenError, SomeFailedError, UsageError
from nngen.isolation import Isolation
from nngen.llm.proposals.deltas import write_delta
from nngen.llm.proposals.log import EVENT, Funnel, Stage, TwinKind, funnel, proposals, shortfall
from nngen.llm.proposals.parents import Parent, trained_funnel
from nngen.llm.proposals.parsing import Fault
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.proposals.prompt_context import plan_values
from nngen.llm.rewriters.base import Reply, Status
from nngen.llm.rewriters.baselines import Mutate, Uniform
from nngen.plan import changes
from nngen.surrogate.plan_text import plan_text
from nngen.types import Candidate, Outcome


class Killed(BaseException):
    pass


def test_random_plans_pass_every_stage(make: Any, space: PlanSpace, engine: PlanEngine, archive: Archive) -> None:
    held = make(Uniform()).plans(12, (), 0)
    assert funnel(held) == Funnel(asked=12, parsed=12, applied=12, checked=12, new=12)
    assert {candidate.id for candidate in archive.candidates()} == {row.candidate for row in held}
    assert all(row.prompt.startswith("plan@") for row in held)


def test_a_batch_continues_without_repeating_requests(make: Any, space: PlanSpace, engine: PlanEngine) -> None:
    first = make(Uniform()).plans(3, (), 0)
    assert make(Uniform()).plans(3, (), 0) == first
    more = make(Uniform()).plans(5, (), 0)
    assert more[:3] == first
    assert len(engine.checked) == 5


def test_a_batch_killed_at_any_proposal_resumes_to_the_same_proposals(
    space: PlanSpace, engine: PlanEngine, inputs: CampaignInputs, make: Any, archive: Archive
) -> None:
    def strike(row: Any) -> None:
        raise Killed

    with Archive.in_memory() as whole:
        reference = make(Uniform(), archive=whole)
        wanted = [(row.index, row.text, row.candidate) for row in reference.plans(6, (), 0)]
    for _ in range(6):
        with pytest.raises(Killed):
            make(Uniform(), watch=strike).plans(6, (), 0)
    held = make(Uniform()).plans(6, (), 0)
    assert [(row.index, row.text, row.candidate) for row in held] == wanted


def test_duplicates_are_refused_before_training(
    make: Any, space: PlanSpace, archive: Archive, engine: PlanEngine, inputs: CampaignInputs
) -> None:
    text = plan_text(space.draw(Random(0)))
    held = make(Scripted(text, text)).plans(2, (), 0)
    assert [row.twin for row in held] == [None, TwinKind.EXACT]
    assert held[1].twin_of == held[0].candidate
    assert len(engine.checked) == 1
    trials = train(archive, "b", held, engine, inputs)
    assert len(trials) == 1


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ("no idea", Fault.NO_BLOCK),
        ("{}", Fault.FAMILY),
        (Reply(status=Status.TIMEOUT, detail="no answer within 1 s"), Fault.SERVER),
        (Reply(status=Status.CUT, text='{"experts"', detail="the reply reached 9 tokens"), Fault.CUT),
    ],
)
def test_replies_that_are_not_plans_have_a_fault(make: Any, space: PlanSpace, reply: Any, fault: Fault) -> None:
    row = make(Scripted(reply)).plans(1, (), 0)[0]
    assert row.fault is fault
    assert row.message
    assert funnel([row]) == Funnel(asked=1, parsed=0, applied=0, checked=0, new=0)


DOWN = Reply(status=Status.REFUSED, detail="no server answers")
BUSY = Reply(status=Status.BUSY, detail="the server answered 503")


def test_requests_without_a_reply_are_made_again_with_the_same_seed(make: Any, space: PlanSpace) -> None:
    good = plan_text(space.draw(Random(0)))
    down = Scripted(DOWN, DOWN, DOWN)
    first = make(down).plans(3, (), 0)
    assert [row.fault for row in first] == [Fault.SERVER] * 3
    lost = shortfall(first, 3)
    assert (type(lost), str(lost)) == (NngenError, "no reply came back: no server answers; the same command asks again")
    assert plan_values((), space, failed=first)["failures"] == []
    half = Scripted(good, BUSY, "no idea")
    second = make(half).plans(3, (), 0)
    assert [request.seed for request in half.asked] == [request.seed for request in down.asked]
    assert [row.unanswered for row in second] == [False, True, False]
    assert isinstance(shortfall(second, 3), SomeFailedError)
    last = Scripted(good)
    third = make(last).plans(3, (), 0)
    assert [request.seed for request in last.asked] == [half.asked[1].seed]
    assert [row.index for row in third] == [0, 1, 2]
    assert shortfall(third, 3) is None
    assert funnel(third).asked == 3


def test_a_server_that_is_down_is_not_asked_for_the_whole_batch(make: Any) -> None:
    writer = Scripted(*[DOWN] * 100)
    held = make(writer).plans(100, (), 0)
    assert len(writer.asked) == len(held) == 16
    assert str(shortfall(held, 100)).startswith("no reply came back")


def test_a_rejected_request_among_answered_ones_is_final(make: Any) -> None:
    rejected = Reply(status=Status.REJECTED, detail="the server answered 400 Bad Request")
    assert shortfall(make(Scripted("no idea", rejected)).plans(2, (), 0), 2) is None
    assert "400 Bad Request" in str(shortfall(make(Scripted(rejected), "other").plans(1, (), 0), 1))


@pytest.mark.parametrize(
    "body",
    [
        "x = " + "not " * 900 + "1",
        "x = " + "-" * 150_000 + "1",
        "x = " + "(" * 150 + ")" * 150,
        "x = '\ud800'",
        "x = '\0'",
    ],
    ids=["nots", "operators", "brackets", "surrogate", "null"],
)
def test_code_that_cannot_be_read_ends_as_a_fault(make: Any, parent: Candidate, archive: Archive, body: str) -> None:
    archive.add_candidate(parent)
    start = Parent.of(archive.candidate(parent.id))
    code = (
        f"def importance_loss(weights: torch.Tensor) -> torch.Tensor:\n    x = {body}\n    return weights.sum() * 0\n"
    )
    writer = Scripted(f"```python\n{code}```")
    (row,) = make(writer, sandbox=True).regions(1, [start], 0, ["loss"])
    assert row.fault in (Fault.SYNTAX, None)
    assert "\n" not in row.message
    assert len(row.message) <= 300
    # What was recorded is read again by the next batch.
    assert make(Scripted("no idea"), "next", sandbox=True).regions(1, [start], 0, ["loss"])[0].fault is Fault.NO_BLOCK


def test_long_code_is_cut_in_the_log_and_read_again(make: Any, parent: Candidate, archive: Archive) -> None:
    archive.add_candidate(parent)
    start = Parent.of(archive.candidate(parent.id))
    assert len(parent.source) > 20_000
    source = parent.source.replace("CLIP = 1.0", "CLIP = 0.7")
    assert make(Scripted(source), sandbox=True).files(1, [start], 0)[0].new
    assert make(Scripted("no idea"), "next", sandbox=True).files(1, [start], 0)[0].fault is Fault.NO_BLOCK


def test_a_file_may_come_as_its_change_alone(make: Any, parent: Candidate, archive: Archive) -> None:
    archive.add_candidate(parent)
    start = Parent.of(archive.candidate(parent.id))
    after = parent.source.replace("CLIP = 1.0", "CLIP = 0.7")
    change = f"```diff\n{write_delta(parent.source, after)}\n```"
    strange = "```diff\n@@ -1 @@\n-CLIP = 3.0\n+CLIP = 0.7\n```"
    writer = Scripted(change, strange, change.replace("+CLIP = 0.7", "+CLIP = 1.0"))
    whole, misfit, same = make(writer, sandbox=True).files(3, [start], 0)
    assert (whole.new, whole.written) == (True, after[: len(whole.written)])
    assert archive.candidate(whole.candidate).source == after
    assert (misfit.fault, misfit.stage) == (Fault.CONTEXT, Stage.PARSED)
    assert "does not fit the file at the line 'CLIP = 3.0'" in misfit.message
    assert same.fault is Fault.UNCHANGED


def test_an_edit_of_the_parent_becomes_a_candidate(make: Any, parent: Candidate, archive: Archive) -> None:
    archive.add_candidate(parent)
    start = Parent.of(archive.candidate(parent.id))
    writer = Scripted('{"recipe.clip":0.5}', '{"recipe.clip":1}', '{"recipe.clap":1}')
    good, same, unknown = make(writer).plans(3, [start], 0)
    child = archive.candidate(good.candidate).plan
    assert child is not None and parent.plan is not None
    assert changes(parent.plan, child) == {"recipe.clip": (1.0, 0.5)}
    assert (same.fault, unknown.fault) == (Fault.UNCHANGED, Fault.NOT_A_PLAN)
    assert "Write a new change of it" in writer.asked[0].messages[-1].content


def test_one_repair_is_requested_and_counted_apart(make: Any, space: PlanSpace) -> None:
    good = plan_text(space.draw(Random(0)))
    writer = Scripted("nonsense", good)
    held = make(writer, repair=True).plans(1, (), 0)
    assert held[0].repaired
    assert funnel(held).repaired == 1
    roles = [message.role for message in writer.asked[1].messages]
    assert roles == ["system", "user", "assistant", "user"]
    # The hint is that of the kind asked for.
    assert "no JSON object: write one JSON object, and nothing else" in writer.asked[1].messages[-1].content


def test_regions_are_spliced_and_compared(make: Any, engine: PlanEngine, parent: Candidate, archive: Archive) -> None:
    start = Parent(id=parent.id, source=parent.source, plan=parent.plan)
    held = make(Mutate(), sandbox=True).regions(14, [start], 0)
    assert funnel(held).applied == 14
    assert {row.region for row in held} == {
        "gate", "mixing", "loss", "optimizer", "schedule", "augmentation", "step",
    }  # fmt: skip
    assert all(row.written for row in held)
    near = [row for row in held if row.twin is not None]
    assert all(row.twin_of in {other.candidate for other in held} for row in near)


def test_code_of_a_model_and_code_spliced_into_it_run_in_the_sandbox(
    make: Any, engine: PlanEngine, parent: Candidate, archive: Archive, inputs: CampaignInputs
) -> None:
    from nngen.llm.proposals.regions import find

    start = Parent(id=parent.id, source=parent.source, plan=parent.plan)
    changed = find(parent.source, "loss").replace("mean().square()", "mean().abs()")
    archive.add_candidate(parent)
    written = make(Scripted(f"```python\n{changed}\n```"), "model", sandbox=True).regions(1, [start], 0, ["loss"])
    assert engine.levels == [Isolation.SANDBOX]
    train(archive, "model", written, engine, inputs)
    assert engine.levels == [Isolation.SANDBOX] * 2
    # A baseline's change to a file is code that was not assembled here, whatever the archive says of its parent.
    stored = archive.candidate(written[0].candidate)
    make(Mutate(), "second", sandbox=True).regions(1, [Parent.of(stored)], 0, ["gate"])
    make(Mutate(), "first", sandbox=True).regions(1, [start], 0, ["gate"])
    assert engine.levels == [Isolation.SANDBOX] * 4


def test_unchanged_code_and_refused_code(make: Any, engine: PlanEngine, parent: Candidate) -> None:
    from nngen.llm.proposals.regions import find

    engine.refuse = "nn.Bogus"
    start = Parent(id=parent.id, source=parent.source, plan=parent.plan)
    same = find(parent.source, "loss")
    other = same.replace("usage.var(unbiased=False)", "nn.Bogus(usage)")
    held = make(Scripted(f"```python\n{same}\n```", f"```python\n{other}\n```"), sandbox=True).regions(
        2, [start], 0, ["loss"]
    )
    assert held[0].fault is Fault.UNCHANGED
    assert held[1].outcome is Outcome.SHAPE
    assert held[1].message == "nn.Bogus does not fit"
    assert funnel(held) == Funnel(asked=2, parsed=2, applied=1, checked=0, new=0)


def test_files_replace_the_whole_source(make: Any, engine: PlanEngine, parent: Candidate) -> None:
    start = Parent(id=parent.id, source=parent.source, plan=parent.plan)
    source = parent.source.replace("CLIP = 1.0", "CLIP = 0.7")
    held = make(Scripted(f"```python\n{source}\n```", parent.source), sandbox=True).files(2, [start], 0)
    assert held[0].new
    assert held[1].fault is Fault.UNCHANGED


def test_trained_proposals_are_compared_with_their_parents(
    make: Any, space: PlanSpace, archive: Archive, engine: PlanEngine, inputs: CampaignInputs
) -> None:
    first = make(Uniform(), "start").plans(3, (), 0)
    train(archive, "start", first, engine, inputs)
    best = archive.candidate(first[0].candidate)
    parent = Parent.of(best, 0.5)
    second = make(Mutate(), "next").plans(4, [parent], 0)
    train(archive, "next", second, engine, inputs)
    told = trained_funnel(archive, "next", second)
    means = {trial.candidate_id: trial.validation_accuracy for trial in archive.trials("next")}
    before = archive.trials("start")[0].validation_accuracy or 0.0
    assert told.trained == told.compared == sum(row.new for row in second)
    assert told.better == sum((value or 0.0) > before for value in means.values())


def test_proposals_at_another_rate_are_not_compared_with_their_parents(
    make: Any, archive: Archive, engine: PlanEngine, inputs: CampaignInputs
) -> None:
    """What another rate gains is not a gain of the plan."""
    first = make(Uniform(), "start").plans(3, (), 0)
    train(archive, "start", first, engine, inputs)
    second = make(Mutate(), "next").plans(4, [Parent.of(archive.candidate(first[0].candidate), 0.5)], 0)
    train(archive, "next", second, engine, inputs, lr=0.01)
    told = trained_funnel(archive, "next", second)
    assert (told.trained, told.compared, told.better) == (sum(row.new for row in second), 0, None)


def test_training_resumes_and_refuses_other_proposals(
    make: Any, space: PlanSpace, archive: Archive, engine: PlanEngine, inputs: CampaignInputs
) -> None:
    held = make(Uniform()).plans(3, (), 0)

    class Struck(Watcher):
        def finished(self, trial: StoredTrial) -> None:
            raise Killed

    kills = 0
    # Results that arrive together are stored together, so there may be fewer kills than trials.
    while (kills < 3 and not all(trial.trained for trial in archive.trials("b"))) or not kills:
        with pytest.raises(Killed):
            train(archive, "b", held, engine, inputs, Struck())
        kills += 1
    trials = train(archive, "b", held, engine, inputs)
    assert [trial.candidate_id for trial in trials] == [row.candidate for row in held]
    # A driver that is killed may have sent the next training already; no result is kept twice.
    assert len(set(engine.trained)) == 3
    with pytest.raises(UsageError, match="began with other candidates"):
        train(archive, "b", held[:2], engine, inputs)


def test_proposals_are_read_back_as_they_were_recorded(make: Any, space: PlanSpace, archive: Archive) -> None:
    held = make(Uniform()).plans(2, (), 0)
    assert proposals(archive, "b") == held
    assert proposals(archive) == held
    assert replace(held[0], text="").text == ""


def test_a_damaged_proposal_counts_as_not_asked_and_among_the_damaged_rows(
    make: Any, space: PlanSpace, archive: Archive
) -> None:
    held = make(Uniform()).plans(2, (), 0)
    archive.log(EVENT, campaign="b", index=7)
    archive.log(EVENT, campaign="b", **held[0].to_dict() | {"index": 8, "stage": "unheard of"})
    assert proposals(archive, "b") == held
    assert len(archive.damaged) == 2
    assert all(reason.startswith("not a proposal (") for reason in archive.damaged.values())
    assert "not a proposal" in archive.damage and "(and 1 more)" in archive.damage
