"""Readers of foreign data under random input: replies, plans, answers of servers, feedback sets, stored proposals."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fuzzing import fuzz
from hypothesis import given
from hypothesis import strategies as st
from plan_engine import SPEC, PlanEngine, Scripted

from nngen.archive import Archive
from nngen.campaign.protocols import CampaignInputs
from nngen.errors import NngenError
from nngen.llm.finetuning.config import Tuning
from nngen.llm.finetuning.dataset import build
from nngen.llm.finetuning.splits import Example, Task
from nngen.llm.finetuning.stored_set import read_meta, read_view
from nngen.llm.finetuning.views import VIEWS
from nngen.llm.prompts import estimate_tokens
from nngen.llm.proposals.deltas import apply_delta
from nngen.llm.proposals.log import EVENT, proposals
from nngen.llm.proposals.parents import Parent
from nngen.llm.proposals.parsing import ReplyError, python_block
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.proposals.propose import Proposer
from nngen.llm.rewriters.base import Message, Reply, Status
from nngen.llm.rewriters.server_replies import read_reply
from nngen.plan import Plan
from nngen.surrogate.plan_text import plan_text
from nngen.types import Candidate

SPACE = PlanSpace(families=tuple("ABCDEFG"))
PARENT = Plan(experts=tuple("ABCD"))
FUZZ = fuzz(25)  # no deadline: wall time is that of the machine; ``_quick`` bounds that of the process

ANY_TEXT = st.text(st.characters(), max_size=300)  # lone surrogates and control characters included
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.just(10**4000)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4))
DEEP = st.builds(
    lambda opening, count, tail: opening * count + tail,
    st.sampled_from(["[", '{"a":', "(", "not ", "-", "~", "lambda: ", "x[", "```python\n", "```\n", "'''", "\\"]),
    st.integers(1, 60_000),
    st.sampled_from(["", "1", "\n```", "]"]),
)

LONG_NUMBERS = st.integers(4000, 60_000).map(lambda digits: f'{{"experts": {"9" * digits}}}')


@st.composite
def plan_replies(draw: st.DrawFn) -> str:
    """Write a plan, and replace or add a value at any place."""
    data: dict[str, Any] = json.loads(plan_text(SPACE.draw(draw(st.randoms(use_true_random=False)))))
    part = draw(st.sampled_from([*data, "more", "experts"]))
    if draw(st.booleans()) and isinstance(data.get(part), dict):
        data[part][draw(st.sampled_from([*data[part], "more"]) | ANY_TEXT)] = draw(VALUES)
    else:
        data[part] = draw(VALUES)
    return json.dumps(data)


@contextmanager
def _quick() -> Iterator[None]:
    began = time.process_time()
    try:
        yield
    finally:
        assert time.process_time() - began < 10.0


@st.composite
def edit_replies(draw: st.DrawFn) -> str:
    """Write an edit with values of the space or any others, and perhaps a field that there is not."""
    offered = SPACE.edits(PARENT)
    chosen = draw(st.lists(st.sampled_from([*offered, "gate", "more"]) | ANY_TEXT, max_size=4))
    return json.dumps({path: draw(st.sampled_from(offered.get(path, ("->",))) | VALUES) for path in chosen})


@given(plan_replies() | edit_replies() | ANY_TEXT | DEEP | LONG_NUMBERS, st.sampled_from([None, PARENT]))
@FUZZ
def test_a_reply_is_a_plan_of_the_space_or_a_fault(text: str, parent: Plan | None) -> None:
    try:
        with _quick():
            plan = SPACE.read(text, parent)
    except ReplyError as error:
        assert len(str(error)) <= 300
        assert str(error).isprintable()
    else:
        assert isinstance(plan, Plan)
        assert set(plan.experts) <= set(SPACE.families)
        assert SPACE.read(plan_text(plan)) == plan


@given(
    ANY_TEXT | DEEP | st.builds(str.__mul__, st.sampled_from(["@@\n x\n", "-x\n", "@@ -1\n"]), st.integers(1, 30_000))
)
@FUZZ
def test_a_change_of_a_file_fits_or_has_a_fault(delta: str) -> None:
    for text in (delta, f"@@ -1 @@\n x = 1\n+{delta}"):
        try:
            with _quick():
                assert apply_delta("x = 1\ny = 2\n" * 200, text)
        except ReplyError as error:
            assert str(error).isprintable()


@given(ANY_TEXT | DEEP)
@FUZZ
def test_a_reply_is_code_or_a_fault(text: str) -> None:
    for reply in (text, f"```python\n{text}\n```", f"{text}\n```"):
        try:
            with _quick():
                code = python_block(reply)
        except ReplyError as error:
            assert str(error).isprintable()
        else:
            compile(code, "reply", "exec", flags=0x400, dont_inherit=True)  # ast.PyCF_ONLY_AST


@given(body=DEEP | ANY_TEXT, whole=st.booleans())
@FUZZ
def test_every_reply_ends_as_one_stored_proposal(
    body: str, whole: bool, parent: Candidate, inputs: CampaignInputs
) -> None:
    text = body if whole else f"def importance_loss(weights: torch.Tensor) -> torch.Tensor:\n    return {body}\n"
    with Archive.in_memory() as archive:
        archive.add_candidate(parent)
        start = Parent.of(archive.candidate(parent.id))
        writer = Scripted(Reply(text=f"```python\n{text}\n```", detail=body))
        proposer = Proposer(
            archive=archive, rewriter=writer, engine=PlanEngine(), inputs=inputs, spec=SPEC, batch="b", sandbox=True
        )
        (row,) = proposer.regions(1, [start], 0, ["loss"])
        assert row.message.isprintable()
        assert proposals(archive) == (row,)


@given(
    st.binary(max_size=200)
    | (DEEP | LONG_NUMBERS | VALUES.map(repr)).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
@FUZZ
def test_every_answer_of_a_server_is_a_reply(body: bytes) -> None:
    with _quick():
        assert read_reply(body)[0].status is not Status.OK


@given(VALUES, VALUES, VALUES)
@FUZZ
def test_a_chat_completion_of_odd_values_is_a_reply(content: Any, tokens: Any, reason: Any) -> None:
    data = {
        "choices": [{"message": {"content": content}, "finish_reason": reason}],
        "usage": {"prompt_tokens": tokens, "completion_tokens": tokens},
    }
    reply = read_reply(json.dumps(data).encode())[0]
    assert 0 <= reply.prompt_tokens < 2**53
    assert 0 <= reply.reply_tokens < 2**53


@pytest.fixture(scope="module")
def feedback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    pytest.importorskip("datasets")
    examples = [
        Example(
            task=task,
            messages=(Message(role="system", content="s"), Message(role="user", content=f"{task} {number // 2}")),
            answer=f"{task}\u2028{number}",
            good=task is Task.SOURCE or number % 2 == 0,
            score=number,
            group=f"A+B+C+{number // 2}",
            origin="o",
            prompt="plan@1-x",
        )
        for task in (Task.IMPROVE, Task.SOURCE)
        for number in range(20)
    ]
    folder = tmp_path_factory.mktemp("feedback") / "set"
    build(examples, folder, twins={}, count=estimate_tokens)
    yield folder


@given(data=st.data())
@FUZZ
def test_a_damaged_feedback_set_is_read_or_refused(feedback: Path, tmp_path: Path, data: st.DataObject) -> None:
    view = data.draw(st.sampled_from(list(VIEWS)))
    rows = read_view(feedback, view, "train")
    assert rows
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(feedback, copy)
    if data.draw(st.booleans()):
        row = dict(data.draw(st.sampled_from(rows)))
        row[data.draw(st.sampled_from([*row]))] = data.draw(VALUES)
        broken = (json.dumps(row) + "\n").encode()
    else:
        broken = data.draw(st.binary(max_size=60) | (DEEP | LONG_NUMBERS).map(str.encode))
    for file in (copy / view / "train.jsonl", copy / "feedback.json"):
        whole = file.read_bytes()
        place = data.draw(st.integers(0, len(whole)))
        file.write_bytes(whole[:place] + broken + (whole[place:] if data.draw(st.booleans()) else b""))
    for read in (lambda: read_view(copy, view, "train"), lambda: read_meta(copy)):
        try:
            with _quick():
                read()
        except NngenError as error:
            assert "feedback build" in str(error)


@given(st.dictionaries(st.sampled_from([*Tuning(base="x").to_dict(), "more"]), VALUES, max_size=3))
@FUZZ
def test_a_tuning_of_odd_values_is_made_or_refused(values: dict[str, Any]) -> None:
    try:
        Tuning.from_dict({"base": "model", **values})
    except NngenError as error:
        assert "\n" not in str(error)


@pytest.mark.long
@given(st.dictionaries(st.sampled_from(["what", "index", "stage", "text", "twin", "message", "more"]), VALUES))
@FUZZ
def test_events_that_are_not_proposals_are_left_out(detail: dict[str, Any]) -> None:
    with Archive.in_memory() as archive:
        try:
            archive.log(EVENT, campaign="b", **detail)
        except UnicodeEncodeError:
            return  # no archive holds lone surrogates
        for row in proposals(archive):
            assert row.kind is not None
