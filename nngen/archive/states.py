"""The states of a trial in the archive and the ways between them."""

from __future__ import annotations

import enum

__all__ = ["TrialState", "allowed"]


class TrialState(enum.StrEnum):
    """Where a trial stands: ``ready`` -> ``running`` -> ``done``.

    ``running`` goes back to ``ready`` when its driver died. Nothing leaves ``done``.
    """

    READY = "ready"
    RUNNING = "running"
    DONE = "done"


_WAYS = frozenset(
    {
        (TrialState.READY, TrialState.RUNNING),
        (TrialState.RUNNING, TrialState.READY),
        (TrialState.RUNNING, TrialState.DONE),
    }
)


def allowed(old: TrialState, new: TrialState) -> bool:
    """Say whether a trial may go from one state to the other."""
    return (old, new) in _WAYS
