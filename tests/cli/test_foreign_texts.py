"""Texts that others wrote are shown without escapes and control characters, wherever they are shown."""

from __future__ import annotations

import json
import os
import pty
import sys
from pathlib import Path

import pytest

from nngen.analysis import figure_style, figures
from nngen.analysis.pdf_figures import write_figures
from nngen.analysis.report import collect, render
from nngen.archive import Archive
from nngen.cli.progress import Lines, Screen
from nngen.testing.fakes import FakeEngine, fake_campaign, fake_inputs
from nngen.types import Outcome

NAMES = (
    "$\\frac$",
    "<b>bold</b>",
    "\x1b[31mred\x1b[0m",
    "a\u202eb",
    "%{x}",
    "long" * 200,
    "日本\nbreak\x9b1m\x07",
)
SAFE = "\n\t"


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NNGEN_ARCHIVE", str(tmp_path / "a.db"))
    with Archive.open(tmp_path / "a.db") as archive:
        engine = FakeEngine(trials={NAMES[1]: Outcome.MEMORY})
        fake_campaign(archive, size=20, inputs=fake_inputs(NAMES), engine=engine).run()
    return tmp_path


def is_clean(text: str) -> bool:
    return all(char.isprintable() or char in SAFE for char in text)


@pytest.mark.long
@pytest.mark.parametrize(
    "command",
    [
        "leaderboard",
        "campaign status one",
        "campaign ls",
        "campaign watch one",
        "effects one",
        "coverage one",
        "cost one",
    ],
)
def test_the_terminal_shows_clean_texts(nngen, foreign, command):
    done = nngen(*command.split())
    assert done.code in (0, 3) and is_clean(done.out) and is_clean(done.err)
    done = nngen(*command.split(), "--json")
    json.loads(done.out)
    assert done.code in (0, 3) and is_clean(done.out)


def test_events_and_json_are_clean_and_lose_nothing(nngen, foreign):
    assert all(is_clean(line) for line in nngen("campaign", "events", "one").out.splitlines())
    shown = json.loads(nngen("campaign", "status", "one", "--json").out)
    assert {name for row in shown["failures"] for name in row["experts"]} >= {NAMES[1]}
    assert set(shown["arguments"]["families"] or NAMES) <= set(NAMES)


def test_errors_are_clean(nngen, foreign):
    for tokens in (("leaderboard", NAMES[2]), ("families", "--families", NAMES[6]), ("plans", "show", NAMES[3])):
        done = nngen(*tokens)
        assert done.code == 2 and done.err.rstrip("\n").isprintable() and len(done.err) < 4100


def test_progress_is_clean(capfd):
    for watcher in (Lines(), Screen()):
        with Archive.in_memory() as archive:
            fake_campaign(archive, inputs=fake_inputs(NAMES), watcher=watcher).run()
        if isinstance(watcher, Screen):
            from rich.console import Console

            Console(stderr=True).print(watcher.render())
    out, err = capfd.readouterr()
    assert out == "" and is_clean(err)


@pytest.mark.long
def test_a_source_keeps_its_bytes_in_a_file_and_loses_escapes_on_a_terminal(nngen, foreign):
    source = "x = '\x1b]0;title\x07'\n"
    with Archive.open(foreign / "a.db") as archive:
        chosen = archive.trials("one")[0].candidate_id
    code = (
        "import sys; from nngen.cli import run; from nngen.archive import Archive;"
        f"found = Archive.candidate; source = {source!r};"
        "from dataclasses import replace;"
        "Archive.candidate = lambda self, name: replace(found(self, name), source=source);"
        f"sys.exit(run(['show', {chosen!r}, '--source']))"
    )
    read, write = os.pipe()
    os.posix_spawn(
        sys.executable, [sys.executable, "-c", code], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, write, 1)]
    )
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == source.encode()
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, [sys.executable, "-c", code])
    shown = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # the terminal's other end is closed
            break
        shown += part
        if not part:
            break
    os.waitpid(process, 0)
    assert shown.decode().splitlines() == ["x = ''"]


def test_the_page_and_its_plots_show_clean_texts(foreign, monkeypatch):
    monkeypatch.setattr(figure_style, "plotly_script", lambda: "")
    with Archive.open(foreign / "a.db", readonly=True) as archive:
        report = collect(archive, "one")
    assert is_clean(render(report))
    axis = json.loads(figures.coverage_figure(report.coverage))["data"][0]["x"]
    assert {"&lt;b&gt;bold&lt;/b&gt;", "red", "a b"} <= set(axis)
    assert max(map(len, axis)) <= 200
    curves = json.loads(figures.curves_figure(report.trials))["data"]
    assert not any("%{x}" in str(trace.get("hovertemplate")).replace("epoch %{x}:", "") for trace in curves)


@pytest.mark.long
def test_plots_for_a_paper_take_names_as_they_are(foreign, tmp_path):
    pytest.importorskip("matplotlib")
    with Archive.open(foreign / "a.db", readonly=True) as archive:
        assert write_figures(collect(archive, "one"), tmp_path / "figures")
