"""Scratch folder of a process: removed at its end, and at the next start of another one where it was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "nngen-scratch-"


class ScratchFolder:
    """A temporary folder whose lock tells that its process lives.

    The kernel releases the lock with the process, however it ends, and in containers that share the folder but not
    their process numbers; nobody inherits it.

    Attributes:
        path: The folder.
    """

    def __init__(self) -> None:
        _sweep()
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            lock = _lock(self.path)
            # Another process may have swept the folder in the moment before it was locked.
            if lock is not None and self.path.exists():
                self._lock = lock
                return

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _lock(folder: Path) -> int | None:
    """Lock a folder; None where another process has locked or removed it."""
    try:
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(number)
        return None
    return number


def _sweep() -> None:
    """Remove the scratch folders of this user's processes that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        lock = _lock(folder)
        if lock is not None:
            if os.fstat(lock).st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
