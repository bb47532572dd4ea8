"""Counts of open descriptors."""

from __future__ import annotations

import gc

import psutil


def open_descriptors() -> int:
    """Return the number of this process's open descriptors, after those of unreachable objects are closed.

    Threads of other tests may close some meanwhile: compare by ``<=``.
    """
    gc.collect()
    return psutil.Process().num_fds()
