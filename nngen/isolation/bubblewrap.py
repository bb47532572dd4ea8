"""The bubblewrap sandbox of level ``sandbox``: one for each job, with a fork server of its own inside.

A warm server cannot be forked into other namespaces and stay warm for the next job without sharing them with it. So
the modules are loaded anew for each job, before its clock starts: about the time of ``import torch``.

A job inside has neither network nor environment, sees none of the machine's processes, and of its files only those of
``nngen.isolation.mounts``, the source and the data files. It can write only to two small folders in memory, which the
monitor measures.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nngen.errors import UsageError
from nngen.isolation.limits import MIB
from nngen.isolation.mounts import PYTHON, machine_mounts

HOME = Path("/tmp")  # noqa: S108 - the sandbox's own
"""The worker's folder by its name inside."""

_SHARED = Path("/dev/shm")  # noqa: S108 - the sandbox's own
_WRITABLE_MIB = 256
_INODE_BYTES = 1536  # memory of a file or folder in memory besides its content, at most

_USERS = range(61_184, 65_280)
"""User ids that no account has. Root's sandboxes take one each, since a limit on processes does not hold root."""

_TURN = itertools.count()

_DEVICES = ("/dev/null", "/dev/random", "/dev/urandom")
_CARDS = ("nvidia*", "dxg", "kfd", "dri")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """The command that starts Python inside a new sandbox."""

    command: Sequence[str]  # bubblewrap with its options, and Python; Python's arguments follow
    environment: Mapping[str, str]  # variables that differ from those of a worker outside
    search_path: Sequence[str]  # folders inside where Python finds modules
    user: int | None  # number of the user that the program becomes; None to stay the same user
    files: Sequence[str]  # paths of the data files inside
    cuda: bool  # whether the graphics cards are visible inside


def make_sandbox(source: Path, files: Sequence[Path], *, cuda: bool) -> Sandbox:
    """Describe a sandbox with a source in ``HOME`` under its own name, data files, and graphics cards if asked for.

    Raises:
        UsageError: If bubblewrap is not installed.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise UsageError(
            "this source needs a sandbox, which needs bubblewrap: apt-get install bubblewrap, or take the risk with"
            " --isolation process"
        )
    mounts = machine_mounts()
    names = {Path(f"/data/{number}"): file for number, file in enumerate(files)}
    # Processes of nngen that run side by side begin at different numbers.
    turn = (os.getpid() * 31 + next(_TURN)) % len(_USERS)
    return Sandbox(
        command=(program, *_options(source, names, cuda=cuda), str(PYTHON)),
        environment={
            "PATH": "/usr/bin:/bin",
            "LD_LIBRARY_PATH": ":".join(map(str, mounts.library_path)),
            "CUDA_HOME": "",
            "HOME": str(HOME),
            "USER": "nngen",
        },
        search_path=[str(folder) for folder in mounts.search_path],
        user=_USERS[turn] if os.geteuid() == 0 else None,
        files=[str(name) for name in names],
        cuda=cuda,
    )


def memory_files_mib(process: int) -> float:
    """Measure the memory of the files in a sandbox's writable folders, in MiB, by the number of any process inside.

    Raises:
        OSError: If the process has ended.
    """
    total = 0
    for folder in (HOME, _SHARED):
        usage = os.statvfs(f"/proc/{process}/root{folder}")
        total += (usage.f_blocks - usage.f_bfree) * usage.f_frsize + (usage.f_files - usage.f_ffree) * _INODE_BYTES
    return total / MIB


def _options(source: Path, files: Mapping[Path, Path], *, cuda: bool) -> Iterator[str]:
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
    mounts = machine_mounts()
    shown: list[tuple[Path, Path | None]] = [*mounts.folders, *files.items()]
    # Not bubblewrap's own set, in which /dev/zero gives memory that is shared and in no file, and /dev/ptmx terminals.
    devices = [Path(device) for device in _DEVICES]
    if cuda:
        # CUDA finds its cards in /sys and /proc, and opens their device files.
        shown.append((Path("/sys"), Path("/sys")))
        devices += [node for pattern in _CARDS for node in sorted(Path("/dev").glob(pattern))]
    # Folders that bubblewrap makes by itself as mount points can be entered by root alone.
    inside = [*(name for name, _ in shown), *mounts.links, *devices, HOME, _SHARED]
    for folder in sorted({parent for path in inside for parent in path.parents} - {Path("/")}):
        yield from ("--perms", "0755", "--dir", str(folder))
    for name, target in mounts.links.items():
        yield from ("--symlink", target, str(name))
    for name, path in shown:
        if path is None:
            yield from ("--tmpfs", str(name), "--remount-ro", str(name))
        else:
            yield from ("--ro-bind", str(path), str(name))
    for device in devices:
        yield from ("--dev-bind", str(device), str(device))
    if cuda:
        # Without cards it is left out: each process's mountinfo shows where on the machine the mounts come from.
        yield from ("--proc", "/proc")
    # Folders in memory that every user inside may write, up to their size. Torch's loaders and multiprocessing put
    # shared memory into the second.
    for folder in (HOME, _SHARED):
        yield from ("--perms", "1777", "--size", str(_WRITABLE_MIB * MIB), "--tmpfs", str(folder))
    yield from ("--ro-bind", str(source), str(HOME / source.name))
    # Last, since nothing can be mounted on what is read-only; mounts below keep their own rights.
    yield from ("--remount-ro", "/", "--chdir", str(HOME))
