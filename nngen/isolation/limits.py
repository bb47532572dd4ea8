"""What a worker may use, set from inside before the candidate's first line runs."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MAX_PROCESSES", "Limits", "set_limits"]

MAX_PROCESSES = 512
"""Processes of one candidate, counted by the judge; in a sandbox the kernel counts them too, and threads."""

_MIB = 2**20
_HEADROOM_MIB = 4096
_FILE_MIB = 64
_OPEN_FILES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one worker.

    Attributes:
        time_limit_s: Limit in seconds from the worker's start, on the clock of the process that launched it.
        memory_mib: Resident memory of the worker and all its descendants together.
    """

    time_limit_s: float
    memory_mib: int


def set_limits(memory_mib: int, *, virtual: bool, cpu_s: int, processes: int | None = None) -> None:
    """Bound this process for good.

    Args:
        memory_mib: Resident memory that the judge will allow.
        virtual: Whether to bound address space too: what is there now, ``memory_mib`` and 4 GiB for
            threads' stacks. Not on CUDA, whose driver reserves more address space than any machine has.
        cpu_s: CPU time of this process and of each that it starts; for a judge that is asleep itself.
        processes: Processes and threads of this process's user; for one that has no others. Does not hold root.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_FSIZE, _FILE_MIB * _MIB)
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _lower(resource.RLIMIT_CPU, cpu_s)
    if processes is not None:
        _lower(resource.RLIMIT_NPROC, processes)
    if virtual:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        now = pages * os.sysconf("SC_PAGE_SIZE")
        _lower(resource.RLIMIT_AS, now + (memory_mib + _HEADROOM_MIB) * _MIB)
    # If the machine runs out of memory, the kernel shall take this process and not the judge.
    Path("/proc/self/oom_score_adj").write_text("1000")


def _lower(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (limit, limit))
