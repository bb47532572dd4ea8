"""Level ``sandbox``: each candidate in a bubblewrap of its own, with a server of its own inside.

The warm server cannot be forked into other namespaces and stay warm for the next candidate without sharing
them with it. So torch is loaded anew for each candidate, before its clock starts: about the time of ``import torch``.

Inside there is no network, no process of the machine's, no environment, and no file but Python, its packages,
this package, the candidate and the images. Only two small folders in memory can be written.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import select
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

import nngen
from nngen.errors import UsageError

__all__ = ["HOME", "Sandbox", "start_sandbox"]

HOME = Path("/tmp")  # noqa: S108 - the sandbox's own
"""The candidate's folder, as it is called inside."""

_START_S = 180.0
_MIB = 2**20
_SCRATCH_MIB = 256
_SHARED_MIB = 256
_MAX_GREETING = 65_536
_USERS = range(61_184, 65_280)
"""Numbers that no account has: root's sandboxes take one each, since a limit on processes does not hold root."""

_TURN = itertools.count()

_KEPT = ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "LANG")
_SYSTEM = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib")
_SETTINGS = ("/etc/ld.so.cache", "/etc/alternatives", "/sys/devices/system")
_CARDS = ("nvidia*", "dxg", "kfd", "dri")
_START = (
    "import sys; sys.path[:] = {path!r}; from nngen.isolation.fork_server import main_inside;"
    " main_inside({descriptor}, {user}, {files})"
)


