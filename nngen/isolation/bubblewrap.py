"""The bubblewrap sandbox of level ``sandbox``: one for each job, with a fork server of its own inside.

A warm server cannot be forked into other namespaces and stay warm for the next job without sharing them with it. So
the modules are loaded anew for each job, before its clock starts: about the time of ``import torch``.

A job inside has neither network nor environment, sees none of the machine's processes, and of its files only Python,
its packages, this package, the source and the data files. It can write only to two small folders in memory.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from nngen.errors import UsageError
from nngen.isolation.limits import MIB
from nngen.isolation.server_process import PACKAGE, ServerProcess, installed_packages, search_path, start_server

__all__ = ["HOME", "Sandbox", "start_sandbox"]

HOME = Path("/tmp")  # noqa: S108 - the sandbox's own
"""The worker's folder by its name inside."""

_SCRATCH_MIB = 256
_SHARED_MIB = 256
_USERS = range(61_184, 65_280)
"""User ids that no account has. Root's sandboxes take one each, since a limit on processes does not hold root."""

_TURN = itertools.count()

_KEPT = ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "LANG")
_SYSTEM = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib")
_SETTINGS = ("/etc/ld.so.cache", "/etc/alternatives", "/sys/devices/system")
_CARDS = ("nvidia*", "dxg", "kfd", "dri")
_START = (
    "import sys; sys.path[:] = {path!r}; from nngen.isolation.fork_server import serve_inside;"
    " serve_inside({descriptor}, {preload!r}, {user}, {files})"
)


@dataclass(slots=True)
class Sandbox:
    """A bubblewrap that runs, with a fork server inside.

    Attributes:
        server: The bubblewrap process and the connection to the server inside.
    """

    server: ServerProcess
    _init: psutil.Process | None

    def find(self, inner: int) -> psutil.Process:
        """Find a process by its number inside the sandbox.

        Raises:
            psutil.NoSuchProcess: If there is none.
        """
        for process in psutil.Process(self.server.process.pid).children(recursive=True):
            with suppress(OSError, psutil.Error):
                for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                    if line.startswith("NSpid:") and int(line.split()[-1]) == inner:
                        return process
        raise psutil.NoSuchProcess(inner)

    def kill(self) -> None:
        """Kill everything inside at once: with the first process of a PID namespace, the kernel kills all others."""
        self.server.connection.close()
        with suppress(psutil.Error):
            if self._init is not None:
                self._init.kill()
                return
        self.server.process.kill()

    def close(self) -> None:
        """Kill everything inside and wait until nothing is left."""
        self.kill()
        self.server.close()


