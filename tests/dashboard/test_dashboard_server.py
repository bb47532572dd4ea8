"""``nngen dashboard`` as a process, and its pages in a real browser."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager

import pytest
from headless import chromium
from optional import needs

from nngen.archive import Archive
from nngen.archive.schema import LEDGER
from nngen.testing.fakes import FakeEngine, fake_campaign, fake_inputs

pytestmark = needs("dashboard", "starlette", "uvicorn")


@contextmanager
def serving(path):
    """Run the command on an archive; yields the address that it prints."""
    words = [sys.executable, "-m", "nngen", "dashboard", "--port", "0", "--json", "--archive", str(path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        text = ""
        while not text.endswith("}\n"):
            text += process.stdout.readline()
        yield process, json.loads(text)["address"]
    finally:
        process.terminate()
        _, err = process.communicate(timeout=20) if process.stdout and not process.stdout.closed else ("", "")
        assert "Traceback" not in err, err


def fetch(address):
    with urllib.request.urlopen(address) as answer:
        return answer.read().decode()


@pytest.mark.slow
def test_the_command_serves_until_ctrl_c_and_leaves_nothing(filled, tmp_path):
    path = tmp_path / "a.db"
    shutil.copy(filled, path)
    with serving(path) as (process, address):
        assert "ladder" in fetch(address)
        assert len(fetch(f"{address}plotly.js")) > 1_000_000
        with pytest.raises(urllib.error.HTTPError, match="403"):
            fetch("/".join(address.split("/")[:3]))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (0, f"next: nngen campaign ls --archive {path}\n")
    assert [file.name for file in tmp_path.iterdir()] == ["a.db"]


def test_a_port_in_use_is_named(nngen, filled):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = nngen("dashboard", "--archive", filled, "--port", port)
    assert result.code == 1
    way_out = "choose another with --port, or --port 0 for a free one"
    assert result.err == f"nngen: cannot open port {port}: Address already in use: {way_out}\n"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "no archive at"),
        (lambda path: path.write_text("x" * 5000), "is not an archive"),
        (lambda path: newer(path), "written by a newer nngen"),
        (lambda path: path.mkdir(), "is a folder, not an archive"),
    ],
)
def test_an_archive_that_cannot_be_read_is_refused_in_one_line(nngen, tmp_path, make, words):
    make(tmp_path / "a.db")
    result = nngen("dashboard", "--archive", tmp_path / "a.db", "--port", "0")
    assert result.code == 1
    assert words in result.err
    assert result.err.count("\n") == 1


def newer(path):
    with Archive.open(path) as archive:
        archive._db.execute(f"INSERT INTO {LEDGER} (migration_set, name) VALUES ('nngen.archive', 'm9999_future')")


@pytest.mark.parametrize("port", ["-1", "65536", "x", "1.5"])
def test_a_port_out_of_range_is_refused(nngen, filled, port):
    result = nngen("dashboard", "--archive", filled, "--port", port)
    assert result.code == 2
    assert "--port must be a whole number" in result.err


def test_a_missing_package_is_named_with_the_command_that_installs_it(nngen, filled, monkeypatch):
    monkeypatch.delitem(sys.modules, "nngen.dashboard.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = nngen("dashboard", "--archive", filled)
    assert result.code == 2
    assert "pip install '.[dashboard]'" in result.err


class Slow(FakeEngine):
    """An engine whose epochs take a quarter of a second until somebody has seen enough."""

    enough = threading.Event()

    def train(self, job, on_epoch=None):
        def report(point):
            self.enough.wait(0.25)
            on_epoch(point)

        return super().train(job, report)


FOLLOW = """new Promise(done => {
  const begun = performance.now(), wanted = %d;
  const look = () => {
    const state = document.querySelector(".card b").textContent;
    if (parseInt(state) >= wanted) return done({ wanted, ms: performance.now() - begun });
    if (performance.now() - begun > 20000) return done({ state });
    setTimeout(look, 20);
  };
  look();
})"""

LOOK = """new Promise(done => setTimeout(() => {
  const plots = Array.from(document.querySelectorAll(".plot"));
  const marks = "svg .points path, svg .scatterlayer .js-line, svg .barlayer path, svg .boxlayer path";
  done({ plots: plots.map(plot => plot.dataset.figure),
         empty: plots.filter(plot => !plot.querySelector(marks)).map(plot => plot.dataset.figure),
         wide: document.documentElement.scrollWidth, view: document.documentElement.clientWidth,
         text: getComputedStyle(document.body).color,
         axes: Array.from(document.querySelectorAll(".xtick text"), text => getComputedStyle(text).fill) });
}, 1500))"""

CUT = '[...document.querySelectorAll(".scroll")].filter(table => table.scrollWidth > table.clientWidth).length'
"""Number of tables with columns beyond the edge."""

needs_chromium = pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's package chromium")


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize(("width", "dark"), [(1400, False), (390, True)])
def test_a_real_browser_draws_every_page_without_error(filled, old, tmp_path, width, dark):
    with Archive.open(filled, readonly=True) as archive:
        (best,) = {archive.trials("proposed")[-1].candidate_id}
    pages = ["", "campaign?campaign=ladder", "campaign?campaign=full", "leaderboard", "pareto?campaign=ladder"]
    pages += ["parallel?campaign=proposed", "lineage", "compare?a=full&b=again", f"candidate?id={best}", "campaign?x=1"]
    drawn = set()
    with serving(filled) as (_, address), chromium(tmp_path / "p", address, width=width, dark=dark) as page:
        for name in pages:
            page.open(address + name, width, 1600, dark)
            told = page.run(LOOK)
            # The page of what does not exist is a 404, which a browser notes.
            assert [one for one in page.problems if name != "campaign?x=1"] == [], name
            page.problems.clear()
            assert told["empty"] == [], name
            assert told["wide"] <= told["view"] <= width, name
            assert width < 1400 or page.run(CUT) == 0, name
            assert set(told["axes"]) <= {told["text"]}, name
            assert told["text"] == ("rgb(227, 231, 238)" if dark else "rgb(28, 35, 48)")
            drawn |= set(told["plots"])
    assert drawn >= {"progress", "accuracy", "loss", "parameters", "seconds", "parallel", "lineage", "comparison"}


@pytest.mark.slow
@needs_chromium
def test_a_browser_follows_a_running_campaign_within_two_seconds(tmp_path):
    path = tmp_path / "a.db"

    def drive():
        with Archive.open(path) as archive:
            fake_campaign(archive, size=200, inputs=fake_inputs("ABCDEFGHIJ"), engine=Slow()).run()

    with Archive.open(path) as archive:
        done = lambda: sum(one.done for one in archive.tallies("one"))  # noqa: E731
        driver = threading.Thread(target=drive)
        driver.start()
        wait(lambda: done() > 0)
        address = "{}campaign?campaign=one"
        late = []
        with (
            serving(path) as (_, root),
            chromium(tmp_path / "p", address.format(root), width=1400) as page,
            enough(),
        ):
            for _ in range(5):
                wanted = done() + 1
                wait(lambda wanted=wanted: done() >= wanted)
                late.append(page.run(FOLLOW % wanted).get("ms", 1e9))
            assert page.run("document.body.textContent").count("Running now") == 1
            assert page.problems == []
        driver.join()
    # The median, since other processes of the machine may take the processor for a while.
    assert sorted(late)[2] < 2000, late


@contextmanager
def enough():
    """End the trainings quickly when the block has ended."""
    try:
        yield
    finally:
        Slow.enough.set()


def wait(until):
    limit = time.monotonic() + 30
    while not until():
        assert time.monotonic() < limit
        time.sleep(0.01)
