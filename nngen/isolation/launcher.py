"""The judge's side of the warm server: start it, send it jobs, hold the pipes of each."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import nngen
from nngen.errors import NngenError
from nngen.isolation.bubblewrap import Sandbox, start_sandbox
from nngen.isolation.fork_server import MAX_JOB, send_job

__all__ = ["Launcher", "Pipes"]

_START_S = 180.0
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
_START = "import sys; sys.path[:] = {path!r}; from nngen.isolation.fork_server import main; main({descriptor})"


@dataclass(slots=True)
class Pipes:
    """The judge's ends of one job's pipes.

    Attributes:
        status: The nanny's words; its end means that nothing of the job is left.
        lifeline: Closing it ends the job.
        result: The worker's frames.
        output: The candidate's standard output and error.
        sandbox: What the job runs in; None at level ``process``.
    """

    status: int
    lifeline: int
    result: int
    output: int
    sandbox: Sandbox | None = None

    def find(self, number: int) -> psutil.Process:
        """Find a process of the job by the number that it gave.

        Raises:
            psutil.NoSuchProcess: If it is gone.
        """
        return psutil.Process(number) if self.sandbox is None else self.sandbox.find(number)

    def kill(self) -> None:
        """End the job; doing it again does nothing."""
        # Taken before it is closed: another thread may be ending the same job.
        lifeline, self.lifeline = self.lifeline, -1
        if lifeline >= 0:
            os.close(lifeline)
            if self.sandbox is not None:
                self.sandbox.kill()

    def close(self) -> None:
        """Close every end that is open; nothing of a sandbox is left then."""
        self.kill()
        if self.sandbox is not None:
            self.sandbox.close()
        for number in (self.status, self.result, self.output):
            os.close(number)


class Launcher:
    """Owns the server process. Safe to use from several threads; a server that died is started anew."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._versions: Mapping[str, str] = {}

    def versions(self) -> Mapping[str, str]:
        """Versions of what the workers run on, as the server found them."""
        with self._lock:
            self._connect()
            return self._versions

    def launch(self, job: dict[str, Any], files: Sequence[Path]) -> Pipes:
        """Start one job.

        Args:
            job: Sent as JSON.
            files: Opened for reading and handed to the worker as descriptors.

        Raises:
            NngenError: If the server cannot be started.
        """
        assert len(json.dumps(job)) <= MAX_JOB
        pipes, far = _pipes()
        try:
            far.extend(os.open(path, os.O_RDONLY) for path in files)
            self._send(job, far)
        except BaseException:
            pipes.close()
            raise
        finally:
            for number in far:
                os.close(number)
        return pipes

    def launch_in_sandbox(self, job: dict[str, Any], source: Path, files: Sequence[Path]) -> Pipes:
        """Start one job in a sandbox of its own; wait until torch is loaded there.

        Args:
            job: Sent as JSON.
            source: The candidate's file.
            files: Shown inside, and handed to the worker as descriptors.

        Raises:
            UsageError: If there can be no sandbox.
        """
        assert len(json.dumps(job)) <= MAX_JOB
        sandbox = start_sandbox(source, files, cuda=job["device"] != "cpu", settings=_SET)
        pipes, far = _pipes()
        pipes.sandbox = sandbox
        try:
            send_job(sandbox.connection, job, far)
        except BaseException:
            pipes.close()
            raise
        finally:
            for number in far:
                os.close(number)
        return pipes

    def close(self) -> None:
        """Send the server away; jobs that still run are ended by their own lifelines."""
        with self._lock:
            self._disconnect()

    def _send(self, job: dict[str, Any], descriptors: list[int]) -> None:
        with self._lock:
            try:
                send_job(self._connect(), job, descriptors)
            except OSError:
                self._disconnect()
                send_job(self._connect(), job, descriptors)

    def _connect(self) -> socket.socket:
        if self._connection is not None and self._server is not None and self._server.poll() is None:
            return self._connection
        self._disconnect()
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            self._server = subprocess.Popen(
                [sys.executable, "-s", "-P", "-c", _START.format(path=_search_path(), descriptor=far.fileno())],
                env={name: os.environ[name] for name in _KEPT if name in os.environ} | _SET,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[far.fileno()],
                cwd="/",
                # The terminal's Ctrl-C is the judge's to handle.
                start_new_session=True,
            )
        self._connection = near
        self._versions = self._greeting(near, self._server)
        return near

    def _greeting(self, near: socket.socket, server: subprocess.Popen[bytes]) -> Mapping[str, str]:
        ready, _, _ = select.select([near], [], [], _START_S)
        data = near.recv(MAX_JOB) if ready else b""
        if data:
            greeting: Mapping[str, str] = json.loads(data)
            return greeting
        server.kill()
        _, error = server.communicate()
        lines = error.decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"it said nothing for {_START_S:.0f} s"
        self._disconnect()
        raise NngenError(f"the worker process cannot start: {reason}")

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._server is not None:
            with suppress(subprocess.TimeoutExpired):
                self._server.wait(timeout=2)
            self._server.kill()
            self._server.wait()
            if self._server.stderr is not None:
                self._server.stderr.close()
            self._server = None


def _pipes() -> tuple[Pipes, list[int]]:
    """Make the four pipes; return the judge's ends, and the others in the order of ``Pipes``."""
    far: list[int] = []
    near: list[int] = []
    for writes_far in (True, False, True, True):
        reader, writer = os.pipe()
        far.append(writer if writes_far else reader)
        near.append(reader if writes_far else writer)
    status, lifeline, result, output = near
    return Pipes(status, lifeline, result, output), far


def _search_path() -> list[str]:
    """Where this process finds packages, without the folder it happens to run in."""
    here = {"", ".", os.getcwd()}  # noqa: PTH109
    home = str(Path(nngen.__file__).parent.parent)
    return [*(entry for entry in sys.path if entry not in here and entry != home), home]
