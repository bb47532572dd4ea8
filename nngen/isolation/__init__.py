"""Isolated worker processes: fork server, supervisor, resource limits and the bubblewrap sandbox.

``JobRunner`` runs a ``Job``, a function named as ``module:function``, in a process of its own, and returns what the
function sent and how the process ended. The package knows nothing of training.
"""

from __future__ import annotations

from nngen.isolation.job import Job, JsonObject
from nngen.isolation.limits import Isolation, Limits
from nngen.isolation.protocol import Channel, Frame, FrameError
from nngen.isolation.result import ExitReason, JobResult
from nngen.isolation.runner import JobRunner

__all__ = [
    "Channel",
    "ExitReason",
    "Frame",
    "FrameError",
    "Isolation",
    "Job",
    "JobResult",
    "JobRunner",
    "JsonObject",
    "Limits",
]
