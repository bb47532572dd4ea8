"""State of a worker, of its supervisor and of its server, as the worker finds it."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nngen.isolation import Isolation, Job, JobRunner, Limits, bubblewrap
from nngen.isolation.mounts import machine_mounts
from nngen.isolation.supervisor import fork_into

LIMITS = Limits(time_limit_s=60.0, memory_mib=500)
ENTRIES = """
import ctypes, faulthandler, gc, os, resource, signal, sys, tempfile, time, weakref

class Node:
    pass

gc.disable()
node = Node()
node.own = node
garbage = weakref.ref(node)
del node
folder = os.getcwd()

def option(number):
    value = ctypes.c_int()
    ctypes.CDLL(None).prctl(number, ctypes.byref(value), 0, 0, 0)
    return value.value

def flag(number):
    return ctypes.CDLL(None).prctl(number, *map(ctypes.c_ulong, (0, 0, 0, 0)))

def opened(process, wanted):
    # Others close theirs while this process runs.
    end = time.monotonic() + 20
    while True:
        try:
            found = len(os.listdir(f"/proc/{process}/fd"))
        except PermissionError:
            return "hidden"
        if found == wanted or time.monotonic() > end:
            return found
        time.sleep(0.01)

def look(arguments, channel, files):
    here, supervisor = os.getcwd(), os.getppid()
    channel.send({
        "server's folder": folder,
        "folder": sorted(os.listdir(here)),
        "source": [oct(os.stat("candidate.py").st_mode), open("candidate.py", "rb").read().decode("latin-1")],
        "variables": {n: "HERE" if v == here else v for n, v in os.environ.items() if n != "LC_CTYPE"},
        "temporary": tempfile.gettempdir() == here,
        "leader": [os.getsid(0) == os.getpid(), os.getsid(supervisor) == supervisor],
        "death signal": option(2),
        "dumpable": flag(3),
        "no new privileges": flag(39),
        "filter": flag(21),
        "subreaper": option(37),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "faulthandler": faulthandler.is_enabled(),
        "garbage": garbage() is not None,
        "frozen": gc.get_freeze_count() > 1000,
        "signals": [signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL, list(signal.pthread_sigmask(0, []))],
        "streams": [
            [s.fileno(), s.encoding, s.errors, s.line_buffering] for s in (sys.stdout, sys.stderr)
        ],
        "input": sys.stdin.read(),
        "flags": [sys.flags.no_user_site, sys.flags.safe_path],
        "files": [os.read(file, 100).decode() for file in files],
        "user": [os.getresuid(), os.getresgid(), os.getgroups()],
    })
    os.write(1, b"one ")
    os.write(2, b"two")

def count(arguments, channel, files):
    supervisor = os.getppid()
    server = int(open(f"/proc/{supervisor}/stat").read().rpartition(")")[2].split()[1])
    memory = open(f"/proc/{server}/oom_score_adj").read().strip()
    channel.send({
        "worker": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1],
        "supervisor": opened(supervisor, arguments["supervisor"]),
        "server": opened(server, arguments["server"]),
        "killed first": memory,
    })
