"""Living processes, for tests that look for those that were left behind."""

from __future__ import annotations

import psutil


def lives(process: psutil.Process) -> bool:
    """Whether a process has not ended; one that was listed may end, and be reaped, at any moment."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_sandbox(process: psutil.Process) -> bool:
    """Whether a process is that of a sandbox, ``bwrap``."""
    try:
        return process.name() == "bwrap"
    except psutil.NoSuchProcess:
        return False
