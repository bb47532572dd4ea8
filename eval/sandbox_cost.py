"""Time that a sandbox adds to a candidate.

    python eval/sandbox_cost.py [--pairs 40] [--write]

A fork server without modules is started at level ``process`` and in a sandbox, in turn, with three images' files beside
the candidate; each greets as soon as it could take a job. What a candidate imports costs the same at both levels and
is left out. A sandbox may add 120 ms: the median of the differences counts, otherwise the exit code is 1. The filter of
system calls is timed alone, in processes that end after it. ``--write`` writes ``eval/results/sandbox_cost.md``.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from _page import Evaluation, note, table

from nngen.isolation.bubblewrap import make_sandbox
from nngen.isolation.launcher import start_server
from nngen.isolation.seccomp import filter_calls, join_empty_keyring

MOST_MS = 120.0
FILES = ("train", "validation", "test")
EVALUATION = Evaluation(__file__, __doc__)


def start_ms(folder: Path, *, sandboxed: bool) -> float:
    """Start a server, wait for its greeting and end it; return the milliseconds until the greeting."""
    before = time.perf_counter()
    sandbox = (
        make_sandbox(folder / "candidate.py", [folder / name for name in FILES], cuda=False) if sandboxed else None
    )
    server = start_server([], sandbox)
    after = time.perf_counter()
    server.close()
    return 1000 * (after - before)


def filter_ms() -> float:
    """Return the milliseconds that the filter and the empty keyring take in a process of their own."""

    def install(end: Connection) -> None:
        before = time.perf_counter()
        join_empty_keyring()
        filter_calls(cuda=False)
        end.send(1000 * (time.perf_counter() - before))

    context = multiprocessing.get_context("fork")
    near, far = context.Pipe()
    process = context.Process(target=install, args=(far,))
    process.start()
    taken: float = near.recv()
    process.join()
    return taken


def main(argv: Sequence[str] | None = None) -> int:
    """Time the pairs and print their medians; return 1 where a sandbox costs too much."""
    given = EVALUATION.arguments(argv, pairs=40)
    times: dict[bool, list[float]] = {False: [], True: []}
    filters = [filter_ms() for _ in range(given.pairs)]
    with tempfile.TemporaryDirectory(prefix="nngen-sandbox-") as name:
        folder = Path(name)
        for file in ("candidate.py", *FILES):
            (folder / file).touch()
        for pair in range(-2, given.pairs):
            # The order alternates, so that a slow drift of the machine favours neither side.
            for sandboxed in (False, True) if pair % 2 else (True, False):
                taken = start_ms(folder, sandboxed=sandboxed)
                if pair >= 0:  # the first two find the mounts and warm the page cache
                    times[sandboxed].append(taken)
            note(f"pair {pair + 1} of {given.pairs}")
    added = [inside - outside for outside, inside in zip(times[False], times[True], strict=True)]
    rows = [
        (what, f"{statistics.median(found):.1f}", f"{statistics.quantiles(found, n=10)[-1]:.1f}")
        for what, found in (
            ("start at level `process`", times[False]),
            ("start in a sandbox", times[True]),
            ("difference", added),
            ("filter of system calls and empty keyring, of it", filters),
        )
    ]
    about = f"Cores: {len(os.sched_getaffinity(0))}. {given.pairs} pairs; modules of the candidate are not counted."
    head = ("milliseconds", "median", "90th percentile")
    end = f"A sandbox adds {statistics.median(added):.0f} ms to a candidate (median; at most {MOST_MS:.0f} are wanted)."
    page = EVALUATION.page("Time that a sandbox adds to a candidate", about, table(head, rows, right=head[1:]), end)
    return EVALUATION.finish(page, good=statistics.median(added) <= MOST_MS)


if __name__ == "__main__":
    sys.exit(main())
