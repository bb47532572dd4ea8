"""The warm server: torch loaded once, then one fork per candidate.

The judge's process cannot be forked itself: it may have run torch, whose threads do not survive a fork.
So it starts this small server with a clean environment. The server loads torch, runs nothing with it,
and forks a nanny (``nngen.isolation.supervisor``) for each job it is sent.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from types import FrameType
from typing import Any, NoReturn

import psutil

__all__ = ["MAX_JOB", "main", "main_inside", "send_job"]

MAX_JOB = 65_536
"""Bytes of the longest job; the source travels as a file."""

_MAX_DESCRIPTORS = 16
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36


def send_job(connection: socket.socket, job: dict[str, Any], descriptors: list[int]) -> None:
    """Send one job and the descriptors it needs; the judge's end of what ``main`` reads."""
    socket.send_fds(connection, [json.dumps(job).encode()], descriptors)


def main_inside(descriptor: int, user: int | None, files: Sequence[str]) -> NoReturn:
    """Serve from inside a sandbox.

    Args:
        descriptor: As for ``main``.
        user: Who to become for good, with no rights left; None stays who it is.
        files: Opened first, while they can be read, and handed to the worker.
    """
    data = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in files]
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        # The kernel takes what lies below /proc/self away from who changes its number.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    main(descriptor, data)


def main(descriptor: int, files: Sequence[int] = ()) -> NoReturn:
    """Serve the judge at the other end of a SEQPACKET socket until it goes away.

    Args:
        descriptor: The socket.
        files: Handed to each worker after what comes with its job.
    """
    connection = socket.socket(fileno=descriptor)
    # Orphans of a nanny that was killed come here, and are killed in their turn.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with _ending_with(connection):
        hello = _warm_up()
    nannies: set[int] = set()
    signal.signal(signal.SIGCHLD, lambda number, frame: _reap(nannies, number, frame))
    connection.send(json.dumps(hello).encode())
    while True:
        data, descriptors, _, _ = socket.recv_fds(connection, MAX_JOB, _MAX_DESCRIPTORS)
        if not data:
            # Nothing here needs the interpreter's slow good-bye.
            os._exit(0)
        # A nanny that ends before it is known would be taken for a stray.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        nannies.add(_fork(connection, data, [*descriptors, *files]))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        for number in descriptors:
            os.close(number)


@contextmanager
def _ending_with(connection: socket.socket) -> Iterator[None]:
    """End at once where the judge goes away before it was answered: loading torch takes seconds.

    The judge sends nothing before that, so all that can move on the socket is its end; the kernel's SIGIO then
    does what it does to a process that has no handler.
    """
    flags = fcntl.fcntl(connection, fcntl.F_GETFL)
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection, fcntl.F_SETFL, flags | os.O_ASYNC)
    yield
    fcntl.fcntl(connection, fcntl.F_SETFL, flags)


def _warm_up() -> dict[str, str]:
    import torch
    import torchvision

    import nngen.checks.dynamic
    import nngen.training.worker  # noqa: F401

    # What lives now lives for ever: the children's collector shall not touch, and so copy, its pages.
    gc.collect()
    gc.freeze()
    return {
        "python": sys.version.split()[0],
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "numpy": version("numpy"),
    }


def _fork(connection: socket.socket, data: bytes, descriptors: list[int]) -> int:
    from nngen.isolation import supervisor

    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        connection.close()
        supervisor.main(json.loads(data), descriptors)
        code = 0
    finally:
        # Whatever happened, the child must never come back into the server's loop.
        os._exit(code)


def _reap(nannies: set[int], _number: int, _frame: FrameType | None) -> None:
    with suppress(ChildProcessError):
        while True:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            nannies.discard(pid)
    for child in psutil.Process().children():
        if child.pid not in nannies:
            with suppress(psutil.NoSuchProcess):
                child.kill()
