"""Resource limits of a worker, and the kernel settings that tie its processes to their parents."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "MAX_PROCESSES",
    "MIB",
    "HardLimits",
    "Limits",
    "adopt_orphans",
    "die_with_parent",
    "set_limits",
    "stay_inspectable",
]

MAX_PROCESSES = 512
"""Largest number of processes of one job, counted by its monitor; in a sandbox the kernel counts threads too."""

MIB = 2**20

_HEADROOM_MIB = 4096
_FILE_MIB = 64
_OPEN_FILES = 1024

# From linux/prctl.h.
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits that the monitor imposes from outside.

    Attributes:
        time_limit_s: Limit in seconds from the worker's start, on the monitor's clock.
        memory_mib: Limit on resident memory of the worker and all its descendants together, in MiB.
    """

    time_limit_s: float
    memory_mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HardLimits:
    """Limits that the worker sets on itself before any code of the job runs; the kernel enforces them.

    Attributes:
        memory_mib: Resident memory that the monitor allows, in MiB.
        virtual: Whether address space is limited too: to its size at the start plus ``memory_mib`` plus 4 GiB for the
            stacks of threads. Not on CUDA, whose driver reserves more address space than any machine has memory.
        cpu_s: CPU time of the worker, and of each process that it starts; in case the monitor itself is suspended.
        processes: Processes and threads of the worker's user, who must have no others; no limit for root.
    """

    memory_mib: int
    virtual: bool
    cpu_s: int
    processes: int | None = None


def set_limits(limits: HardLimits) -> None:
    """Limit this process, and all that it starts, for good."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_FSIZE, _FILE_MIB * MIB)
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _lower(resource.RLIMIT_CPU, limits.cpu_s)
    if limits.processes is not None:
        _lower(resource.RLIMIT_NPROC, limits.processes)
    if limits.virtual:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        now = pages * os.sysconf("SC_PAGE_SIZE")
        _lower(resource.RLIMIT_AS, now + (limits.memory_mib + _HEADROOM_MIB) * MIB)
    # Where the machine runs out of memory, the kernel kills this process first and not the one that launched it.
    Path("/proc/self/oom_score_adj").write_text("1000")


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that forked it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def stay_inspectable() -> None:
    """Keep ``/proc/self`` accessible after a change of user, which makes the kernel give it to root."""
    _prctl(_PR_SET_DUMPABLE, 1)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _lower(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (limit, limit))
