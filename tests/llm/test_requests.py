"""Requests of a batch: budgets of prompts, the sandbox and the parents that code needs."""

from __future__ import annotations

from typing import Any

import pytest
from plan_engine import PlanEngine, Scripted

from nngen.errors import UsageError
from nngen.llm.proposals.parents import Parent
from nngen.llm.proposals.parsing import Fault
from nngen.llm.rewriters.baselines import Mutate
from nngen.types import Candidate


def test_a_prompt_over_its_budget_is_a_fault_and_the_others_are_sent(
    make: Any, parent: Candidate, engine: PlanEngine
) -> None:
    start = Parent(id=parent.id, source=parent.source, plan=parent.plan)
    writer = Scripted(*["no idea"] * 3)

    def count(text: str) -> int:
        return 10**6 if "class Gate" in text else 1

    held = make(writer, count=count, sandbox=True).regions(4, [start], 0, ["gate", "mixing"])
    assert [row.fault for row in held if row.region == "gate"] == [Fault.BUDGET] * 2
    assert [row.fault for row in held if row.region == "mixing"] == [Fault.NO_BLOCK] * 2
    assert "takes 1000001 tokens, over its budget of 1200" in held[0].message
    assert len(writer.asked) == 2
    (whole,) = make(writer, "files", count=lambda text: 10**6, sandbox=True).files(1, [start], 0)
    assert (whole.fault, whole.parent) == (Fault.BUDGET, parent.id)


def test_code_of_a_model_needs_a_sandbox(make: Any, engine: PlanEngine, parent: Candidate) -> None:
    start = Parent(id=parent.id, source=parent.source, plan=parent.plan)
    writer = Scripted("```python\nx = 1\n```")
    with pytest.raises(UsageError, match="in a sandbox only"):
        make(writer).regions(1, [start], 0)
    with pytest.raises(UsageError, match="in a sandbox only"):
        make(writer).files(1, [start], 0)
    assert not writer.asked
    assert make(writer, sandbox=True).regions(1, [start], 0)[0].fault is Fault.REGION


def test_parents_are_needed_for_code(make: Any) -> None:
    with pytest.raises(UsageError, match="written into a parent"):
        make(Mutate()).regions(1, [], 0)
    with pytest.raises(UsageError, match="no region is called 'gat'"):
        make(Mutate()).regions(1, [], 0, ["gat"])
    lone = Parent(id="x", source="y = 1", plan=None)
    with pytest.raises(UsageError, match="none of the parents has a region"):
        make(Mutate()).regions(1, [lone], 0)
