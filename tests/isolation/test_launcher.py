"""Starts of servers by programs that only pretend to be one, and the pipes of a job."""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from descriptors import open_descriptors

from nngen.errors import NngenError, UsageError
from nngen.isolation import Job, Limits, launcher
from nngen.isolation.bubblewrap import Sandbox
from nngen.isolation.launcher import Pipes, ServerProcess, receive, start_server

JOB = Job(entry_point="m:f", arguments={}, limits=Limits(time_limit_s=1.0, memory_mib=100))
SERVER = """
import json, os, re, socket, sys
if os.fork():
    os.wait()
    os._exit(0)
arguments = sys.argv[2:]
number = int(re.search("serve.([0-9]+),", arguments[-1]).group(1))
session = os.getsid(0) == os.getppid()
facts = [arguments, dict(os.environ), os.getcwd(), os.readlink("/proc/self/fd/0"), session]
open(sys.argv[1], "w").write(json.dumps(facts))
connection = socket.socket(fileno=number)
connection.send(b'{"python": "3", "torch": "2"}')
order, descriptors, _, _ = socket.recv_fds(connection, 65536, 16)
os.write(descriptors[0], order)
while connection.recv(10):
    pass
"""


def sandbox(*command):
    """A sandbox of a command, which gets Python's arguments at its end."""
    return Sandbox(
        command=command,
        environment={"PATH": "/inside", "USER": "nngen"},
        search_path=["/p"],
        user=5,
        files=["/data/0"],
        cuda=True,
    )


def test_a_server_is_started_with_its_settings_and_gets_orders(tmp_path, monkeypatch):
    (tmp_path / "server.py").write_text(SERVER)
    monkeypatch.setenv("LANG", "xx")
    monkeypatch.setenv("SECRET", "token")
    for name in ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME"):
        monkeypatch.delenv(name, raising=False)
    facts = tmp_path / "facts"
    server = start_server(["torch"], sandbox(sys.executable, str(tmp_path / "server.py"), str(facts)))
    try:
        arguments, environment, folder, stdin, session = json.loads(facts.read_text())
        assert arguments[:-1] == ["-s", "-P", "-c"]
        number = arguments[-1].split("serve(")[1].split(",")[0]
        assert arguments[-1] == (
            "import sys; sys.path[:] = ['/p']; from nngen.isolation.fork_server import serve;"
            f" serve({number}, ['torch'], sandboxed=True, user=5, paths=['/data/0'], cuda=True)"
        )
        environment = {name: value for name, value in environment.items() if name != "LC_CTYPE"}
        assert environment == {"LANG": "xx", **launcher._ENVIRONMENT, "PATH": "/inside", "USER": "nngen"}
        assert (folder, stdin, session) == ("/", "/dev/null", True)
        assert server.versions == {"python": "3", "torch": "2"}
        [inside] = psutil.Process(server.process.pid).children()
        assert server.init == inside
        assert server.address_space == pytest.approx(inside.memory_info().vms, rel=0.2)
        assert Path(f"/proc/{inside.pid}/oom_score_adj").read_text() == "1000\n"
        reader, writer = os.pipe()
        server.send(JOB, "/folder", [writer])
        os.close(writer)
        [fields, place, space] = json.loads(os.read(reader, 65_536))
        os.close(reader)
        assert (fields["entry_point"], place, space) == ("m:f", "/folder", server.address_space)
    finally:
        server.close()
    assert server.process.returncode == 0  # it ended because the connection did
    assert server.connection.fileno() == -1


@pytest.mark.long
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 3", "it ended with code 3"),
        ("exit 136", "it ended with code 136"),
        ("echo one >&2; echo two >&2; exit 3", "two"),
        ("echo; exit 0", "it ended with code 0"),
    ],
)
def test_a_server_that_does_not_start_is_one_line(script, reason, monkeypatch):
    opened = open_descriptors()
    with pytest.raises(UsageError, match=f"^the sandbox cannot start, so nothing was run: {reason}$"):
        start_server([], sandbox("/bin/sh", "-c", script))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(NngenError, match=r"^the worker process cannot start: it ended with code 1$"):
        start_server([])
    assert open_descriptors() <= opened
    assert [child for child in psutil.Process().children() if child.name() in ("sh", "false")] == []


