"""Isolation levels of a worker."""

from __future__ import annotations

import enum


class Isolation(enum.StrEnum):
    """Isolation level of a worker, stored with each trial.

    Attributes:
        PROCESS: A process of its own with an empty environment and limits. Enough for files that this package
            assembled.
        SANDBOX: The same inside bubblewrap: no network, no file but what Python and its packages need, no other
            process, no capabilities. For files that a model wrote or that came from outside.
        NONE: Limits of time and memory alone, imposed from outside. For debugging one's own files.
    """

    PROCESS = "process"
    SANDBOX = "sandbox"
    NONE = "none"
