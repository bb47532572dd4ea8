"""Checkpoints as the worker sends them: how often, and of which states."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from worker_channel import Sent

from nngen.training.state.net_values import UnknownStateError
from nngen.training.worker import checkpoint_sender
from nngen.training.worker.checkpoint_sender import CheckpointSender


@pytest.fixture
def checkpoints(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, SimpleNamespace]]:
    """A sender at second 1000 of a clock; a state takes a quarter of a second to be sent."""
    clock = SimpleNamespace(now=1000.0, state=({}, {"a": 1}))

    def send(channel: Any, name: str, tensors: Any, **metadata: str) -> None:
        clock.now += 0.25
        channel.steps.append((name, tensors, metadata))

    def take(_: object) -> Any:
        if isinstance(clock.state, Exception):
            raise clock.state
        return clock.state

    monkeypatch.setattr(checkpoint_sender, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(checkpoint_sender, "send_tensors", send)
    monkeypatch.setattr(checkpoint_sender, "capture", take)

    def make(stored_at: float, storing_s: float, asked: bool = True) -> tuple[Any, SimpleNamespace]:
        channel: Any = Sent()
        return CheckpointSender(channel, asked, stored_at, storing_s), clock

    return make


@pytest.mark.parametrize(
    ("stored_at", "storing_s", "needed", "asked", "sent"),
    [
        (990.0, 5.0, False, True, True),
        (990.0, 5.5, False, True, False),  # more than half of the time since the last one
        (990.0, 5.5, True, True, True),
        (999.5, 1.0, False, True, True),
        (999.5, 1.25, False, True, False),
        (990.0, 0.0, True, False, False),
        (990.0, 0.0, False, False, False),
    ],
)
def test_checkpoints_take_half_of_the_time_at_most(stored_at, storing_s, needed, asked, sent, checkpoints) -> None:
    one, _ = checkpoints(stored_at, storing_s, asked)
    one.send(None, needed=needed)
    assert one.channel.steps == [("checkpoint", {}, {"state": '{"a": 1}'})] * sent
    assert (one.stored_at, one.storing_s) == ((1000.25, 0.25) if sent else (stored_at, storing_s))


def test_a_state_that_cannot_be_known_is_told_once(checkpoints) -> None:
    one, clock = checkpoints(990.0, 0.0)
    clock.state = UnknownStateError("net.a is a lock")
    for _ in range(2):
        one.send(None, needed=False)
    assert one.channel.messages == [{"event": "no-file", "name": "checkpoint", "reason": "net.a is a lock"}]


@pytest.mark.parametrize(("seconds", "sent"), [(0.9, True), (1.2, False)])
def test_checkpoints_of_up_to_a_second_follow_every_epoch(seconds, sent, monkeypatch):
    files = []
    monkeypatch.setattr(checkpoint_sender, "capture", lambda _: ({}, {}))
    monkeypatch.setattr(checkpoint_sender, "send_tensors", lambda *given, **_: files.append(given))
    CheckpointSender(None, True, storing_s=seconds).send(None, needed=False)
    assert bool(files) is sent
