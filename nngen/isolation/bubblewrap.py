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
from dataclasses import dataclass
from pathlib import Path

from nngen.errors import UsageError
from nngen.isolation.limits import MIB

HOME = Path("/tmp")  # noqa: S108 - the sandbox's own
"""The worker's folder by its name inside."""

_PACKAGE = Path(__file__).parents[1]
_SCRATCH_MIB = 256
_SHARED_MIB = 256
_USERS = range(61_184, 65_280)
"""User ids that no account has. Root's sandboxes take one each, since a limit on processes does not hold root."""

_TURN = itertools.count()

_SYSTEM = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib")
_SETTINGS = ("/etc/ld.so.cache", "/etc/alternatives", "/sys/devices/system")
_CARDS = ("nvidia*", "dxg", "kfd", "dri")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """The command that starts a program inside a new sandbox.

    Attributes:
        command: Bubblewrap with its options; the program and its arguments follow.
        user: Number of the user that the program becomes; None to stay the same user.
        files: Paths of the data files inside.
    """

    command: tuple[str, ...]
    user: int | None
    files: tuple[str, ...]


def make_sandbox(source: Path, files: Sequence[Path], *, cuda: bool) -> Sandbox:
    """Describe a sandbox around a source.

    Args:
        source: The source; inside it lies in ``HOME`` under the same name.
        files: Data files that the worker reads.
        cuda: Whether the graphics cards are visible inside.

    Raises:
        UsageError: If bubblewrap is not installed.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise UsageError(
            "this source was not assembled here and needs a sandbox, which needs bubblewrap: apt-get install bubblewrap"
        )
    names = {f"/data/{number}": file for number, file in enumerate(files)}
    # Processes of nngen that run side by side begin at different numbers.
    turn = (os.getpid() * 31 + next(_TURN)) % len(_USERS)
    return Sandbox(
        command=(program, *_options(source, names, cuda=cuda)),
        user=_USERS[turn] if os.geteuid() == 0 else None,
        files=tuple(names),
    )


def search_path(*, standard_only: bool = False) -> list[str]:
    """Return the folders where this process finds packages, without the folder it happens to run in.

    Args:
        standard_only: Leave out all but Python's own folders and those of installed packages, for a sandbox.
    """
    home = str(_PACKAGE.parent)
    if standard_only:
        prefixes = (f"{sys.base_prefix}/", f"{sys.prefix}/")
        entries = [entry for entry in sys.path if entry.startswith(prefixes)] + _installed_packages()
    else:
        here = {"", ".", os.getcwd()}  # noqa: PTH109
        entries = [entry for entry in sys.path if entry not in here]
    return [*dict.fromkeys(entry for entry in entries if entry != home), home]


def _installed_packages() -> list[str]:
    return [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]


def _options(source: Path, files: Mapping[str, Path], *, cuda: bool) -> Iterator[str]:
    """Yield bubblewrap's options; it carries them out in this order, and a later mount covers an earlier one."""
    yield from ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try")
    yield from ("--cap-drop", "ALL")
    if os.geteuid() == 0:
        # Root takes another number inside. In a user namespace it would stay root outside, whom no limit holds.
        yield from ("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID")
    else:
        yield from ("--unshare-user", "--disable-userns")
    # The sandbox ends with the thread that starts it. A new session has no terminal into which characters could be
    # typed (TIOCSTI).
    yield from ("--die-with-parent", "--new-session")
    # Before what is mounted read-only, some of which may lie below it: a checkout in /tmp, say.
    yield from _writable(str(HOME), _SCRATCH_MIB)
    yield from _system()
    for name, file in files.items():
        yield from ("--ro-bind", str(file), name)
    # A new /proc shows only the processes of the PID namespace; the new /dev has null, zero, random and the like.
    yield from ("--proc", "/proc", "--dev", "/dev")
    if cuda:
        # CUDA finds its cards in /sys, and opens their device files.
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
    wanted = (*_SYSTEM, *_SETTINGS, *prefixes, *_installed_packages(), *libraries, str(_PACKAGE))
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
