"""Progress display of campaigns."""

import io
import re

import pytest
from rich.console import Console

from nngen.archive import Archive
from nngen.campaign.successive_halving import Workload
from nngen.campaign.time_left import TimeLeft
from nngen.cli.progress import Lines, Screen, progress_bar
from nngen.testing.fakes import FakeEngine, fake_campaign
from nngen.types import EpochResult, Outcome


def run(watcher, **arguments):
    with Archive.in_memory() as archive:
        engine = FakeEngine(checks={"A": Outcome.SHAPE})
        fake_campaign(archive, engine=engine, watcher=watcher, **arguments).run()
        return archive.trials("one")


def test_lines_are_one_per_trial(capfd):
    trials = run(Lines())
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("one ")]
    assert out == ""
    assert [line.split()[1] for line in lines] == [f"{number}/6" for number in range(1, 7)]
    assert all(err.count(f"  {', '.join(trial.experts)}  ") == 1 for trial in trials)
    assert sum("shape: A at" in line for line in lines) == sum(not t.trained for t in trials)


def test_a_bar_prints_a_line_a_minute_elsewhere_than_on_a_terminal(capfd, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("nngen.cli.progress.time.monotonic", lambda: now[0])
    with progress_bar("reading images") as report:
        for step in range(2):  # each counts and estimates by itself
            for done in range(1, 101):
                now[0] += 1 + step
                report(done, 100)
    assert [line.partition("images: ")[2] for line in capfd.readouterr().err.splitlines()] == [
        "60 of 100, about 40.0 s left",
        "10 of 100, about 2.7 min left",
        "40 of 100, about 117.0 s left",
        "70 of 100, about 59.1 s left",
        "100 of 100, about 0.0 s left",
    ]


def drawn(screen):
    console = Console(file=io.StringIO(), width=100)
    console.print(screen.render())
    return console.file.getvalue()


def test_the_screen_shows_totals_and_the_last_trials():
    screen = Screen()
    assert drawn(screen).strip() == ""
    trials = run(screen, size=12)
    text = drawn(screen)
    best = max(t.validation_accuracy for t in trials if t.trained)
    assert re.search(rf"campaign one: 12 of 12 trials, [\d.]+ s, best so far {best:.4f}", text)
    assert ", ".join(trials[-1].experts) in text
    assert ", ".join(trials[0].experts) not in text


def test_the_screen_shows_what_runs():
    screen = Screen()
    trials = run(Lines(), size=1)
    screen.begin("one", Workload(done=0, trials=2, epochs=2, rungs=(1,)))
    screen.stage(trials[0], "train")
    assert "train" in drawn(screen)
    compiling = Screen(compiled=True)
    compiling.begin("one", Workload(done=0, trials=2, epochs=2, rungs=(1,)))
    compiling.stage(trials[0], "train")
    assert "compiling" in drawn(compiling)
    screen.epoch(trials[0], trials[0].curve[0] if trials[0].curve else pytest.skip("the first trial failed"))
    assert "epoch 1 of 1: 0." in drawn(screen)


def test_lines_of_epochs_are_at_most_one_a_minute(monkeypatch, capfd):
    clock = [0.0]
    monkeypatch.setattr("nngen.cli.progress.time.monotonic", lambda: clock[0])
    trial = run(Lines(), size=1)[0]
    capfd.readouterr()
    lines = Lines()
    work = Workload(done=0, trials=2, epochs=200, rungs=(100,))
    lines.begin("one", work)
    lines.estimate = TimeLeft(work, lambda: clock[0])
    lines.stage(trial, "train")
    for epoch in range(1, 100):
        clock[0] += 7.0
        lines.epoch(trial, EpochResult(epoch=epoch, validation_accuracy=0.5, seconds=7.0))
    shown = capfd.readouterr().err.splitlines()
    assert len(shown) == 99 * 7 // 63
    assert shown[0].endswith("epoch 9 of 100: 0.5000  7.0 s, about 22.3 min left")
