"""The launching process's side of a fork server and of its jobs: the start of a server, and the pipes of a job."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import psutil

from nngen.errors import NngenError, UsageError
from nngen.isolation.bubblewrap import HOME, Sandbox, search_path

_KEPT = ("PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "LANG")
_INSIDE = {"PATH": "/usr/bin:/bin", "CUDA_HOME": "", "HOME": str(HOME), "USER": "nngen"}
"""Variables that differ in a sandbox."""

_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    # How long threads that wait spin before they sleep. Alone on two cores, not spinning made a step twice as long;
    # beside other work, spinning as long as is the default made it 3 times as long.
    "GOMP_SPINCOUNT": "3000",
    # Kept by malloc instead of given back after each step: 40,000 page faults a step and a tenth of the time saved.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}

_START = (
    "import sys; sys.path[:] = {path!r}; from nngen.isolation.fork_server import serve;"
    " serve({descriptor}, {preload!r}, {user}, {files!r})"
)
_START_S = 180.0
_CLOSE_S = 5.0
_MAX_GREETING = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerProcess:
    """A fork server that has loaded its modules, with or without a sandbox around it.

    Attributes:
        process: The server, or the bubblewrap around it.
        connection: Socket for orders.
        versions: Versions of Python and of the preloaded packages.
        init: First process inside the sandbox; None without one.
    """

    process: subprocess.Popen[bytes]
    connection: socket.socket
    versions: Mapping[str, str]
    init: psutil.Process | None

    def kill(self) -> None:
        """Kill everything inside a sandbox at once."""
        self.connection.close()
        with suppress(psutil.Error):
            if self.init is not None:
                # With the first process of a PID namespace, the kernel kills all others.
                self.init.kill()
                return
        self.process.kill()

    def close(self) -> None:
        """Close the connection, which ends the server, and wait for its end."""
        self.connection.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=_CLOSE_S)
        self.process.kill()
        with self.process:
            pass


def start_server(preload: Sequence[str], sandbox: Sandbox | None = None) -> ServerProcess:
    """Start a server and wait until it has loaded its modules.

    Args:
        preload: Modules that the server loads before it answers.
        sandbox: The sandbox to start it in.

    Raises:
        UsageError: If the sandbox cannot be started.
        NngenError: If the server ends or does not answer.
    """
    with ExitStack() as undo:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        undo.enter_context(near)
        start = _START.format(
            path=search_path(standard_only=sandbox is not None),
            descriptor=far.fileno(),
            preload=list(preload),
            user=sandbox.user if sandbox else None,
            files=sandbox.files if sandbox else (),
        )
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | _ENVIRONMENT
        command = [sys.executable, "-s", "-P", "-c", start]
        if sandbox is not None:
            command[:0], environment = sandbox.command, environment | _INSIDE
        with far:
            # A session of its own: Ctrl-C in the terminal reaches this process alone, which ends the jobs in order.
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[far.fileno()],
                cwd="/",
                start_new_session=True,
            )
        undo.enter_context(process)
        undo.callback(process.kill)
        # The server greets with its versions; where it ends before, the socket ends without a message.
        greeting = near.recv(_MAX_GREETING) if select.select([near], [], [], _START_S)[0] else b""
        if not greeting:
            process.kill()
            lines = process.communicate()[1].decode(errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"no answer for {_START_S:.0f} s"
            if sandbox is not None:
                raise UsageError(f"the sandbox cannot start, so nothing was run: {reason}")
            raise NngenError(f"the worker process cannot start: {reason}")
        init = psutil.Process(process.pid).children()[0] if sandbox is not None else None
        undo.pop_all()
        return ServerProcess(process=process, connection=near, versions=json.loads(greeting), init=init)


@dataclass(slots=True, eq=False)
class Pipes:
    """This process's ends of one job's connections.

    Attributes:
        control: Socket on which the supervisor reports its start and the worker's status, and whose end means that
            nothing of the job is left; shut down from here, it ends the job.
        result: Pipe of the worker's frames.
        output: Pipe of the worker's standard output and error.
        sandbox: The job's own server inside a sandbox; None at the other levels.
    """

    control: socket.socket
    result: int
    output: int
    sandbox: ServerProcess | None = None

    @classmethod
    def open(cls) -> tuple[Pipes, list[int]]:
        """Open them; return this process's ends, and the descriptors of the others in the same order."""
        control, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # The kernel adds the sender's process number, translated from the sandbox's numbers to those here.
        control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        (result, far_result), (output, far_output) = os.pipe(), os.pipe()
        return cls(control, result, output), [far.detach(), far_result, far_output]

    def kill(self) -> None:
        """End the job; safe to call from another thread, and again."""
        with suppress(OSError):
            self.control.shutdown(socket.SHUT_WR)
        if self.sandbox is not None:
            self.sandbox.kill()

    def close(self) -> None:
        """End the job and close every pipe; nothing of a sandbox is left then."""
        self.kill()
        if self.sandbox is not None:
            self.sandbox.close()
        self.control.close()
        os.close(self.result)
        os.close(self.output)
