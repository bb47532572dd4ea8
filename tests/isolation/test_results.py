"""Ends of jobs in words, orders on their way to the fork server, and limits that the kernel enforces."""

from __future__ import annotations

import json
import math
import os
import resource
from dataclasses import replace

import pytest

from nngen.errors import UsageError
from nngen.isolation.job import MAX_ORDER, Job, decode_order, encode_order
from nngen.isolation.limits import MAX_PROCESSES, MIB, Isolation, Limits, set_limits
from nngen.isolation.result import ExitReason, JobResult

LIMITS = Limits(time_limit_s=2.5, memory_mib=1000)
ENDED = JobResult(reason=ExitReason.EXIT, limits=LIMITS, status=0, seconds=1.0, peak_mib=1234.6, output=b"")
EXIT_3 = 3 << 8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reason": ExitReason.TIME}, "ran longer than 2.5 s and was ended"),
        ({"reason": ExitReason.MEMORY}, "used 1,235 MiB, more than the limit of 1,000 MiB"),
        ({"reason": ExitReason.PROCESSES}, f"started more than {MAX_PROCESSES} processes and was ended"),
        ({"reason": ExitReason.PROTOCOL, "error": "no frame"}, "the worker broke its protocol: no frame"),
        ({"status": None}, "the worker's supervisor was killed or stopped"),
        ({"status": 9}, "the worker was killed by signal SIGKILL, by itself or by the kernel for want of memory"),
        ({"status": 11}, "the worker was killed by signal SIGSEGV"),
        ({"status": 40}, "the worker was killed by signal 40"),
        ({"status": EXIT_3}, "the worker left with exit code 3 before it had finished"),
        (
            {"status": EXIT_3, "output": b"one\ntwo \xff\n\n"},
            "the worker left with exit code 3 before it had finished (its last line: two \N{REPLACEMENT CHARACTER})",
        ),
    ],
)
def test_the_end_of_a_job_is_described(changes, words):
    assert replace(ENDED, **changes).describe() == words
    long = replace(ENDED, status=EXIT_3, output=b"x" * 300)
    assert long.describe().endswith(f"(its last line: {'x' * 200})")


def test_jobs_that_completed_and_jobs_that_somebody_killed():
    cases = [
        (ExitReason.EXIT, 0, True, False),
        (ExitReason.EXIT, EXIT_3, False, False),
        (ExitReason.EXIT, 9, False, True),
        (ExitReason.EXIT, 11, False, False),
        (ExitReason.EXIT, None, False, True),
        (ExitReason.DONE, 9, True, False),
        (ExitReason.TIME, 9, False, False),
        (ExitReason.MEMORY, None, False, False),
        (ExitReason.TIME, 0, False, False),
    ]
    for reason, status, completed, killed in cases:
        found = replace(ENDED, reason=reason, status=status)
        assert (found.completed, found.killed) == (completed, killed), (reason, status)


def test_the_line_of_a_crash_is_the_innermost_of_the_file():
    text = (
        'File "candidate.py", line 1 in before\nFatal Python error: Segmentation fault\n'
        '  File "torch.py", line 5 in f\n  File "/s/candidate.py", line 7 in g\n  File "/s/candidate.py", line 9 in h\n'
    )
    assert replace(ENDED, output=text.encode()).crash_line("candidate.py") == 7
    assert replace(ENDED, output=text.encode()).crash_line("other.py") is None
    assert replace(ENDED, output=b'File "candidate.py", line 1 in f').crash_line("candidate.py") is None
    for before in ("", "x"):
        alone = f'{before}Fatal Python error: Aborted\n  File "candidate.py", line 4 in f\n'
        assert replace(ENDED, output=alone.encode()).crash_line("candidate.py") == 4


def test_an_order_arrives_as_it_was_sent():
    job = Job(
        entry_point="module:function",
        arguments={"a": [1, "x"]},
        limits=LIMITS,
        isolation=Isolation.SANDBOX,
        cuda=True,
        card="1",
    )
    assert decode_order(encode_order(job, "/folder", 2**40)) == (job, "/folder", 2**40)
    assert decode_order(encode_order(replace(job, source="x", inputs=(3,)), "f", 0))[0] == job


def test_orders_have_a_largest_length():
    empty = Job(entry_point="m:f", arguments={"a": ""}, limits=LIMITS)
    room = MAX_ORDER - len(encode_order(empty, "f", 0))
    assert len(encode_order(replace(empty, arguments={"a": "x" * room}), "f", 0)) == MAX_ORDER
    with pytest.raises(UsageError, match="a job of 65,537 bytes; at most 65,536 are allowed: shorten --prm"):
        encode_order(replace(empty, arguments={"a": "x" * (room + 1)}), "f", 0)


def limited(**options):
    """Return the limits of a child process that was given some, soft and hard, by their names."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        names = ("CORE", "FSIZE", "NOFILE", "CPU", "NPROC", "AS")
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, 2048))
        set_limits(Limits(time_limit_s=options.pop("time_limit_s", 5.5), memory_mib=100), 2**34, **options)
        found = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in names}
        os.write(writer, json.dumps(found).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        found = json.loads(file.read())
    os.waitpid(child, 0)
    return found


def test_limits_are_lowered_for_good():
    cores = os.cpu_count()
    found = limited(cuda=False, sandboxed=True)
    seconds = math.ceil(5.5 * cores) + 10
    expected = {
        "CORE": 0,
        "FSIZE": 64 * MIB,
        "NOFILE": 1024,
        "CPU": seconds,
        "NPROC": 512 + 2 * cores,
        "AS": 2**34 + (100 + 4096) * MIB,
    }
    for name, limit in expected.items():
        soft, hard = found[name]
        before = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1]
        wanted = limit if before == resource.RLIM_INFINITY else min(limit, before)
        assert soft == hard == wanted, name
    outside = limited(cuda=True, sandboxed=False)
    for name in ("NPROC", "AS"):  # a user has other processes; a card's driver reserves more than there is
        assert tuple(outside[name]) == resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
    assert limited(cuda=False, sandboxed=False, time_limit_s=math.inf)["CPU"][0] <= math.ceil(3.2e7 * cores) + 10