def start_sandbox(
    source: Path, files: Sequence[Path], *, preload: Sequence[str], cuda: bool, environment: Mapping[str, str]
) -> Sandbox:
    """Start a sandbox around a source and wait until its server has loaded its modules.

    The sandbox ends with the thread that called this function.

    Args:
        source: The source; inside it lies in ``HOME`` under the same name.
        files: Data files that the worker reads.
        preload: Modules that the server loads before it answers.
        cuda: Whether the graphics cards are visible inside.
        environment: Variables to set inside.

    Raises:
        UsageError: If bubblewrap is not installed, or cannot work here.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise UsageError(
            "this source was not assembled here and needs a sandbox, which needs bubblewrap: apt-get install bubblewrap"
        )
    options = [*_options(source, files, cuda=cuda, environment=environment)]
    turn = (os.getpid() * 31 + next(_TURN)) % len(_USERS)
    user = _USERS[turn] if os.geteuid() == 0 else None

    def command(descriptor: int) -> list[str]:
        path, names = search_path(standard_only=True), _names(len(files))
        start = _START.format(path=path, descriptor=descriptor, preload=list(preload), user=user, files=names)
        return [program, *options, sys.executable, "-I", "-c", start]

    # The environment of bubblewrap itself can be read inside, from its entry in /proc: so it is empty.
    server = start_server(
        command, {}, lambda reason: UsageError(f"the sandbox cannot start, so nothing was run: {reason}")
    )
    init = None
    with suppress(psutil.Error, IndexError):
        init = psutil.Process(server.process.pid).children()[0]
    return Sandbox(server, init)


def _names(files: int) -> list[str]:
    return [f"/data/{number}" for number in range(files)]


def _options(source: Path, files: Sequence[Path], *, cuda: bool, environment: Mapping[str, str]) -> Iterator[str]:
    """Yield bubblewrap's options; it carries them out in this order, and a later mount covers an earlier one."""
    yield from ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try")
    yield from ("--cap-drop", "ALL")
    if os.geteuid() == 0:
        # Root takes another number inside. In a user namespace it would stay root outside, whom no limit holds.
        yield from ("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID")
    else:
        yield from ("--unshare-user", "--disable-userns")
    # A new session has no terminal into which characters could be typed (TIOCSTI).
    yield from ("--die-with-parent", "--new-session", "--clearenv")
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    inside = {**kept, **environment, "PATH": "/usr/bin:/bin", "HOME": str(HOME), "USER": "nngen"}
    for name, value in inside.items():
        yield from ("--setenv", name, value)
    # Before what is mounted read-only, some of which may lie below it: a checkout in /tmp, say.
    yield from _writable(str(HOME), _SCRATCH_MIB)
    yield from _system()
    for name, file in zip(_names(len(files)), files, strict=True):
        yield from ("--ro-bind", str(file), name)
    # A new /proc shows only the processes of the PID namespace; the new /dev has null, zero, random and the like.
    yield from ("--proc", "/proc", "--dev", "/dev")
    if cuda:
        yield from ("--ro-bind-try", "/sys", "/sys")
        for node in (node for pattern in _CARDS for node in sorted(Path("/dev").glob(pattern))):
            yield from ("--dev-bind", str(node), str(node))
    # Torch's loaders and multiprocessing put shared memory here.
    yield from _writable("/dev/shm", _SHARED_MIB)  # noqa: S108 - the sandbox's own
    yield from ("--ro-bind", str(source), str(HOME / source.name))
    # Last, since nothing can be mounted on what is read-only; mounts below keep their own rights.
    yield from ("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", str(HOME))


def _writable(folder: str, mib: int) -> Iterator[str]:
    """Mount a folder in memory that every user inside may write, up to its size."""
    yield from ("--perms", "1777", "--size", str(mib * MIB), "--tmpfs", folder)


def _system() -> Iterator[str]:
    """Mount Python, its packages and the libraries they need read-only, and nothing else of the machine."""
    # The whole of /usr would hold the data sets that Debian packages.
    prefixes = [
        f"{prefix}/bin" if prefix in ("/usr", "/usr/local") else prefix for prefix in (sys.base_prefix, sys.prefix)
    ]
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    libraries = [entry for entry in libraries if entry.startswith("/") and Path(entry) != Path("/")]
    wanted = (*_SYSTEM, *_SETTINGS, *prefixes, *installed_packages(), *libraries, str(PACKAGE))
    paths = [Path(path) for path in dict.fromkeys(wanted) if Path(path).exists()]
    # Folders that bubblewrap makes by itself as mount points can be entered by root alone.
    for folder in sorted({parent for path in paths for parent in path.parents} - {Path("/")}):
        yield from ("--perms", "0755", "--dir", str(folder))
    for path in paths:
        yield from ("--ro-bind", str(path), str(path))
    for folder in _label_folders():
        yield from ("--tmpfs", str(folder))


def _label_folders() -> Iterator[Path]:
    """Find the folders of installed packages that hold labels of a data set: an empty folder covers each."""
    found = importlib.util.find_spec("sklearn")
    if found is not None and found.origin is not None:
        folder = Path(found.origin).parent / "datasets" / "data"
        if folder.is_dir():
            yield folder