@dataclass(slots=True)
class Sandbox:
    """One bubblewrap that runs.

    Attributes:
        connection: To the server inside.
        versions: Of Python, torch, ..., as the server found them.
    """

    connection: socket.socket
    versions: Mapping[str, str]
    _process: subprocess.Popen[bytes]
    _first: psutil.Process | None = None

    def find(self, inner: int) -> psutil.Process:
        """Find a process by the number that it has inside.

        Raises:
            psutil.NoSuchProcess: If there is none.
        """
        for process in psutil.Process(self._process.pid).children(recursive=True):
            with suppress(OSError, psutil.Error):
                for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                    if line.startswith("NSpid:") and int(line.split()[-1]) == inner:
                        return process
        raise psutil.NoSuchProcess(inner)

    def kill(self) -> None:
        """Kill everything inside at once: with the first process of a name space, the kernel ends all others."""
        self.connection.close()
        with suppress(psutil.Error):
            if self._first is not None:
                self._first.kill()
                return
        self._process.kill()

    def close(self) -> None:
        """Kill it and wait until nothing is left."""
        self.kill()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def greet(self) -> None:
        """Wait until the server inside has loaded torch.

        Raises:
            UsageError: If it does not come to that.
        """
        ready, _, _ = select.select([self.connection], [], [], _START_S)
        data = self.connection.recv(_MAX_GREETING) if ready else b""
        if not data:
            self._process.kill()
            _, error = self._process.communicate()
            lines = error.decode(errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"it said nothing for {_START_S:.0f} s"
            raise UsageError(f"the sandbox cannot start, so nothing was run: {reason}")
        self.versions = json.loads(data)
        with suppress(psutil.Error, IndexError):
            self._first = psutil.Process(self._process.pid).children()[0]


def start_sandbox(source: Path, files: Sequence[Path], *, cuda: bool, settings: Mapping[str, str]) -> Sandbox:
    """Start a sandbox around a candidate and wait until torch is loaded in it.

    It dies with the thread that called this.

    Args:
        source: The candidate's file; inside it lies in ``HOME`` under the same name.
        files: Data that the worker reads.
        cuda: Whether the cards are to be seen inside.
        settings: The environment inside.

    Raises:
        UsageError: If bubblewrap is not installed, or cannot work here.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise UsageError(
            "this source was not assembled here and needs a sandbox, which needs bubblewrap: apt-get install bubblewrap"
        )
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with far:
        process = subprocess.Popen(
            [program, *_options(source, files, cuda=cuda, settings=settings), *_command(far.fileno(), len(files))],
            # What bubblewrap itself is given can be read inside.
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[far.fileno()],
            cwd="/",
            start_new_session=True,
        )
    sandbox = Sandbox(connection=near, versions={}, _process=process)
    try:
        sandbox.greet()
    except BaseException:
        sandbox.close()
        raise
    return sandbox


def _command(descriptor: int, files: int) -> list[str]:
    number = (os.getpid() * 31 + next(_TURN)) % len(_USERS)
    user = _USERS[number] if os.geteuid() == 0 else None
    start = _START.format(path=_search_path(), descriptor=descriptor, user=user, files=_names(files))
    return [sys.executable, "-I", "-c", start]


def _names(files: int) -> list[str]:
    return [f"/data/{number}" for number in range(files)]


def _options(source: Path, files: Sequence[Path], *, cuda: bool, settings: Mapping[str, str]) -> Iterator[str]:
    yield from _rights()
    yield from ("--die-with-parent", "--new-session", "--clearenv")
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    inside = {**kept, **settings, "PATH": "/usr/bin:/bin", "HOME": str(HOME), "USER": "nngen"}
    for name, value in inside.items():
        yield from ("--setenv", name, value)
    # Before what is shown read-only, some of which may lie below it: a checkout in /tmp, say.
    yield from _writable(str(HOME), _SCRATCH_MIB)
    yield from _system()
    for name, file in zip(_names(len(files)), files, strict=True):
        yield from ("--ro-bind", str(file), name)
    yield from ("--proc", "/proc", "--dev", "/dev")
    if cuda:
        yield from ("--ro-bind-try", "/sys", "/sys")
        for node in (node for pattern in _CARDS for node in sorted(Path("/dev").glob(pattern))):
            yield from ("--dev-bind", str(node), str(node))
    yield from _writable("/dev/shm", _SHARED_MIB)  # noqa: S108 - the sandbox's own
    yield from ("--ro-bind", str(source), str(HOME / source.name))
    yield from ("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", str(HOME))


def _rights() -> Iterator[str]:
    yield from ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try")
    yield from ("--cap-drop", "ALL")
    if os.geteuid() == 0:
        # Root takes another number inside. In a user name space it would stay root outside, whom no limit holds.
        yield from ("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID")
    else:
        yield from ("--unshare-user", "--disable-userns")


def _writable(folder: str, mib: int) -> Iterator[str]:
    yield from ("--perms", "1777", "--size", str(mib * _MIB), "--tmpfs", folder)


def _system() -> Iterator[str]:
    """Show Python, its packages, the libraries they need, and nothing else of the machine."""
    wanted = dict.fromkeys((*_SYSTEM, *_SETTINGS, *_prefixes(), *_packages(), *_libraries(), str(_package())))
    paths = [Path(path) for path in wanted if Path(path).exists()]
    # What bubblewrap makes by itself on the way, root alone may enter.
    for folder in sorted({parent for path in paths for parent in path.parents} - {Path("/")}):
        yield from ("--perms", "0755", "--dir", str(folder))
    for path in paths:
        yield from ("--ro-bind", str(path), str(path))
    for folder in _answers():
        yield from ("--tmpfs", str(folder))


def _prefixes() -> Iterator[str]:
    for prefix in (sys.base_prefix, sys.prefix):
        # The whole of /usr would hold the data sets that Debian packages.
        yield f"{prefix}/bin" if prefix in ("/usr", "/usr/local") else prefix


def _packages() -> list[str]:
    return [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]


def _libraries() -> list[str]:
    entries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return [entry for entry in entries if entry.startswith("/") and Path(entry) != Path("/")]


def _answers() -> Iterator[Path]:
    """Folders of packages that hold the labels of a data set."""
    found = importlib.util.find_spec("sklearn")
    if found is not None and found.origin is not None:
        folder = Path(found.origin).parent / "datasets" / "data"
        if folder.is_dir():
            yield folder


def _package() -> Path:
    return Path(nngen.__file__).parent


def _search_path() -> list[str]:
    standard = [entry for entry in sys.path if entry.startswith((f"{sys.base_prefix}/", f"{sys.prefix}/"))]
    return [*dict.fromkeys((*standard, *_packages(), str(_package().parent)))]
