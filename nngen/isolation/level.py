"""How far a candidate is kept away from everything else."""

from __future__ import annotations

import enum

__all__ = ["Isolation"]


class Isolation(enum.StrEnum):
    """Three levels; each trial's environment says at which it ran.

    Attributes:
        PROCESS: A process of its own with an empty environment and limits. Enough for what this package assembled.
        SANDBOX: The same inside of bubblewrap: no network, no file but what torch needs, no other process, no rights.
            For what a model wrote, or came from outside.
        NONE: The judge's clock and its eye on memory, and no other limit. For looking into one's own files.
    """

    PROCESS = "process"
    SANDBOX = "sandbox"
    NONE = "none"
