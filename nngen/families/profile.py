"""Measured properties of a family: the inputs it accepts, its parameters, and the cost of training it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nngen.errors import UsageError
from nngen.isolation.job import JsonObject
from nngen.text import one_line
from nngen.types import Adapter, Interface, Shape

LARGEST_SIDE = 1024
LARGEST_IMAGE = 2**24
"""Most numbers in one image: a batch of two in float32 is then 128 MiB."""

NOTES = {
    "seeds": "it seeds the generators itself, which nngen seeds again afterwards",
    "settings": "it changes settings of torch, which are in force while its own code runs only",
    "input": "it changes its images in place, of which it gets a copy",
    "draws": "it draws random numbers in evaluation, which nngen seeds each time",
}
"""Facts about a family that a user should know, by the names that the worker sends."""

_NAME = re.compile(r"[\w.-]{1,100}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The measured properties of a family."""

    name: str
    fingerprint: str  # SHA-256 of the source that was measured
    interface: Interface | None  # the inputs that the family accepts; None if no input was found that it accepts
    # why the family cannot be used at the shape asked for; empty if it can, and is the same network as an expert as it
    # is alone
    reason: str = ""
    # trainable parameters by shape, as ``{"3x32x32": 11181642}``
    parameters: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # names of ``NOTES`` that hold for it

    @property
    def usable(self) -> bool:
        return self.interface is not None and not self.reason

    def adapter(self, shape: Shape) -> Adapter | None:
        """Return the adapter behind which the family is usable at ``shape``; None if it is not."""
        return self.interface.adapter(shape) if self.interface is not None and self.usable else None

    def native(self, shape: Shape) -> bool:
        """Return whether the family accepts ``shape`` without an adapter."""
        adapter = self.adapter(shape)
        return adapter is not None and not adapter

    def why(self, shape: Shape) -> str:
        """Return why the family cannot be used at ``shape``, or needs an adapter there; empty if neither."""
        if self.interface is None or self.reason or self.native(shape):
            return self.reason
        accepts = self.interface
        form = ("square " if accepts.square else "") + ("complex " if accepts.complex else "")
        return f"takes {form}images of {accepts.sides}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCost:
    """Cost of training a family at one shape, on one CPU thread in float32."""

    weights_mib: float  # memory of its parameters and buffers, in MiB
    image_mib: float  # memory kept for the backward pass by each image of a batch, in MiB
    image_s: float  # seconds per image, forward and backward
    step_s: float  # further seconds per step


def check_shape(shape: Shape) -> None:
    """Refuse shapes that no network is built for, before anything is allocated.

    Raises:
        UsageError: If a side or the image is too large; the message names the limit.
    """
    if max(shape.height, shape.width) > LARGEST_SIDE:
        raise UsageError(f"no family takes {shape}: sides go up to {LARGEST_SIDE} px")
    if shape.channels * shape.height * shape.width > LARGEST_IMAGE:
        raise UsageError(f"no family takes {shape}: an image may hold up to {LARGEST_IMAGE:,} numbers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Measurements of a family, made now or read from the cache."""

    interface: Interface | None = None
    parameters: int | None = None
    cost: TrainingCost | None = None
    reason: str = ""
    notes: tuple[str, ...] = ()
    lasting: bool = True  # whether a larger or quieter machine would measure the same; only such answers are stored

    @classmethod
    def read(cls, value: JsonObject) -> Answer:
        """Read a worker's message or an entry of the cache, neither of which is trusted.

        Raises:
            LookupError: If a key is missing.
            AttributeError, TypeError: If a value has another type.
            ValueError: If a value is out of its range.
        """
        cost = value["cost"]
        answer = cls(
            interface=read_interface(value["interface"]),
            parameters=value["parameters"],
            cost=None if cost is None else TrainingCost(**cost),
            reason=one_line(value["reason"]),
            notes=tuple(name for name in NOTES if name in value["notes"]),
        )
        if answer.parameters is not None and not _whole(answer.parameters, range(2**53)):
            raise ValueError("a number of parameters out of range")
        costs = () if answer.cost is None else asdict(answer.cost).values()
        if not all(type(number) in (int, float) and 0 <= number < 1e9 for number in costs):
            raise ValueError("a cost out of range")
        return answer


def read_interface(value: Any) -> Interface | None:
    """Read the stored or sent inputs that a family accepts; errors as of ``Answer.read``."""
    if value is None:
        return None
    names = value.get("hyperparameters")
    found = Interface(**{**value, "hyperparameters": None if names is None else tuple(names)})
    if not (
        _whole(found.low, range(1, LARGEST_SIDE + 1))
        and (found.high is None or _whole(found.high, range(found.low, LARGEST_SIDE + 1)))
        and {type(found.square), type(found.complex), type(found.own_settings), type(found.channels_last)} == {bool}
        and all(isinstance(name, str) and _NAME.fullmatch(name) for name in names or ())
    ):
        raise ValueError("sides or names out of range")
    return found


def _whole(value: object, numbers: range) -> bool:
    # type(), since True is an integer too.
    return type(value) is int and value in numbers
