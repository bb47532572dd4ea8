"""States of a trial with the transitions between them, and the roles of campaigns in a closed loop."""

from __future__ import annotations

import enum

__all__ = ["LoopRole", "TrialState", "allowed"]


class TrialState(enum.StrEnum):
    """State of a trial: ``ready`` -> ``running`` -> ``done``.

    A trial returns from ``running`` to ``ready`` when its driver died. Nothing leaves ``done``.
    """

    READY = "ready"
    RUNNING = "running"
    DONE = "done"


class LoopRole(enum.StrEnum):
    """Purpose of a campaign within one cycle of a closed loop.

    Attributes:
        CYCLE: Trains the proposals of the cycle.
        JUDGE: Trains the best candidate so far with fresh seeds; these trials are held out from proposing.
    """

    CYCLE = "cycle"
    JUDGE = "judge"


_TRANSITIONS = frozenset(
    {
        (TrialState.READY, TrialState.RUNNING),
        (TrialState.RUNNING, TrialState.READY),
        (TrialState.RUNNING, TrialState.DONE),
    }
)


def allowed(old: TrialState, new: TrialState) -> bool:
    """Return whether a trial may go from one state to the other."""
    return (old, new) in _TRANSITIONS
