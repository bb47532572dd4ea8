"""The launching process's side of a fork server and of its jobs: the start of a server, and the pipes of a job."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from nngen.errors import NngenError, UsageError
from nngen.isolation.bubblewrap import Sandbox, search_path

_KEPT = ("PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "LANG")
ENVIRONMENT = {
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
"""Variables of every worker's environment."""

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
    init: psutil.Process | None = None

    def find(self, inner: int) -> psutil.Process:
        """Find a process by its number inside the sandbox.

        Raises:
            psutil.NoSuchProcess: If there is none.
        """
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(OSError, psutil.Error):
                for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                    if line.startswith("NSpid:") and int(line.split()[-1]) == inner:
                        return process
        raise psutil.NoSuchProcess(inner)

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
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()


def start_server(preload: Sequence[str], sandbox: Sandbox | None = None) -> ServerProcess:
    """Start a server and wait until it has loaded its modules.

    Args:
        preload: Modules that the server loads before it answers.
        sandbox: The sandbox to start it in.

    Raises:
        UsageError: If the sandbox cannot be started.
        NngenError: If the server ends or does not answer.
    """
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    start = _START.format(
        path=search_path(standard_only=sandbox is not None),
        descriptor=far.fileno(),
        preload=list(preload),
        user=sandbox.user if sandbox else None,
        files=sandbox.files if sandbox else (),
    )
    if sandbox is not None:
        # The environment of bubblewrap itself can be read inside, from its entry in /proc: so it is empty.
        command, environment = [*sandbox.command, sys.executable, "-I", "-c", start], {}
    else:
        command = [sys.executable, "-s", "-P", "-c", start]
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | ENVIRONMENT
    try:
        with far:
            process = subprocess.Popen(
                command,
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
        # The server greets with its versions; where it ends before, the socket ends without a message.
        ready, _, _ = select.select([near], [], [], _START_S)
        data = near.recv(_MAX_GREETING) if ready else b""
        if not data:
            process.kill()
            _, error = process.communicate()
            lines = error.decode(errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"no answer for {_START_S:.0f} s"
            if sandbox is not None:
                raise UsageError(f"the sandbox cannot start, so nothing was run: {reason}")
            raise NngenError(f"the worker process cannot start: {reason}")
    except BaseException:
        near.close()
        process.kill()
        process.wait()
        raise
    init = None
    if sandbox is not None:
        with suppress(psutil.Error, IndexError):
            init = psutil.Process(process.pid).children()[0]
    return ServerProcess(process=process, connection=near, versions=json.loads(data), init=init)


@dataclass(slots=True)
class Pipes:
    """This process's ends of one job's pipes.

    Attributes:
        status: The supervisor's reports; its end means that nothing of the job is left.
        lifeline: Closing it ends the job.
        result: The worker's frames.
        output: The worker's standard output and error.
        sandbox: The job's own server inside a sandbox; None at the other levels.
    """

    status: int
    lifeline: int
    result: int
    output: int
    sandbox: ServerProcess | None = None

    def find(self, number: int) -> psutil.Process:
        """Find a process of the job by the number that it reported.

        Raises:
            psutil.NoSuchProcess: If it has ended.
        """
        return psutil.Process(number) if self.sandbox is None else self.sandbox.find(number)

    def kill(self) -> None:
        """End the job; further calls do nothing."""
        # Taken before it is closed: another thread may be ending the same job.
        lifeline, self.lifeline = self.lifeline, -1
        if lifeline >= 0:
            os.close(lifeline)
            if self.sandbox is not None:
                self.sandbox.kill()

    def close(self) -> None:
        """End the job and close every pipe; nothing of a sandbox is left then."""
        self.kill()
        if self.sandbox is not None:
            # Once more: another thread may have begun to end the job and not reached the sandbox.
            self.sandbox.kill()
            self.sandbox.close()
        for number in (self.status, self.result, self.output):
            os.close(number)


def open_pipes() -> tuple[Pipes, list[int]]:
    """Make the four pipes; return this process's ends, and the others in the order of ``Pipes``."""
    far: list[int] = []
    near: list[int] = []
    for writes_far in (True, False, True, True):
        reader, writer = os.pipe()
        far.append(writer if writes_far else reader)
        near.append(reader if writes_far else writer)
    status, lifeline, result, output = near
    return Pipes(status, lifeline, result, output), far
