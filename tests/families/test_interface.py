"""Adapters: their output is accepted by the family, and inputs that are accepted already are unchanged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nngen.types import Adapter, Interface, Shape

sides = st.integers(1, 1024)


@st.composite
def interfaces(draw: st.DrawFn) -> Interface:
    low = draw(st.integers(1, 400))
    high = draw(st.none() | st.integers(low, 800))
    return Interface(low=low, high=high, square=draw(st.booleans()), complex=draw(st.booleans()))


def takes(interface: Interface, height: int, width: int) -> bool:
    within = all(interface.low <= side <= (interface.high or side) for side in (height, width))
    return within and (height == width or not interface.square)


@given(interfaces(), st.builds(Shape, st.integers(1, 4), sides, sides))
def test_an_adapter_gives_what_the_family_takes_and_only_where_needed(interface: Interface, shape: Shape) -> None:
    adapter = interface.adapter(shape)
    assert adapter.complex == interface.complex
    assert (adapter.size is None) == takes(interface, shape.height, shape.width)
    if adapter.size is not None:
        assert takes(interface, *adapter.size)
        again = interface.adapter(Shape(shape.channels, *adapter.size))
        assert again == Adapter(complex=interface.complex)
