"""The process between server and worker: it outlives the candidate and leaves nothing of it behind.

It waits for the worker's end or the judge's word, whichever comes first. The judge's word is the end of
a pipe: when the judge closes it, or dies, the pipe ends. Then the nanny kills every descendant (orphans
too: it is their reaper), removes the scratch folder, tells how the worker ended, and goes.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import struct
import sys
import traceback
from contextlib import suppress
from typing import Any

import psutil

__all__ = ["BORN", "ENDED", "main"]

BORN = struct.Struct("<i")
"""First word on the status pipe: the nanny's process id."""

ENDED = struct.Struct("<i")
"""Last word: the worker's wait status, as ``os.waitpid`` gives it."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_CHANNELS = 4


def main(job: dict[str, Any], descriptors: list[int]) -> None:
    """Run one job to its end.

    Args:
        job: ``folder`` is the scratch folder; the worker reads the rest.
        descriptors: Status pipe, lifeline, result pipe, output pipe, then the job's data files.
    """
    status, lifeline, result, output = descriptors[:_CHANNELS]
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.setsid()
    worker = os.fork()
    if worker == 0:
        code = 1
        try:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            os.setsid()
            os.close(status)
            os.close(lifeline)
            _redirect(output)
            code = _work(job, result, descriptors[_CHANNELS:])
        except BaseException:
            # A fault of ours, since the candidate's have become verdicts by now; the judge keeps what it prints.
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            # No exit handlers: a candidate may have registered some.
            os._exit(code)
    for number in (result, output, *descriptors[_CHANNELS:]):
        os.close(number)
    os.write(status, BORN.pack(os.getpid()))
    ended = _wait(worker, lifeline)
    _end_all(job["folder"])
    os.write(status, ENDED.pack(ended))


def _work(job: dict[str, Any], result: int, files: list[int]) -> int:
    from nngen.training.worker import run

    return run(job, result, files)


def _redirect(output: int) -> None:
    """Point the three standard streams away from the server's: input to nothing, output to the judge."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(nothing)
    os.close(output)
    # The old objects think of what was there before: a file that can be sought.
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _wait(worker: int, lifeline: int) -> int:
    """Wait for the worker or the judge, kill the worker if it still runs, and return its wait status."""
    handle = os.pidfd_open(worker)
    select.select([handle, lifeline], [], [])
    os.close(handle)
    with suppress(ProcessLookupError):
        os.kill(worker, signal.SIGKILL)
    return os.waitpid(worker, 0)[1]


def _end_all(folder: str) -> None:
    """Kill every descendant and remove the scratch folder.

    A killed parent's children become ours, so it takes rounds; a fork bomb loses, because each round
    kills faster than the dying can fork.
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
