"""The launching process's side of a fork server and of its jobs: the start of a server, and the pipes of a job."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from nngen.errors import NngenError, UsageError
from nngen.isolation.bubblewrap import Sandbox
from nngen.isolation.job import Job, encode_order
from nngen.isolation.mounts import search_path

_KEPT = ("PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "LANG")
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
    " serve({descriptor}, {preload!r}, sandboxed={sandboxed}, user={user}, paths={files!r}, cuda={cuda})"
)
_KILLED = (-9, 128 + 9)  # exit codes of a process that was killed, and of a bubblewrap around one

_CREDENTIALS = struct.Struct("<3i")  # process, user, group
_START_S = 180.0
_STARTS = 3
_CLOSE_S = 5.0
_MAX_GREETING = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerProcess:
    """A fork server that has loaded its modules, with or without a sandbox around it."""

    process: subprocess.Popen[bytes]  # the server, or the bubblewrap around it
    connection: socket.socket  # socket for orders
    versions: Mapping[str, str]  # versions of Python and of the preloaded packages
    address_space: int  # bytes of address space of the server
    init: psutil.Process | None  # first process inside the sandbox; None without one

    def send(self, job: Job, folder: str, descriptors: Sequence[int]) -> None:
        """Send a job with its descriptors.

        Args:
            job: The job.
            folder: The worker's scratch folder, by its name inside the sandbox if there is one.
            descriptors: Those of ``Pipes.open``, then those of the data files.

        Raises:
            UsageError: If the job's arguments are too long.
            OSError: If the server has ended.
        """
        socket.send_fds(self.connection, [encode_order(job, folder, self.address_space)], list(descriptors))

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
    """Start a server and wait until it has loaded its modules; one that is killed meanwhile is started again.

    Raises:
        UsageError: If the sandbox cannot be started.
        NngenError: If the server ends or does not answer, or is killed again and again.
    """
    for _ in range(_STARTS):
        if (server := _started(preload, sandbox)) is not None:
            return server
    raise NngenError("the worker process cannot start: it was killed (SIGKILL): does the memory suffice?")


def _started(preload: Sequence[str], sandbox: Sandbox | None) -> ServerProcess | None:
    """Start a server, see ``start_server``; None if it was killed meanwhile, by a person or for want of memory."""
    with ExitStack() as undo:
        near, far = _socket_pair()
        undo.enter_context(near)
        with far:
            process = _launch(preload, sandbox, far)
        undo.enter_context(process)
        undo.callback(process.kill)
        # The server greets with its versions; where it ends before, the socket ends without a message.
        waiting = select.poll()  # select.select takes no descriptor beyond 1,023
        waiting.register(near, select.POLLIN)
        ready = waiting.poll(1000 * _START_S)
        greeting, number = receive(near, _MAX_GREETING) if ready else (b"", 0)
        if not greeting:
            code, reason = _end(process, ended=bool(ready))
            if code in _KILLED:
                return None
            if sandbox is not None:
                raise UsageError(f"the sandbox cannot start, so nothing was run: {reason}")
            raise NngenError(f"the worker process cannot start: {reason}")
        # Where the machine runs out of memory, the kernel kills a worker first and not this process.
        with suppress(OSError):
            Path(f"/proc/{number}/oom_score_adj").write_text("1000")
        try:
            server = ServerProcess(
                process=process,
                connection=near,
                versions=json.loads(greeting),
                address_space=psutil.Process(number).memory_info().vms,
                init=psutil.Process(process.pid).children()[0] if sandbox is not None else None,
            )
        except (psutil.Error, IndexError) as error:
            raise NngenError("the worker process ended while it started: try again") from error
        undo.pop_all()
        return server


def _launch(preload: Sequence[str], sandbox: Sandbox | None, far: socket.socket) -> subprocess.Popen[bytes]:
    """Launch the server's process, which talks through ``far``."""
    start = _START.format(
        path=sandbox.search_path if sandbox else search_path(),
        descriptor=far.fileno(),
        preload=list(preload),
        sandboxed=sandbox is not None,
        user=sandbox.user if sandbox else None,
        files=sandbox.files if sandbox else (),
        cuda=sandbox is not None and sandbox.cuda,
    )
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | _ENVIRONMENT
    program: Sequence[str] = [sys.executable]
    if sandbox is not None:
        # Bubblewrap's own environment, too: a process inside may be able to read it.
        program, environment = sandbox.command, {**environment, **sandbox.environment}
    # A session of its own: Ctrl-C in the terminal reaches this process alone, which ends the jobs in order.
    return subprocess.Popen(
        [*program, "-s", "-P", "-c", start],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=[far.fileno()],
        cwd="/",
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes], *, ended: bool) -> tuple[int | None, str]:
    """End a process that did not greet; return its exit code, None while it ran, and the reason in its last line."""
    if ended:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_CLOSE_S)
    code = process.poll()
    process.kill()
    lines = process.communicate()[1].decode(errors="replace").strip().splitlines()
    if lines:
        return code, lines[-1]
    return code, f"no answer for {_START_S:.0f} s" if code is None else f"it ended with code {code}"


def receive(near: socket.socket, length: int) -> tuple[bytes, int]:
    """Receive a message of at most ``length`` bytes; return it and its sender's process number.

    The message is empty where the other end is closed.
    """
    data, credentials, _, _ = near.recvmsg(length, socket.CMSG_SPACE(_CREDENTIALS.size))
    return data, _CREDENTIALS.unpack(credentials[0][2])[0] if data else 0


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # The kernel adds the sender's process number, translated from the sandbox's numbers to those here.
    near.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return near, far


@dataclass(slots=True, eq=False)
class Pipes:
    """This process's ends of one job's connections."""

    # socket on which the supervisor reports its start and the worker's status, and whose end means that nothing of the
    # job is left; shut down from here, it ends the job
    control: socket.socket
    result: int  # pipe of the worker's frames
    output: int  # pipe of the worker's standard output and error
    sandbox: ServerProcess | None = None  # the job's own server inside a sandbox; None at the other levels

    @classmethod
    def open(cls) -> tuple[Pipes, list[int]]:
        """Open them; return this process's ends, and the descriptors of the others in the same order."""
        opened: list[int] = []
        try:
            for ends in (_socket_pair, os.pipe, os.pipe):
                opened += [end if isinstance(end, int) else end.detach() for end in ends()]
        except OSError:
            for number in opened:
                os.close(number)
            raise
        return cls(socket.socket(fileno=opened[0]), opened[2], opened[4]), opened[1::2]

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
