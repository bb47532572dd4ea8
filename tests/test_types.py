"""Value types: shapes, adapters, plans."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nngen.errors import UsageError
from nngen.plan import Plan
from nngen.types import Adapter, Interface, Shape

sides = st.integers(1, 512)


@given(sides, sides, sides)
def test_a_shape_reads_what_it_writes(channels, height, width):
    shape = Shape(channels, height, width)
    assert Shape.parse(str(shape)) == shape


@pytest.mark.parametrize("text", ["", "3x32", "3x32x32x1", "0x32x32", "3x-1x32", "axbxc", "3*32*32"])
def test_invalid_shapes_are_named(text):
    with pytest.raises(UsageError, match="not a shape"):
        Shape.parse(text)


@given(st.integers(1, 299), st.integers(0, 99), st.booleans(), sides, sides)
def test_an_adapter_brings_every_shape_into_range(low, extra, square, height, width):
    interface = Interface(low=low, high=low + extra, square=square)
    adapter = interface.adapter(Shape(3, height, width))
    tall, wide = adapter.size or (height, width)
    assert low <= tall <= low + extra
    assert low <= wide <= low + extra
    assert tall == wide or not square


def test_no_adapter_where_none_is_needed():
    assert not Interface(low=16).adapter(Shape(3, 32, 32))
    assert str(Interface(low=63, complex=True).adapter(Shape(1, 28, 28))) == "resize 63x63 + complex"
    assert str(Adapter()) == "none"


def test_a_plan_reads_what_it_writes():
    plan = Plan(experts=("A", "B", "C", "D"))
    assert Plan.from_dict(plan.to_dict()) == plan


@pytest.mark.parametrize("data", [{}, {"experts": ["A"], "gate": {"colour": 1}}])
def test_invalid_plans_are_refused(data):
    with pytest.raises(UsageError, match="not a plan"):
        Plan.from_dict(data)
