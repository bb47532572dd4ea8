"""Isolation levels, and the limits and options that the kernel enforces on a worker's processes."""

from __future__ import annotations

import ctypes
import enum
import math
import os
import resource
from dataclasses import dataclass

MAX_PROCESSES = 512
"""Limit on the processes of one job, counted by its monitor; in a sandbox the kernel counts threads too."""

MIB = 2**20

_HEADROOM_MIB = 4096
_FILE_MIB = 64
_OPEN_FILES = 1024
_CPU_S = 10
_YEAR_S = 3.2e7


class ProcessOption(enum.IntEnum):
    """Options of a process, by their numbers in linux/prctl.h."""

    PARENT_DEATH_SIGNAL = 1  # signal that the kernel sends to it when the thread that forked it ends
    DUMPABLE = 4  # 0 where other processes of its user may neither trace it nor read its memory and descriptors
    CHILD_SUBREAPER = 36  # 1 where it becomes the parent of every descendant whose own parent ends
    NO_NEW_PRIVILEGES = 38  # 1 where no program that it starts gains rights


class Isolation(enum.StrEnum):
    """Isolation level of a worker, stored with each trial."""

    # a process of its own with an empty environment, limits and a filter of system calls. Enough for files that this
    # package assembled
    PROCESS = "process"
    # the same inside bubblewrap: no network, no file but what Python and torch need, no other process, no capabilities.
    # For files that a model wrote or that came from outside
    SANDBOX = "sandbox"
    NONE = "none"  # the monitor's limits of time and memory alone. For debugging one's own files


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits that the monitor imposes from outside."""

    time_limit_s: float  # limit in seconds from the worker's start, on the monitor's clock
    memory_mib: int  # limit on resident memory of the worker and all its descendants together, in MiB


def set_limits(limits: Limits, address_space: int, *, cuda: bool, sandboxed: bool) -> None:
    """Limit this process, and all that it starts, for good, before any code of the job runs; the kernel enforces it.

    Args:
        limits: Limits of the monitor, which come first unless it is suspended.
        address_space: Bytes of address space that the server took before any job.
        cuda: Whether the worker has access to graphics cards.
        sandboxed: Whether the worker runs as a user who has no other processes.
    """
    cores = os.cpu_count() or 1
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_FSIZE, _FILE_MIB * MIB)
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES)
    # For each process alone: more than all cores give within the time limit.
    _lower(resource.RLIMIT_CPU, math.ceil(min(limits.time_limit_s, _YEAR_S) * cores) + _CPU_S)
    if sandboxed:
        # Counted per user by the kernel, threads too: only a sandbox has a user of its own.
        _lower(resource.RLIMIT_NPROC, MAX_PROCESSES + 2 * cores)
    if not cuda:
        # Address space: its size now, what the job may use, and room for the stacks of threads. Not on CUDA, whose
        # driver reserves more address space than any machine has memory.
        _lower(resource.RLIMIT_AS, address_space + (limits.memory_mib + _HEADROOM_MIB) * MIB)


def set_option(option: ProcessOption, value: int) -> None:
    """Set an option of this process; the standard library has no ``prctl``.

    Raises:
        OSError: If the kernel refuses.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(option.value, *map(ctypes.c_ulong, (value, 0, 0, 0))):
        raise OSError(ctypes.get_errno(), f"{option.name.lower()} of a process cannot be set")


def _lower(kind: int, value: int) -> None:
    # Soft and hard limit together, so that the job cannot raise it again; a lower limit of the machine stays.
    hard = resource.getrlimit(kind)[1]
    limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (limit, limit))