"""
VARIABLES = {
    "OMP_NUM_THREADS": "1",
    "GOMP_SPINCOUNT": "3000",
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    "CUDA_VISIBLE_DEVICES": "",
    **dict.fromkeys(
        ("HOME", "TMPDIR", "TORCH_HOME", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"), "HERE"
    ),
}
ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modules")
    (folder / "facts.py").write_text(ENTRIES)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PATH", "/usr/bin:/bin")
        patch.setenv("SECRET", "token")
        for name in ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME"):
            patch.delenv(name, raising=False)
        patch.setenv("LANG", "C.UTF-8")
        with JobRunner(preload=("facts",)) as runner:
            runner.versions()
            yield runner


@pytest.fixture
def shown(runner, monkeypatch):
    """Show the module of the entries in a sandbox, too."""
    mounts, module = machine_mounts(), next(Path(folder, "facts.py") for folder in sys.path if "modules" in folder)
    more = replace(mounts, folders=[*mounts.folders, (Path("/packages/facts.py"), module)])
    monkeypatch.setattr(bubblewrap, "machine_mounts", lambda: more)


def job(function="look", **changes):
    return Job(**{"entry_point": f"facts:{function}", "arguments": {}, "limits": LIMITS, **changes})


def facts(**changes):
    """Return what a worker of level ``process`` sees, with changes."""
    own = [list(os.getresuid()), list(os.getresgid()), os.getgroups()]
    stream = ["utf-8", "backslashreplace"]
    return {
        "server's folder": "/",
        "folder": ["candidate.py"],
        "source": ["0o100444", "x = '\xed\xa0\x80'"],
        "variables": {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **VARIABLES},
        "temporary": True,
        "leader": [True, True],
        "death signal": signal.SIGKILL,
        "dumpable": 1,
        "no new privileges": 1,
        "filter": 2,
        "subreaper": 0,
        "core": [0, 0],
        "faulthandler": True,
        "garbage": False,
        "frozen": True,
        "signals": [True, []],
        "streams": [[1, *stream, False], [2, *stream, True]],
        "input": "",
        "flags": [1, True],
        "files": ["data", "more"],
        "user": own,
        **changes,
    }


@pytest.fixture
def asked(tmp_path):
    """Settings of a job with a surrogate in its source and two data files."""
    (tmp_path / "data").write_text("data")
    (tmp_path / "more").write_text("more")
    return {"source": "x = '\ud800'", "files": [tmp_path / "data", tmp_path / "more"]}


def test_a_worker_finds_nothing_of_the_machine_but_its_folder(runner, asked):
    messages, result = runner.collect(job(**asked))
    assert messages == (facts(),)
    assert (result.completed, result.output) == (True, b"one two")


@pytest.mark.parametrize("changes", [{"isolation": Isolation.NONE}, {"cuda": True, "card": "GPU-b"}])
def test_without_isolation_or_with_a_card_there_is_no_filter(changes, runner, asked):
    [found], _ = runner.collect(job(**asked, **changes))
    variables = {**VARIABLES, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    core = list(resource.getrlimit(resource.RLIMIT_CORE))
    expected = facts(**{"no new privileges": 0, "filter": 0})
    if "cuda" in changes:
        expected["variables"] = {**variables, "CUDA_VISIBLE_DEVICES": "GPU-b"}
    else:
        expected["core"] = core
    assert found == expected


def test_a_worker_in_a_sandbox_is_another_user_without_groups(runner, asked, shown):
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    messages, result = runner.collect(job(**asked, isolation=Isolation.SANDBOX))
    assert messages, result.describe()
    [found] = messages
    user, group, groups = found.pop("user")
    expected = facts(**{"server's folder": "/tmp"})
    del expected["user"]
    if ROOT:
        assert len({*user, *group}) == 1
        assert 61_184 <= user[0] < 65_280
        assert groups == []
    variables = expected["variables"]
    variables |= {"USER": "nngen", "CUDA_HOME": "", "LD_LIBRARY_PATH": found["variables"]["LD_LIBRARY_PATH"]}
    del found["variables"]["PWD"]  # bubblewrap's
    assert found == expected


def test_descriptors_are_closed_where_nobody_needs_them(runner, asked):
    """The worker keeps its streams, the result pipe and its files; the others cannot be looked into but by root."""
    wanted = {"supervisor": 5, "server": 4}  # streams; control socket and the worker's end; socket for orders
    for _ in range(2):
        [found], _ = runner.collect(job("count", arguments=wanted, files=asked["files"]))
        assert len(found["worker"]) == 6
        others = (found["supervisor"], found["server"])
        assert others == ((5, 4) if ROOT else ("hidden", "hidden"))
        assert found["killed first"] == "1000"


@pytest.mark.parametrize(("fails", "code"), [(False, 0), (True, 1)])
def test_a_forked_call_ends_with_its_process_and_prints_its_fault(fails, code, capfd, tmp_path):
    def call():
        (tmp_path / "called").write_text("")
        if fails:
            raise LookupError("lost")

    child = fork_into(call)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code
    assert (tmp_path / "called").exists()
    lines = capfd.readouterr().err.splitlines()
    assert lines[-1:] == (["LookupError: lost"] if fails else [])


def test_a_server_reports_the_version_of_python(runner):
    assert dict(runner.versions()) == {"python": platform.python_version()}
