"""Scratch folders: removed by their process, or by the next one where it was killed."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

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
