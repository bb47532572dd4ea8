"""The supervisor: the process between fork server and worker, which outlives the worker and leaves nothing of it.

It waits for the end of the worker or of the lifeline, a pipe that the launching process holds open: when that process
closes it, or dies, the pipe ends. Then the supervisor kills every descendant (orphans too, since it adopts them),
removes the scratch folder, reports how the worker ended, and ends itself.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import select
import shutil
import signal
import struct
import sys
import tempfile
import traceback
from contextlib import suppress

import psutil

from nngen.isolation.job import Job
from nngen.isolation.limits import Isolation, adopt_orphans, die_with_parent, set_limits
from nngen.isolation.protocol import Channel

STARTED = struct.Struct("<i")
"""First report on the status pipe: the supervisor's process number."""

ENDED = struct.Struct("<i")
"""Last report: the worker's wait status, as ``os.waitpid`` gives it."""

_PIPES = 4
_FOLDERS = ("HOME", "TMPDIR", "TORCH_HOME", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
"""Variables that name folders to write to; all become the scratch folder."""


def supervise(job: Job, folder: str, descriptors: list[int]) -> None:
    """Run one job to its end.

    Args:
        job: The function to call, and the limits.
        folder: The worker's scratch folder.
        descriptors: Status pipe, lifeline, result pipe, output pipe, then the job's data files.
    """
    status, lifeline, result, output = descriptors[:_PIPES]
    files = descriptors[_PIPES:]
    adopt_orphans()
    # A session of its own: a signal to the process group of the server, or of the worker, does not reach this process.
    os.setsid()
    worker = os.fork()
    if worker == 0:
        code = 1
        try:
            die_with_parent()
            os.setsid()
            # The supervisor's alone: a candidate could forge its reports.
            os.close(status)
            os.close(lifeline)
            _redirect(output)
            _work(job, folder, Channel(result), files)
            code = 0
        except BaseException:
            # A fault of this package: a candidate's have become verdicts by now. The monitor keeps what it prints.
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            # Without exit handlers: a candidate may have registered some.
            os._exit(code)
    # The worker's ends: a pipe that stays open here would never end for the monitor.
    for number in (result, output, *files):
        os.close(number)
    os.write(status, STARTED.pack(os.getpid()))
    ended = _wait(worker, lifeline)
    _end_all(folder)
    os.write(status, ENDED.pack(ended))


def _work(job: Job, folder: str, channel: Channel, files: list[int]) -> None:
    """Prepare the worker's process, then call the job's function."""
    os.chdir(folder)
    for name in _FOLDERS:
        os.environ[name] = folder
    tempfile.tempdir = folder
    if not job.cuda:
        # Some families use a card whenever they see one.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    # Prints the Python traceback where a signal kills the worker, so that a crash can be traced to its line.
    faulthandler.enable()
    module, _, function = job.entry_point.partition(":")
    call = getattr(importlib.import_module(module), function)
    # After the import, since the limit on address space counts from here, and before any code of the candidate.
    if job.isolation is not Isolation.NONE:
        set_limits(job.limits, cuda=job.cuda, sandboxed=job.isolation is Isolation.SANDBOX)
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


def _wait(worker: int, lifeline: int) -> int:
    """Wait for the end of the worker or of the lifeline, kill the worker, and return its wait status."""
    # A descriptor that becomes readable when the worker ends, so that one call waits for both.
    handle = os.pidfd_open(worker)
    select.select([handle, lifeline], [], [])
    os.close(handle)
    with suppress(ProcessLookupError):
        os.kill(worker, signal.SIGKILL)
    return os.waitpid(worker, 0)[1]


def _end_all(folder: str) -> None:
    """Kill every descendant and remove the scratch folder.

    Children of a killed process become children of this one, so it takes rounds. All are suspended before the first is
    killed, so that a fork bomb cannot fork faster than it dies.
    """
    me = psutil.Process()
    while family := me.children(recursive=True):
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    shutil.rmtree(folder, ignore_errors=True)
