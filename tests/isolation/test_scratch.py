"""Scratch folders: removed by their process, or by the next one where it was killed."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from descriptors import open_descriptors

from nngen.isolation import scratch
from nngen.isolation.scratch import ScratchFolder

START = (
    "from nngen.isolation.scratch import ScratchFolder; import sys, time;"
    " print(ScratchFolder().path, flush=True); time.sleep(60)"
)


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A temporary folder of its own, for this process and its children."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_the_folder_of_a_killed_process_is_removed_by_the_next_one_and_of_a_live_one_is_not(alone):
    with subprocess.Popen([sys.executable, "-c", START], stdout=subprocess.PIPE, text=True) as other:
        folder = Path(other.stdout.readline().strip())
        (folder / "worker").mkdir()
        first = ScratchFolder()
        assert (folder / "worker").is_dir()
        other.send_signal(signal.SIGKILL)
        other.wait()
        second = ScratchFolder()
        assert not folder.exists()
        assert set(alone.iterdir()) == {first.path, second.path}
    first.close()
    second.close()
    assert not list(alone.iterdir())


def test_what_is_not_such_a_folder_is_left(alone):
    outside = alone / "outside"
    outside.mkdir()
    (alone / "nngen-scratch-link").symlink_to(outside)
    (alone / "nngen-scratch-file").write_text("")
    ScratchFolder().close()
    assert sorted(path.name for path in alone.iterdir()) == ["nngen-scratch-file", "nngen-scratch-link", "outside"]


@pytest.mark.long
def test_folders_of_other_users_are_left_and_no_descriptor_stays_open(alone, monkeypatch):
    mine, theirs = alone / "nngen-scratch-mine", alone / "nngen-scratch-theirs"
    mine.mkdir()
    opened = open_descriptors()
    first = ScratchFolder()
    assert not mine.exists()
    theirs.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: os.geteuid() + 1)
        second = ScratchFolder()
    assert theirs.exists()
    assert {first.path.name[:14], second.path.name[:14]} == {"nngen-scratch-"}
    second.close()
    first.close()
    assert list(alone.iterdir()) == [theirs]
    assert open_descriptors() <= opened


@pytest.mark.parametrize("removed", [False, True])
def test_a_folder_that_another_process_swept_is_made_anew(removed, alone, monkeypatch):
    taken, lock = [], scratch._lock

    def swept(folder):
        taken.append(folder)
        if len(taken) > 1:
            return lock(folder)
        number = lock(folder)
        folder.rmdir()
        if removed:  # locked in the moment before it was removed
            return number
        os.close(number)
        return None

    monkeypatch.setattr(scratch, "_lock", swept)
    made = ScratchFolder()
    assert made.path == taken[1] != taken[0]
    assert list(alone.iterdir()) == [made.path]
    made.close()
