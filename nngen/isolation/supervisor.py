"""The supervisor: the process between fork server and worker, which outlives the worker and leaves nothing of it.

It waits for the end of the worker or of its control socket, which the launching process shuts down to end the job, and
which ends with that process. Then the supervisor kills every descendant (orphans too, since it adopts them), removes
the scratch folder, reports how the worker ended, and ends itself.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress

import psutil

from nngen.isolation.job import Job
from nngen.isolation.limits import Isolation, ProcessOption, set_limits, set_option
from nngen.isolation.protocol import Channel
from nngen.isolation.seccomp import filter_calls

STARTED = b"started"
"""First report on the control socket; the kernel adds the supervisor's process number."""

ENDED = struct.Struct("<i")
"""Last report: the worker's wait status, as ``os.waitpid`` gives it."""

_FOLDERS = ("HOME", "TMPDIR", "TORCH_HOME", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
"""Variables that name folders to write to; all become the scratch folder."""


def fork_into(call: Callable[[], None]) -> int:
    """Fork a child that makes a call and ends, with exit code 0 if the call returned; return its process number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        call()
        code = 0
    except BaseException:
        # A fault of this package: a candidate's have become verdicts by now. The monitor keeps what a worker prints.
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        # Whatever happened, the child must not return into the parent's code, nor run exit handlers: a candidate may
        # have registered some.
        os._exit(code)


def supervise(job: Job, folder: str, address_space: int, descriptors: list[int]) -> None:
    """Run one job to its end.

    Args:
        job: The function to call, and the limits.
        folder: The worker's scratch folder.
        address_space: Bytes of address space that the server took before any job.
        descriptors: Control socket, result pipe, output pipe, then the job's data files.
    """
    control = socket.socket(fileno=descriptors[0])
    result, output, *files = descriptors[1:]
    set_option(ProcessOption.CHILD_SUBREAPER, 1)
    # A session of its own: a signal to the process group of the server, or of the worker, does not reach this process.
    os.setsid()

    def work() -> None:
        set_option(ProcessOption.PARENT_DEATH_SIGNAL, signal.SIGKILL)
        set_option(ProcessOption.DUMPABLE, 1)
        os.setsid()
        # The supervisor's alone: a candidate could forge its reports.
        control.close()
        _redirect(output)
        _work(job, folder, address_space, Channel(result), files)

    worker = fork_into(work)
    # The worker's ends: a pipe that stays open here would never end for the monitor.
    for number in descriptors[1:]:
        os.close(number)
    # Where the launching process has ended, nobody reads the reports.
    with suppress(OSError):
        control.send(STARTED)
    # A descriptor that becomes readable when the worker ends, so that one call waits for both.
    select.select([os.pidfd_open(worker), control.fileno()], [], [])
    with suppress(ProcessLookupError):
        os.kill(worker, signal.SIGKILL)
    status = os.waitpid(worker, 0)[1]
    if job.isolation is not Isolation.SANDBOX:
        # The launching process ends a sandbox as a whole.
        _end_all()
        shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        control.send(ENDED.pack(status))
    # Not closed here but by the kernel: its end means that this process, too, is gone.
    control.detach()


def _work(job: Job, folder: str, address_space: int, channel: Channel, files: list[int]) -> None:
    """Prepare the worker's process, then call the job's function."""
    os.chdir(folder)
    os.environ.update(dict.fromkeys(_FOLDERS, folder))
    tempfile.tempdir = folder
    if not job.cuda or job.card:
        # Some families use a card whenever they see one.
        os.environ["CUDA_VISIBLE_DEVICES"] = job.card if job.cuda else ""
    # Prints the Python traceback where a signal kills the worker, so that a crash can be traced to its line.
    faulthandler.enable()
    module, _, function = job.entry_point.partition(":")
    call = getattr(importlib.import_module(module), function)
    # After the import, since the limit on address space counts from here, and before any code of the candidate.
    sandboxed = job.isolation is Isolation.SANDBOX
    if job.isolation is not Isolation.NONE:
        set_limits(job.limits, address_space, cuda=job.cuda, sandboxed=sandboxed)
    if job.isolation is Isolation.PROCESS and not job.cuda:
        # In a sandbox the server has done so, and ended where it could not. Which calls the driver of a card makes has
        # not been measured.
        with suppress(OSError):
            filter_calls(cuda=False)
    call(job.arguments, channel, files)


def _redirect(output: int) -> None:
    """Point the three standard streams away from the server's: input to nothing, output to the job's pipe."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(nothing)
    os.close(output)
    # The old objects were made for other files, which could be sought.
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _end_all() -> None:
    """Kill every descendant.

    Children of a killed process become children of this one, so it takes rounds. All are suspended before the first is
    killed, so that a fork bomb cannot fork faster than it dies.
    """
    me = psutil.Process()
    while family := me.children(recursive=True):
        for act in (psutil.Process.suspend, psutil.Process.kill):
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    act(process)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
