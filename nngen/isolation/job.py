"""Jobs for workers, and the order in which a job reaches the fork server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self, TypeAlias

from nngen.errors import UsageError
from nngen.isolation.level import Isolation
from nngen.isolation.limits import HardLimits, Limits
from nngen.isolation.protocol import BodySize

__all__ = ["MAX_ORDER", "SOURCE_FILE", "Job", "JsonObject", "WorkerOrder"]

JsonObject: TypeAlias = Mapping[str, Any]
"""A JSON object, which is how values cross into a worker and come back."""

MAX_ORDER = 65_536
"""Bytes of the longest order; sources and data travel as files."""

SOURCE_FILE = "candidate.py"
"""Name of the source in the worker's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A function to call in a worker process of its own.

    The worker starts in an empty scratch folder that holds only ``SOURCE_FILE``, with stdin closed and its output
    captured. The function returns nothing; it answers with the frames it sends.

    Attributes:
        entry_point: The function as ``module:function``; it is called with ``arguments``, a ``Channel`` to send frames
            with, and a list of the descriptors of ``files``.
        arguments: JSON object for the function.
        limits: Limits of time and memory.
        isolation: Isolation level.
        source: Content of ``SOURCE_FILE``.
        files: Data files that the function reads; opened outside, so that they need no path in a sandbox.
        frames: Sizes of the frames it may send besides messages, by their kind.
        cuda: Whether the worker has access to graphics cards.
    """

    entry_point: str
    arguments: JsonObject
    limits: Limits
    isolation: Isolation = Isolation.PROCESS
    source: str = ""
    files: Sequence[Path] = ()
    frames: Mapping[int, BodySize] = field(default_factory=dict)
    cuda: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOrder:
    """The part of a job that travels to the fork server, as one JSON message.

    Attributes:
        entry_point: The function as ``module:function``.
        arguments: JSON object for the function.
        folder: The worker's scratch folder, by its name inside the sandbox if there is one.
        cuda: Whether the worker has access to graphics cards.
        limits: Limits that the worker sets on itself; None at level ``none``.
    """

    entry_point: str
    arguments: JsonObject
    folder: str
    cuda: bool
    limits: HardLimits | None

    def encode(self) -> bytes:
        """Write the order as JSON.

        Raises:
            UsageError: If it is longer than ``MAX_ORDER``.
        """
        data = json.dumps(asdict(self)).encode()
        if len(data) > MAX_ORDER:
            raise UsageError(f"a job of {len(data):,} bytes; at most {MAX_ORDER:,} are allowed: shorten --prm")
        return data

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what ``encode`` wrote."""
        values = json.loads(data)
        limits = values.pop("limits")
        return cls(**values, limits=None if limits is None else HardLimits(**limits))
