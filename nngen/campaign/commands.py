"""Pause, resume and stop from another terminal, and Ctrl-C in this one.

Wishes are events of the archive (``control.pause``, ``control.resume``, ``control.stop``); the driver
looks for new ones about once a second. Those from before it began are void.
"""

from __future__ import annotations

import enum
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from nngen.archive import Store
from nngen.errors import UsageError

__all__ = ["Command", "Control", "interrupts", "send_command"]

_LOOK_S = 1.0


class Command(enum.StrEnum):
    """What a driver is asked to do."""

    RESUME = "resume"
    PAUSE = "pause"
    STOP = "stop"


def send_command(archive: Store, name: str, wish: Command) -> int:
    """Ask the driver of a campaign for something; it answers within about a second.

    Returns:
        The driver's process number.

    Raises:
        UsageError: If there is no such campaign, or no driver that could hear.
    """
    archive.campaign(name)
    driver = archive.driver(name)
    if driver is None:
        raise UsageError(f"campaign {name} is not being run, so there is nothing to {wish}: nngen campaign run {name}")
    archive.log(f"control.{wish}", campaign=name)
    return driver


class Control:
    """A driver's ear.

    Attributes:
        interrupted: Whether Ctrl-C was typed once.
    """

    def __init__(self, archive: Store, name: str) -> None:
        self.interrupted = False
        self._archive, self._name = archive, name
        self._seen = max((event.id for event in archive.events(name)), default=0)
        self._wish = Command.RESUME
        self._looked = 0.0

    def wish(self) -> Command:
        """Give the last wish; Ctrl-C is one to stop."""
        now = time.monotonic()
        if now >= self._looked + _LOOK_S:
            self._looked = now
            for event in self._archive.events(self._name, after=self._seen):
                self._seen = event.id
                if event.kind.startswith("control."):
                    self._wish = Command(event.kind.removeprefix("control."))
        return Command.STOP if self.interrupted else self._wish


@contextmanager
def interrupts(control: Control) -> Iterator[None]:
    """Let the first Ctrl-C set ``control.interrupted`` and the second one raise ``KeyboardInterrupt``."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread hears signals
        return

    def hear(_number: int, _frame: FrameType | None) -> None:
        if control.interrupted:
            raise KeyboardInterrupt
        control.interrupted = True

    before = signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
