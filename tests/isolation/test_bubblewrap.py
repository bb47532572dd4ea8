"""Commands of bubblewrap, compared as a whole, and the memory of a sandbox's files."""

import itertools
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from nngen.errors import UsageError
from nngen.isolation import bubblewrap
from nngen.isolation.bubblewrap import make_sandbox, memory_files_mib
from nngen.isolation.mounts import Mounts

MOUNTS = Mounts(
    folders=[
        (Path("/usr/lib"), Path("/usr/lib")),
        (Path("/python/lib/site-packages"), None),
        (Path("/packages/torch"), Path("/venv/torch")),
    ],
    links={Path("/lib"): "usr/lib"},
    search_path=(Path("/python/lib"), Path("/packages")),
    library_path=(Path("/libraries/0"), Path("/libraries/1")),
)
BEGIN = "--unshare-ipc --unshare-pid --unshare-net --unshare-uts --unshare-cgroup-try --cap-drop ALL"
RIGHTS = {0: "--cap-add CAP_SETUID --cap-add CAP_SETGID", 1000: "--unshare-user --disable-userns"}
FOLDERS = ["/data", "/dev", "/packages", "/python", "/python/lib", "/usr"]
SHOWN = """
    --symlink usr/lib /lib
    --ro-bind /usr/lib /usr/lib
    --tmpfs /python/lib/site-packages --remount-ro /python/lib/site-packages
    --ro-bind /venv/torch /packages/torch
    --ro-bind /sets/x.bin /data/0
    --ro-bind /sets/y.bin /data/1
"""
DEVICES = "--dev-bind /dev/null /dev/null --dev-bind /dev/random /dev/random --dev-bind /dev/urandom /dev/urandom"
END = """
    --perms 1777 --size 268435456 --tmpfs /tmp
    --perms 1777 --size 268435456 --tmpfs /dev/shm
    --ro-bind /scratch/job/candidate.py /tmp/candidate.py
    --remount-ro / --chdir /tmp
"""
CARDS = {"nvidia*": ["nvidia1", "nvidia0"], "dxg": [], "kfd": ["kfd"], "dri": []}


@pytest.fixture
def made(monkeypatch):
    """Make sandboxes of a user in a process, on a machine that has bubblewrap and cards."""

    def make(user=1000, process=0, *, cuda=False):
        monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
        monkeypatch.setattr(bubblewrap, "machine_mounts", lambda: MOUNTS)
        monkeypatch.setattr(os, "geteuid", lambda: user)
        monkeypatch.setattr(os, "getpid", lambda: process)
        monkeypatch.setattr(Path, "glob", lambda self, pattern: [self / name for name in CARDS[pattern]])
        files = [Path("/sets/x.bin"), Path("/sets/y.bin")]
        return make_sandbox(Path("/scratch/job/candidate.py"), files, cuda=cuda)

    return make


@pytest.mark.parametrize("user", [0, 1000])
@pytest.mark.parametrize("cuda", [False, True])
def test_the_command_hides_everything_but_what_is_mounted(user, cuda, made):
    folders = " ".join(f"--perms 0755 --dir {folder}" for folder in FOLDERS)
    cards = "--dev-bind /dev/nvidia0 /dev/nvidia0 --dev-bind /dev/nvidia1 /dev/nvidia1 --dev-bind /dev/kfd /dev/kfd"
    system = "--ro-bind /sys /sys" if cuda else ""
    parts = [BEGIN, RIGHTS[user], "--die-with-parent --new-session", folders, SHOWN, system, DEVICES]
    parts += [cards, "--proc /proc", END] if cuda else [END]
    expected = ["/bin/bwrap", *" ".join(parts).split(), "/python/bin/python"]
    assert list(made(user, cuda=cuda).command) == expected


def test_a_sandbox_is_described_as_its_inside_sees_it(made):
    sandbox = made()
    assert sandbox.environment == {
        "PATH": "/usr/bin:/bin",
        "LD_LIBRARY_PATH": "/libraries/0:/libraries/1",
        "CUDA_HOME": "",
        "HOME": "/tmp",
        "USER": "nngen",
    }
    assert (sandbox.search_path, sandbox.files) == (["/python/lib", "/packages"], ["/data/0", "/data/1"])
    assert (sandbox.user, sandbox.cuda) == (None, False)
    assert made(cuda=True).cuda


def test_sandboxes_of_root_take_turns_among_users_without_an_account(made, monkeypatch):
    """61,184 to 65,279; processes with neighbouring numbers begin 31 apart."""
    monkeypatch.setattr(bubblewrap, "_TURN", itertools.count())
    assert [made(0).user, made(0).user, made(0, process=1).user] == [61_184, 61_185, 61_184 + 31 + 2]
    monkeypatch.setattr(bubblewrap, "_TURN", itertools.count(4095))
    assert [made(0).user, made(0).user] == [65_279, 61_184]
    assert made(1).user is None


def test_a_machine_without_bubblewrap_has_no_sandbox(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    message = (
        "this source needs a sandbox, which needs bubblewrap: apt-get install bubblewrap, or take the risk with"
        " --isolation process"
    )
    with pytest.raises(UsageError, match=f"^{message}$"):
        make_sandbox(Path("candidate.py"), [], cuda=False)


def test_files_in_memory_count_with_their_inodes(monkeypatch):
    """512 blocks of 4 KiB and 10 files in the first folder, 256 and 4 in the second; an inode takes 1,536 bytes."""
    usage = {
        "/proc/7/root/tmp": SimpleNamespace(f_blocks=1000, f_bfree=488, f_frsize=4096, f_files=30, f_ffree=20),
        "/proc/7/root/dev/shm": SimpleNamespace(f_blocks=300, f_bfree=44, f_frsize=4096, f_files=4, f_ffree=0),
    }
    monkeypatch.setattr(os, "statvfs", usage.__getitem__)
    assert memory_files_mib(7) == 2 + 1 + 14 * 1536 / 1024 / 1024
