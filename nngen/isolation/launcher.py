"""Launch of jobs: starts the fork server, sends it orders, and holds the pipes of each job."""

from __future__ import annotations

import math
import os
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from nngen.errors import NngenError
from nngen.isolation.bubblewrap import HOME, Sandbox, start_sandbox
from nngen.isolation.job import Job, WorkerOrder
from nngen.isolation.level import Isolation
from nngen.isolation.limits import MAX_PROCESSES, HardLimits
from nngen.isolation.server_process import ServerProcess, search_path, start_server

__all__ = ["Launcher", "Pipes"]

_CPU_S = 10
_YEAR_S = 3.2e7
_KEPT = ("PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "LANG")
_SET = {
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
    " serve({descriptor}, {preload!r})"
)


@dataclass(slots=True)
class Pipes:
    """This process's ends of one job's pipes.

    Attributes:
        status: The supervisor's reports; its end means that nothing of the job is left.
        lifeline: Closing it ends the job.
        result: The worker's frames.
        output: The worker's standard output and error.
        sandbox: The sandbox around the job; None at the other levels.
    """

    status: int
    lifeline: int
    result: int
    output: int
    sandbox: Sandbox | None = None

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
            self.sandbox.close()
        for number in (self.status, self.result, self.output):
            os.close(number)


class Launcher:
    """Owns the fork server. Safe to use from several threads; a server that died is started anew.

    Args:
        preload: Modules that a server loads before its first job, so that every worker has them already.
    """

    def __init__(self, preload: Sequence[str]) -> None:
        self._preload = tuple(preload)
        self._lock = threading.Lock()
        self._server: ServerProcess | None = None

    def versions(self) -> Mapping[str, str]:
        """Return the versions of Python and of the preloaded packages, as the server found them.

        Raises:
            NngenError: If the server cannot be started.
        """
        with self._lock:
            return self._connect().versions

    def launch(self, job: Job, source: Path) -> Pipes:
        """Start a job; in a sandbox of its own if the job asks for one.

        Args:
            job: The job.
            source: Its source, in the folder that becomes the worker's scratch folder.

        Raises:
            UsageError: If the job needs a sandbox and there can be none, or its arguments are too long.
            NngenError: If the server cannot be started.
        """
        order = _order(job, source)
        pipes, far = _pipes()
        try:
            if job.isolation is Isolation.SANDBOX:
                pipes.sandbox = start_sandbox(source, job.files, preload=self._preload, cuda=job.cuda, environment=_SET)
                socket.send_fds(pipes.sandbox.server.connection, [order], far)
            else:
                far.extend(os.open(path, os.O_RDONLY) for path in job.files)
                self._send(order, far)
        except BaseException:
            pipes.close()
            raise
        finally:
            for number in far:
                os.close(number)
        return pipes

    def close(self) -> None:
        """End the server; jobs that still run end with their own lifelines."""
        with self._lock:
            self._disconnect()

    def _send(self, order: bytes, descriptors: list[int]) -> None:
        with self._lock:
            try:
                socket.send_fds(self._connect().connection, [order], descriptors)
            except OSError:
                # The server died since the last job: a new one takes the order.
                self._disconnect()
                socket.send_fds(self._connect().connection, [order], descriptors)

    def _connect(self) -> ServerProcess:
        if self._server is None or self._server.process.poll() is not None:
            self._disconnect()
            self._server = start_server(
                self._command,
                {name: os.environ[name] for name in _KEPT if name in os.environ} | _SET,
                lambda reason: NngenError(f"the worker process cannot start: {reason}"),
            )
        return self._server

    def _command(self, descriptor: int) -> list[str]:
        start = _START.format(path=search_path(), descriptor=descriptor, preload=list(self._preload))
        return [sys.executable, "-s", "-P", "-c", start]

    def _disconnect(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None


def _order(job: Job, source: Path) -> bytes:
    """Write the part of a job that the worker needs."""
    cores = os.cpu_count() or 1
    sandboxed = job.isolation is Isolation.SANDBOX
    limits = HardLimits(
        memory_mib=job.limits.memory_mib,
        virtual=not job.cuda,
        # More than all cores give within the time limit: the monitor's clock comes first, unless it is suspended.
        cpu_s=math.ceil(min(job.limits.time_limit_s, _YEAR_S) * cores) + _CPU_S,
        # Counted per user by the kernel: only a sandbox has a user of its own.
        processes=MAX_PROCESSES + 2 * cores if sandboxed else None,
    )
    order = WorkerOrder(
        entry_point=job.entry_point,
        arguments=job.arguments,
        folder=str(HOME if sandboxed else source.parent),
        cuda=job.cuda,
        limits=None if job.isolation is Isolation.NONE else limits,
    )
    return order.encode()


def _pipes() -> tuple[Pipes, list[int]]:
    """Make the four pipes; return this process's ends, and the others in the order of ``Pipes``."""
    far: list[int] = []
    near: list[int] = []
    for writes_far in (True, False, True, True):
        reader, writer = os.pipe()
        far.append(writer if writes_far else reader)
        near.append(reader if writes_far else writer)
    status, lifeline, result, output = near
    return Pipes(status, lifeline, result, output), far
