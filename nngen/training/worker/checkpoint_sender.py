"""Checkpoints as the worker sends them: the state of a net after an epoch, as often as it takes little time."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

from torch import nn

from nngen.isolation import Channel
from nngen.training.state.artifacts import send_tensors
from nngen.training.state.checkpoints import CHECKPOINT
from nngen.training.state.net_state import capture
from nngen.training.state.net_values import UnknownStateError

_SHARE, _SHORT_S = 0.5, 1.0
"""Share of the time that checkpoints may take, and seconds that each may take anyway; else some are left out."""


@dataclass(slots=True)
class CheckpointSender:
    """Sends checkpoints of one training."""

    channel: Channel
    wanted: bool  # whether checkpoints are sent at all
    # second of the monotonic clock at which the last one was sent, or the first epoch began
    stored_at: float = field(default_factory=time.monotonic)
    storing_s: float = 0.0  # seconds that the last one took

    def send(self, net: nn.Module, *, needed: bool) -> None:
        """Send the state after an epoch, unless it is not needed and was sent a short time ago."""
        now = time.monotonic()
        often = self.storing_s > max(_SHARE * (now - self.stored_at), _SHORT_S)
        if not self.wanted or (often and not needed):
            return
        try:
            tensors, state = capture(net)
        except UnknownStateError as error:
            self.channel.send({"event": "no-file", "name": CHECKPOINT, "reason": str(error)})
            self.wanted = False
            return
        send_tensors(self.channel, CHECKPOINT, tensors, state=json.dumps(state))
        self.stored_at = time.monotonic()
        self.storing_s = self.stored_at - now
