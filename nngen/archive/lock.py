"""Lock that admits one live driver per campaign; the kernel releases it when the driver dies."""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nngen.errors import ArchiveError

_FLOCK = "@hhqqi4x"  # linux's ``struct flock`` on 64-bit machines: type, whence, start, length, pid

_HELD: set[Path] = set()  # locks of this process: POSIX locks never conflict within one process


@contextmanager
def driver_lock(archive: Path, campaign: str) -> Iterator[None]:
    """Hold the campaign's lock, a small file beside the archive, for the duration of a block.

    A POSIX record lock is taken because forked workers do not inherit it: a worker that outlives
    its driver does not keep the next driver out.

    Raises:
        ArchiveError: If another live driver holds it, or the file cannot be written.
    """
    path = _place(archive, campaign)
    handle = _take(path, campaign)
    _HELD.add(path)
    try:
        yield
    finally:
        # Removed before it is released, so that a process that just opened it notices that the name is gone.
        path.unlink(missing_ok=True)
        _HELD.discard(path)
        os.close(handle)


def driver_of(archive: Path, campaign: str) -> int | None:
    """Return the id of the live process that holds the campaign's lock, without touching the lock."""
    path = _place(archive, campaign)
    if path in _HELD:
        return os.getpid()
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    # Asking does not take the lock, so that a reader never keeps a driver out.
    try:
        answer = fcntl.fcntl(handle, fcntl.F_GETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(handle)
    kind, _, _, _, pid = struct.unpack(_FLOCK, answer)
    return None if kind == fcntl.F_UNLCK else int(pid)


def _place(archive: Path, campaign: str) -> Path:
    digest = hashlib.sha256(campaign.encode()).hexdigest()[:8]
    return (archive.parent / f".{archive.name}.{digest}.lock").absolute()


def _take(path: Path, campaign: str) -> int:
    while True:
        if path in _HELD:
            raise ArchiveError(f"campaign {campaign} is being run by this process already")
        try:
            # Opened only where this process does not hold the lock: closing any handle of a file releases all POSIX
            # locks that the process has on it.
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ArchiveError(f"cannot write the lock {path}: {error.strerror}") from error
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(handle)
            raise ArchiveError(
                f"campaign {campaign} is being run by another process (pid {owner}): wait for it or stop it"
            ) from error
        # The owner may have removed the file between our opening and our locking it: then the lock is on a file that no
        # other process can find, and the next round makes a new one.
        if path.exists() and path.stat().st_ino == os.fstat(handle).st_ino:
            os.ftruncate(handle, 0)
            os.write(handle, str(os.getpid()).encode())
            return handle
        os.close(handle)
