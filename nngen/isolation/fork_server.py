"""The fork server: loads modules once, then forks a supervisor with a worker for each job.

The process that launches jobs cannot be forked itself: it may have run torch, whose threads do not survive a fork. So
it starts this small server with a clean environment. The server loads modules, calls nothing in them, and forks a
supervisor (``nngen.isolation.supervisor``) for each order that it receives.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import NoReturn

import psutil

from nngen.isolation.job import MAX_ORDER, decode_order
from nngen.isolation.limits import ProcessOption, set_option
from nngen.isolation.seccomp import filter_calls, join_empty_keyring
from nngen.isolation.supervisor import fork_into, supervise

_MAX_DESCRIPTORS = 16


def serve(
    descriptor: int, preload: Sequence[str], *, sandboxed: bool, user: int | None, paths: Sequence[str], cuda: bool
) -> NoReturn:
    """Serve the process at the other end of a SEQPACKET socket until that end is closed.

    Args:
        descriptor: The socket.
        preload: Modules to load before the first job.
        sandboxed: Whether it runs in a sandbox of its own, where it filters its system calls and its workers'.
        user: Number of the user to become for good, without capabilities; None to stay the same user.
        paths: Files to pass to each worker after those that come with its order.
        cuda: Whether a sandbox has graphics cards.
    """
    join_empty_keyring()
    # Opened first: the other user may have no right to read them.
    files = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in paths]
    if user is not None:
        # Groups first: without root's rights they could not be given up any more.
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    if sandboxed:
        filter_calls(cuda=cuda)
    connection = socket.socket(fileno=descriptor)
    # Orphans of a supervisor that was killed become children of the server, which kills them (``_reap``).
    set_option(ProcessOption.CHILD_SUBREAPER, 1)
    # Loading torch takes seconds. Nothing is sent before the server has answered, so until then the only event on the
    # socket is its end. The kernel signals it by SIGIO, which ends a process that has no handler.
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection, fcntl.F_SETFL, os.O_ASYNC)
    loaded = {name: importlib.import_module(name) for name in preload}
    fcntl.fcntl(connection, fcntl.F_SETFL, 0)
    # All objects of now live for ever: the collector of a child must not touch, and so copy, their pages.
    gc.collect()
    gc.freeze()
    versions = {name: str(module.__version__) for name, module in loaded.items() if hasattr(module, "__version__")}
    supervisors: set[int] = set()
    if not sandboxed:
        # A sandbox ends with its one job, and everything in it.
        signal.signal(signal.SIGCHLD, lambda number, frame: _reap(supervisors, number, frame))
    connection.send(json.dumps({"python": sys.version.split()[0], **versions}).encode())
    while True:
        order, descriptors, _, _ = socket.recv_fds(connection, MAX_ORDER, _MAX_DESCRIPTORS)
        if not order:
            # Skips the interpreter's own end, which takes long with torch loaded.
            os._exit(0)
        # For it and its supervisors: a candidate of the same user must not write into their memory. From now on, as
        # the process that launched it had to change its ``/proc`` first.
        set_option(ProcessOption.DUMPABLE, 0)
        # A supervisor that ends before its number is noted would be taken for a stray.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        supervisors.add(_fork(connection, order, [*descriptors, *files]))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        for number in descriptors:
            os.close(number)


def _fork(connection: socket.socket, order: bytes, descriptors: list[int]) -> int:
    """Fork a supervisor; return its process number."""

    def run() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        connection.close()
        supervise(*decode_order(order), descriptors)

    return fork_into(run)


def _reap(supervisors: set[int], _number: int, _frame: FrameType | None) -> None:
    """Collect children that ended, and kill those that are not supervisors: orphans of one that was killed."""
    # One signal may stand for several children that ended.
    with suppress(ChildProcessError):
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            supervisors.discard(pid)
    for child in psutil.Process().children():
        if child.pid not in supervisors:
            with suppress(psutil.NoSuchProcess):
                child.kill()
