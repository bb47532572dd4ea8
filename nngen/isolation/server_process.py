"""Start of a fork server in a process of its own, with or without a sandbox around it."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nngen.errors import NngenError

__all__ = ["PACKAGE", "ServerProcess", "search_path", "start_server"]

PACKAGE = Path(__file__).parents[1]
"""Folder of this package, nngen."""

_START_S = 180.0
_CLOSE_S = 5.0
_MAX_GREETING = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerProcess:
    """A fork server that has loaded its modules.

    Attributes:
        process: The server, or the bubblewrap around it.
        connection: Socket for orders.
        versions: Versions of Python and of the preloaded packages.
    """

    process: subprocess.Popen[bytes]
    connection: socket.socket
    versions: Mapping[str, str]

    def close(self) -> None:
        """Close the connection, which ends the server, and wait for its end."""
        self.connection.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=_CLOSE_S)
        self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()


def start_server(
    command: Callable[[int], Sequence[str]], environment: Mapping[str, str], failure: Callable[[str], NngenError]
) -> ServerProcess:
    """Start a server and wait until it has loaded its modules.

    Args:
        command: Gives the command line, from the descriptor of the server's end of the connection.
        environment: The whole environment of the process.
        failure: Makes the error to raise, from the reason in one line.

    Raises:
        NngenError: As ``failure`` made it, if the server ends or does not answer.
    """
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with far:
            process = subprocess.Popen(
                command(far.fileno()),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[far.fileno()],
                cwd="/",
                # Ctrl-C in the terminal reaches this process alone, which ends the jobs in order.
                start_new_session=True,
            )
    except BaseException:
        near.close()
        raise
    try:
        ready, _, _ = select.select([near], [], [], _START_S)
        data = near.recv(_MAX_GREETING) if ready else b""
        if not data:
            process.kill()
            _, error = process.communicate()
            lines = error.decode(errors="replace").strip().splitlines()
            raise failure(lines[-1] if lines else f"no answer for {_START_S:.0f} s")
    except BaseException:
        near.close()
        process.kill()
        process.wait()
        raise
    return ServerProcess(process=process, connection=near, versions=json.loads(data))


def search_path(*, standard_only: bool = False) -> list[str]:
    """Return the folders where this process finds packages, without the folder it happens to run in.

    Args:
        standard_only: Leave out all but Python's own folders and those of installed packages, for a sandbox.
    """
    home = str(PACKAGE.parent)
    if standard_only:
        prefixes = (f"{sys.base_prefix}/", f"{sys.prefix}/")
        entries = [entry for entry in sys.path if entry.startswith(prefixes)] + installed_packages()
    else:
        here = {"", ".", os.getcwd()}  # noqa: PTH109
        entries = [entry for entry in sys.path if entry not in here]
    return [*dict.fromkeys(entry for entry in entries if entry != home), home]


def installed_packages() -> list[str]:
    """Return the folders of installed packages on this process's search path."""
    return [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
