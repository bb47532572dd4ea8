"""Ranges of numbers that users give: annotations of fields that flags, files of arguments and Python share."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

from nngen.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance  # of the type checker alone

MAX_WHOLE = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A range of numbers; as a validator of cyclopts it refuses those outside."""

    low: float  # least value
    high: float = math.inf  # greatest value
    whole: bool = False  # whether numbers are whole
    above: bool = False  # whether ``low`` itself is outside
    below: bool = False  # whether ``high`` itself is outside

    @classmethod
    def of(cls, kind: type) -> Range:
        """Return the range of all numbers of a type that fit into 64 bits."""
        return cls(low=-MAX_WHOLE, high=MAX_WHOLE, whole=kind is int)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        low, high = (f"{end:,.15g}" for end in (self.low, self.high))
        if self.low <= -MAX_WHOLE:
            return f"{kind} below 2**63"
        if not self.above and not self.below and self.high < math.inf:
            return f"{kind} from {low} to {high}"
        start = f"above {low}" if self.above else f"of at least {low}"
        end = "" if self.high == math.inf else f" and {'below' if self.below else 'up to'} {high}"
        return f"{kind} {start}{end}"

    def refusal(self, value: object) -> str:
        """Return the reason against a value as a phrase; empty where it is in the range."""
        if isinstance(value, int if self.whole else int | float) and not isinstance(value, bool):
            # Compared with infinity, since a whole number may be too long to be converted to a float.
            inside = self.low <= value <= self.high and value != math.inf
            if inside and not (self.above and value == self.low) and not (self.below and value == self.high):
                return ""
            if abs(value) > MAX_WHOLE:
                return f"must be {self}"
        return f"must be {self}, not {value!r}"

    def __call__(self, _: object, value: float | None) -> None:
        """Raise ValueError for a value outside; None is an argument that was not typed."""
        if value is not None and (reason := self.refusal(value)):
            raise ValueError(reason)


Size = Annotated[int, Range(low=1, high=10**9, whole=True)]
Epochs = Annotated[int, Range(low=1, high=1_000_000, whole=True)]
Batch = Annotated[int, Range(low=2, high=65_536, whole=True)]
LearningRate = Annotated[float, Range(low=0, above=True)]
Momentum = Annotated[float, Range(low=0, high=1, below=True)]
Seed = Annotated[int, Range(low=-MAX_WHOLE, high=MAX_WHOLE, whole=True)]
Threads = Annotated[int, Range(low=1, high=1_024, whole=True)]
Classes = Annotated[int, Range(low=2, high=65_536, whole=True)]
Seconds = Annotated[float, Range(low=0, high=10**8, above=True)]
MiB = Annotated[int, Range(low=1, high=10**8, whole=True)]
Share = Annotated[float, Range(low=0, high=1, above=True)]
Positive = Annotated[float, Range(low=0, above=True)]
Finalists = Annotated[int, Range(low=0, high=10**9, whole=True)]
Replicates = Annotated[int, Range(low=1, high=10_000, whole=True)]
ReductionFactor = Annotated[int, Range(low=1, high=10**6, whole=True)]


def range_of(hint: Any) -> Range | None:
    """Return the range in an annotation, that of one member in a union; None where there is none."""
    if get_origin(hint) is Annotated:
        return next((item for item in get_args(hint)[1:] if isinstance(item, Range)), None)
    return next((found for part in get_args(hint) if (found := range_of(part)) is not None), None)


@cache
def _ranges(kind: type) -> dict[str, Range]:
    hints = get_type_hints(kind, include_extras=True)
    found = {item.name: range_of(hints[item.name]) for item in fields(kind)}
    return {name: limits for name, limits in found.items() if limits is not None}


def check_ranges(values: DataclassInstance) -> None:
    """Check the fields of a dataclass whose annotations have a range; None passes.

    Raises:
        UsageError: If one is out of its range; the message names the flag, the range and the value.
    """
    for name, limits in _ranges(type(values)).items():
        value = getattr(values, name)
        for one in value if isinstance(value, tuple) else (value,):
            if one is not None and (reason := limits.refusal(one)):
                raise UsageError(f"{flag_of(name)} {reason}")


def flag_of(name: str) -> str:
    """Return the flag of a field; seconds go without their suffix."""
    return "--prm" if name == "hyperparameters" else f"--{name.removesuffix('_s').replace('_', '-')}"