@pytest.mark.parametrize("end", ["kill -9 $$", "exit 137"])
def test_a_server_that_is_killed_is_started_three_times(end, tmp_path):
    with pytest.raises(
        NngenError,
        match=r"^the worker process cannot start: it was killed \(SIGKILL\): does the memory suffice\?$",
    ):
        start_server([], sandbox("/bin/sh", "-c", f"echo >> {tmp_path}/starts; {end}"))
    assert (tmp_path / "starts").read_text() == "\n\n\n"


def test_a_server_that_does_not_answer_is_killed(monkeypatch):
    """After three minutes, which the test does not wait."""
    waited = []
    poll = SimpleNamespace(register=lambda *_: None, poll=lambda limit: waited.append(limit) or [])
    monkeypatch.setattr(select, "poll", lambda: poll)
    with pytest.raises(UsageError, match=r"nothing was run: no answer for 180 s$"):
        start_server([], sandbox("/bin/sh", "-c", "exec /bin/sleep 60"))
    assert waited == [180_000]


def test_a_sandbox_that_ends_while_it_starts_is_one_line(tmp_path):
    """The program around it greets, and has no child."""
    (tmp_path / "server.py").write_text(SERVER.replace("if os.fork():", "if False:"))
    program = sandbox(sys.executable, str(tmp_path / "server.py"), str(tmp_path / "facts"))
    with pytest.raises(NngenError, match=r"^the worker process ended while it started: try again$"):
        start_server([], program)


def server(process, connection, init=None):
    return ServerProcess(process=process, connection=connection, versions={}, address_space=0, init=init)


def test_a_server_is_waited_for_and_killed_where_it_does_not_end(monkeypatch):
    near, far = socket.socketpair()
    with subprocess.Popen(["/bin/cat"], stdin=far, stdout=subprocess.DEVNULL) as process:
        far.close()
        server(process, near).close()
        assert process.returncode == 0
    near, far = socket.socketpair()
    monkeypatch.setattr(launcher, "_CLOSE_S", 0.05)
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        server(process, near).close()
        assert process.returncode == -9
        assert far.recv(10) == b""
    far.close()


def test_killing_a_sandbox_kills_its_first_process_or_what_is_around_it():
    for first in ("living", "ended", "none"):
        near, far = socket.socketpair()
        with subprocess.Popen(["/bin/sleep", "60"]) as outer, subprocess.Popen(["/bin/sleep", "60"]) as inner:
            init = None if first == "none" else psutil.Process(inner.pid)
            if first == "ended":
                inner.kill()
                inner.wait()
            server(outer, near, init).kill()
            assert near.fileno() == -1
            if first == "living":
                assert inner.wait() == -9
                assert outer.poll() is None
                outer.kill()
            else:
                assert outer.wait() == -9
                inner.kill()
        far.close()


@pytest.mark.long
def test_pipes_lead_to_the_descriptors_of_the_worker():
    opened = open_descriptors()
    pipes, far = Pipes.open()
    control, result, output = far
    for writer, reader in [(result, pipes.result), (output, pipes.output)]:
        os.write(writer, b"data")
        os.close(writer)
        assert [os.read(reader, 10), os.read(reader, 10)] == [b"data", b""]
    other = socket.socket(fileno=control)
    other.send(b"started")
    assert receive(pipes.control, 10) == (b"started", os.getpid())
    pipes.kill()
    pipes.kill()
    assert other.recv(10) == b""
    other.send(b"ended")  # reports still arrive
    assert receive(pipes.control, 10) == (b"ended", os.getpid())
    other.close()
    assert receive(pipes.control, 10) == (b"", 0)
    pipes.close()
    assert pipes.control.fileno() == -1
    assert open_descriptors() <= opened


def test_the_pipes_of_a_sandbox_end_it():
    pipes, far = Pipes.open()
    done = []
    pipes.sandbox = SimpleNamespace(kill=lambda: done.append("kill"), close=lambda: done.append("close"))
    pipes.kill()
    assert done == ["kill"]
    pipes.close()
    assert done == ["kill", "kill", "close"]
    for number in far:
        os.close(number)


@pytest.mark.long
def test_pipes_that_cannot_all_be_opened_leave_none_open(monkeypatch):
    opened, pipe, calls = open_descriptors(), os.pipe, []

    def once():
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.EMFILE, "Too many open files")
        return pipe()

    monkeypatch.setattr(os, "pipe", once)
    with pytest.raises(OSError, match="Too many"):
        Pipes.open()
    assert open_descriptors() <= opened
