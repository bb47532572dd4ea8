"""The runner of jobs: one call runs a job to its end and leaves no process and no file behind."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from nngen.errors import NngenError
from nngen.isolation.bubblewrap import HOME, make_sandbox
from nngen.isolation.job import SOURCE_FILE, Job, JsonObject
from nngen.isolation.launcher import Pipes, ServerProcess, start_server
from nngen.isolation.limits import Isolation
from nngen.isolation.monitor import Monitor
from nngen.isolation.protocol import Frame, FrameError
from nngen.isolation.result import JobResult
from nngen.isolation.scratch import ScratchFolder

_CLOSE_S = 3.0
_END_S = 0.3
_MAX_MESSAGES = 1000


class JobRunner:
    """Runs jobs in isolated workers. Safe to use from several threads at once, which then run several jobs at once.

    The first call starts a fork server, which loads the preloaded modules once; every job after that is a fork of it,
    and a server that died is started anew. A job in a sandbox loads the modules anew. Leaving the ``with`` block ends
    whatever still runs.

    To run one function ``measure(arguments, channel, files)`` of a module, which answers by ``channel.send({...})``::

        with JobRunner(preload=("torch", "nngen.families.measure")) as runner:
            job = Job(
                entry_point="nngen.families.measure:measure",
                arguments={"name": "AirNext"},
                source=source,  # the worker's file ./candidate.py
                limits=Limits(time_limit_s=120.0, memory_mib=6144),
            )
            messages, result = runner.collect(job)
            if not result.completed:
                print(result.describe())

    Args:
        preload: Modules that every worker finds loaded; the entry points' own should be among them.
    """

    def __init__(self, preload: Sequence[str]) -> None:
        self._preload = tuple(preload)
        self._lock = threading.Lock()
        self._server: ServerProcess | None = None
        self._scratch: ScratchFolder | None = None
        self._running: set[Pipes] = set()
        self._change = threading.Condition()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every job, wait a little until its folder is removed, and end the server."""
        with self._change:
            self._closed = True
            for pipes in self._running:
                pipes.kill()
            self._change.wait_for(lambda: not self._running, timeout=_CLOSE_S)
        with self._lock:
            self._disconnect()
            if self._scratch is not None:
                self._scratch.close()
                self._scratch = None

    def versions(self) -> Mapping[str, str]:
        """Return the versions of Python and of the preloaded packages; starts the server if it does not run.

        Raises:
            NngenError: If it cannot start.
        """
        with self._lock:
            return self._connect().versions

    def run(self, job: Job, take: Callable[[Frame, float], bool]) -> JobResult:
        """Run a job to its end.

        Args:
            job: The job.
            take: Called in this thread with each frame and the seconds since the start; returns true to end the job
                because all is received. ``FrameError`` ends the job; any other error does too, and is raised here.

        Raises:
            UsageError: If the job needs a sandbox and there can be none, or its arguments are too long; nothing is
                run then.
            NngenError: If no worker can be started.
        """
        try:
            with self._lock:
                self._scratch = self._scratch or ScratchFolder()
                folder = Path(tempfile.mkdtemp(dir=self._scratch.path))
        except OSError as error:
            raise _cannot_start(error) from error
        try:
            pipes, far = Pipes.open()
        except OSError as error:
            folder.rmdir()
            raise _cannot_start(error) from error
        monitor = Monitor(pipes, job, take)
        try:
            try:
                far.extend(os.dup(number) for number in job.inputs)
                self._send(job, folder, pipes, far)
            except OSError as error:
                raise _cannot_start(error) from error
            finally:
                # The worker has its own copies; one that stayed open here would keep a pipe from ending.
                for number in far:
                    os.close(number)
            with self._change:
                self._running.add(pipes)
                if self._closed:
                    pipes.kill()
            return monitor.run()
        finally:
            # The kernel may take many seconds to free the memory of a worker. A verdict does not wait for that.
            ending = threading.Thread(target=self._end, args=(monitor, pipes, folder), daemon=True)
            ending.start()
            ending.join(_END_S)

    def _end(self, monitor: Monitor, pipes: Pipes, folder: Path) -> None:
        """End what is left of a job."""
        monitor.end_all()
        pipes.close()
        # The supervisor has removed it, unless it was killed or the job ran in a sandbox.
        shutil.rmtree(folder, ignore_errors=True)
        with self._change:
            self._running.discard(pipes)
            self._change.notify_all()

    def collect(self, job: Job) -> tuple[tuple[JsonObject, ...], JobResult]:
        """Run a job that sends only messages, at most 1,000; return them and the result.

        Raises:
            NngenError: As ``run`` does.
        """
        messages: list[JsonObject] = []

        def take(frame: Frame, _seconds: float) -> bool:
            if len(messages) == _MAX_MESSAGES:
                raise FrameError(f"more than {_MAX_MESSAGES:,} messages")
            messages.append(frame.message())
            return False

        result = self.run(job, take)
        return tuple(messages), result

    def _send(self, job: Job, folder: Path, pipes: Pipes, far: list[int]) -> None:
        """Send a job to the fork server, or to one in a sandbox of its own; adds the files' descriptors to ``far``."""
        source = folder / SOURCE_FILE
        source.write_bytes(job.source.encode("utf-8", "surrogatepass"))
        # The user inside a sandbox is another one.
        source.chmod(0o444)
        if job.isolation is Isolation.SANDBOX:
            sandbox = make_sandbox(source, job.files, cuda=job.cuda)
            pipes.sandbox = start_server(self._preload, sandbox)
            pipes.sandbox.send(job, str(HOME), far)
            return
        far.extend(os.open(path, os.O_RDONLY) for path in job.files)
        with self._lock:
            try:
                self._connect().send(job, str(folder), far)
            except OSError:
                # The server died since the last job: a new one takes the order.
                self._disconnect()
                self._connect().send(job, str(folder), far)

    def _connect(self) -> ServerProcess:
        if self._server is None or self._server.process.poll() is not None:
            self._disconnect()
            self._server = start_server(self._preload)
        return self._server

    def _disconnect(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None


def _cannot_start(error: OSError) -> NngenError:
    where = f" ({error.filename})" if error.filename else ""
    return NngenError(f"a worker cannot be started: {error.strerror or error}{where}")
