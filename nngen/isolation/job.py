"""Jobs for workers, and the order in which a job reaches the fork server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from nngen.errors import UsageError
from nngen.isolation.limits import Isolation, Limits

JsonObject: TypeAlias = Mapping[str, Any]
"""A JSON object, which is how values cross into a worker and come back."""

MAX_ORDER = 65_536
"""Bytes of the longest order."""

SOURCE_FILE = "candidate.py"
"""Name of the source in the worker's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A function to call in a worker process of its own.

    The worker starts in an empty scratch folder that holds only ``SOURCE_FILE``, with stdin closed and its output
    captured. The function returns nothing; it answers with the frames it sends.
    """

    # the function as ``module:function``; it is called with ``arguments``, a ``Channel`` to send frames with, and a
    # list of the descriptors of ``inputs`` and ``files``
    entry_point: str
    arguments: JsonObject  # JSON object for the function
    limits: Limits  # limits of time and memory
    isolation: Isolation = Isolation.PROCESS  # isolation level
    source: str = ""  # content of ``SOURCE_FILE``
    # open descriptors that the function reads, such as the end of a pipe; the worker has copies of them
    inputs: Sequence[int] = ()
    # data files that the function reads; opened outside, so that they need no path in a sandbox
    files: Sequence[Path] = ()
    # lengths of the bodies of the frames that it may send besides messages, by kind
    frames: Mapping[int, range] = field(default_factory=dict)
    cuda: bool = False  # whether the worker has access to graphics cards
    card: str = ""  # the one card that it sees, as a value of ``CUDA_VISIBLE_DEVICES``; empty for all


def encode_order(job: Job, folder: str, address_space: int) -> bytes:
    """Write the part of a job that travels to the fork server, as one JSON message.

    Args:
        job: The job; its source and data travel as files.
        folder: The worker's scratch folder, by its name inside the sandbox if there is one.
        address_space: Bytes of address space of the fork server.

    Raises:
        UsageError: If the message is longer than ``MAX_ORDER``.
    """
    fields = {
        "entry_point": job.entry_point,
        "arguments": job.arguments,
        "limits": asdict(job.limits),
        "isolation": job.isolation,
        "cuda": job.cuda,
        "card": job.card,
    }
    data = json.dumps([fields, folder, address_space]).encode()
    if len(data) > MAX_ORDER:
        raise UsageError(f"a job of {len(data):,} bytes; at most {MAX_ORDER:,} are allowed: shorten --prm")
    return data


def decode_order(data: bytes) -> tuple[Job, str, int]:
    """Read what ``encode_order`` wrote: the job without its source and data, the folder, and the address space."""
    fields, folder, address_space = json.loads(data)
    limits, level = Limits(**fields.pop("limits")), Isolation(fields.pop("isolation"))
    return Job(**fields, limits=limits, isolation=level), folder, address_space
