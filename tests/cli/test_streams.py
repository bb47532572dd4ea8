"""Standard streams that are full, closed or abandoned: results are not lost silently, progress never stops the work."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from nngen.archive import Archive, TrialState
from nngen.testing.fakes import fake_campaign

pytestmark = pytest.mark.long

CAMPAIGN = """
import os
from pathlib import Path
from nngen.archive import Archive
from nngen.cli.output import guard_streams
from nngen.cli.progress import print_summary, trial_progress
from nngen.testing.fakes import fake_campaign
guard_streams()
with Archive.open(Path("a.db")) as archive, trial_progress() as watcher:
    print_summary(fake_campaign(archive, name="two", watcher=watcher).run())
os._exit(0)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Archive.open(tmp_path / "a.db") as archive:
        fake_campaign(archive).run()
    return tmp_path


def shell(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which $NNGEN is the command, with the archive of the folder."""
    environment = {**os.environ, "NNGEN": f"{sys.executable} -m nngen", "PYTHON": sys.executable}
    environment |= {"NNGEN_ARCHIVE": str(folder / "a.db"), "PYTHONPATH": str(Path(__file__).parents[2])}
    command = ["bash", "-c", f"set -o pipefail; {line}"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("streams", ["2>/dev/full", "2>&-", "2>&1 | head -c 1", ">/dev/full 2>&1", ">&- 2>&-", "<&-"])
def test_a_campaign_goes_on_when_its_progress_cannot_be_written(folder: Path, streams: str) -> None:
    (folder / "campaign.py").write_text(CAMPAIGN)
    done = shell(folder, f"$PYTHON campaign.py {streams}")
    assert done.returncode == 0, done.stderr
    with Archive.open(folder / "a.db", readonly=True) as archive:
        counts = archive.counts("two")
        assert counts[TrialState.DONE] == sum(counts.values()) == 6


@pytest.mark.parametrize(
    ("command", "streams", "reason"),
    [
        ("leaderboard", ">/dev/full", "No space left on device"),
        ("campaign status one", ">&-", "Bad file descriptor"),
        ("campaign events one", ">/dev/full", "No space left on device"),
    ],
)
def test_results_that_cannot_be_written_are_a_failure(folder: Path, command: str, streams: str, reason: str) -> None:
    done = shell(folder, f"$NNGEN {command} {streams}")
    assert (done.returncode, done.stderr) == (1, f"nngen: cannot write the results to stdout: {reason}\n")


def test_a_reader_that_has_seen_enough_is_not_a_failure(folder: Path) -> None:
    done = shell(folder, "$NNGEN campaign events one | head -n 1")
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 1)
    done = shell(folder, "$NNGEN leaderboard | true")
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_keeps_its_code_when_stderr_is_closed(folder: Path) -> None:
    before = (folder / "a.db").read_bytes()
    done = shell(folder, "$NNGEN campaign status onne 2>&-")
    assert (done.returncode, done.stdout) == (2, "")
    assert (folder / "a.db").read_bytes() == before


def test_a_working_folder_that_is_gone_is_one_line(folder: Path) -> None:
    done = shell(folder, "mkdir gone; cd gone; rmdir ../gone; $NNGEN train ../honest.py")
    assert done.returncode == 1
    assert done.stderr == "nngen: the working folder is gone: change to one that exists\n"


def test_few_open_files_are_raised_or_refused_in_one_line(folder: Path) -> None:
    done = shell(folder, "ulimit -n 20; $NNGEN leaderboard")
    assert done.returncode == 1
    assert done.stderr == "nngen: only 20 files may be open at a time, and nngen needs 64: ulimit -n 16384\n"
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 64:
        assert shell(folder, "ulimit -Sn 20; $NNGEN leaderboard").returncode == 0
