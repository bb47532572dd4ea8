"""Commands to a running campaign: pause, resume and stop from another process, and Ctrl-C in its own.

Commands are events of the archive (``control.pause``, ``control.resume``, ``control.stop``); the driver polls for new
ones about once a second. Commands from before it began are ignored.
"""

from __future__ import annotations

import enum
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from nngen.archive.store import Archive
from nngen.errors import UsageError

_POLL_S = 1.0


class Command(enum.StrEnum):
    """A command to the driver of a campaign."""

    RESUME = "resume"
    PAUSE = "pause"
    STOP = "stop"


def send_command(archive: Archive, name: str, command: Command) -> int:
    """Send a command to the driver of a campaign, which follows it within about a second.

    Returns:
        The driver's process id.

    Raises:
        UsageError: If the campaign does not exist, or has no live driver.
    """
    archive.campaign(name)
    driver = archive.driver(name)
    if driver is None:
        raise UsageError(
            f"campaign {name} is not being run, so there is nothing to {command}: nngen campaign run {name}"
        )
    archive.log(f"control.{command}", campaign=name)
    return driver


class CommandListener:
    """Polls the archive for commands to one campaign.

    Attributes:
        interrupted: Whether Ctrl-C was typed once.
    """

    def __init__(self, archive: Archive, name: str) -> None:
        self.interrupted = False
        self._archive, self._name = archive, name
        self._seen = max((event.id for event in archive.events(name, kinds=("control.",))), default=0)
        self._command = Command.RESUME
        self._polled = 0.0

    def command(self) -> Command:
        """Return the last command; Ctrl-C counts as stop."""
        now = time.monotonic()
        if now >= self._polled + _POLL_S:
            self._polled = now
            for event in self._archive.events(self._name, after=self._seen, kinds=("control.",)):
                self._seen, self._command = event.id, Command(event.kind.removeprefix("control."))
        return Command.STOP if self.interrupted else self._command


@contextmanager
def interrupts(listener: CommandListener) -> Iterator[None]:
    """Make the first Ctrl-C set ``listener.interrupted`` and the second one raise ``KeyboardInterrupt``."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
        return

    def handle(_number: int, _frame: FrameType | None) -> None:
        if listener.interrupted:
            raise KeyboardInterrupt
        listener.interrupted = True

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
