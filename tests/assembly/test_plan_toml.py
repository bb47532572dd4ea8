"""Plans as TOML."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nngen.assembly.plan_toml import from_toml, plan_of, to_toml
from nngen.errors import PlanError
from nngen.plan import Gate, Losses, Plan, Recipe

numbers = st.floats(min_value=0, max_value=1e6, allow_nan=False)
plans = st.builds(
    Plan,
    experts=st.lists(st.text(max_size=12), max_size=6).map(tuple),
    gate=st.builds(Gate, width=st.integers(1, 512), depth=st.integers(1, 8), temperature=numbers, noise=numbers),
    losses=st.builds(Losses, label_smoothing=numbers, balance=numbers),
    recipe=st.builds(Recipe, gate_rate=numbers, weight_decay=numbers, mixup=numbers, warmup=numbers, clip=numbers),
)


@given(plans)
def test_any_plan_reads_back(plan: Plan) -> None:
    assert from_toml(to_toml(plan)) == plan


def test_equal_plans_are_written_alike() -> None:
    assert to_toml(Plan(experts=("A",), gate=Gate(temperature=1))) == to_toml(Plan(experts=("A",)))


def test_missing_fields_take_their_defaults() -> None:
    assert from_toml('experts = ["A", "B"]') == Plan(experts=("A", "B"))


@pytest.mark.parametrize("text", ["experts = [", "kind = 'hetero'", "experts = ['A']\n[gate]\nwidht = 3\n"])
def test_invalid_plans_are_refused(text: str) -> None:
    with pytest.raises(PlanError, match="not a plan"):
        from_toml(text)


@pytest.mark.parametrize("source", ["x = 1\n", '"""A module."""\n', "def f(:\n", ""])
def test_a_source_without_a_plan_has_none(source: str) -> None:
    assert plan_of(source) is None
