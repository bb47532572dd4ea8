"""Progress display of campaigns."""

import io
import re

import pytest
from rich.console import Console

from nngen.archive import Archive
from nngen.cli.progress import Lines, Screen
from nngen.testing.fakes import FakeEngine, fake_campaign
from nngen.types import Outcome


def run(watcher, **arguments):
    with Archive.in_memory() as archive:
        engine = FakeEngine(checks={"A": Outcome.SHAPE})
        fake_campaign(archive, engine=engine, watcher=watcher, **arguments).run()
        return archive.trials("one")


def test_lines_are_one_per_trial(capfd):
    trials = run(Lines())
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 6
    assert [line.split()[1] for line in err.splitlines()] == [f"{number}/6" for number in range(1, 7)]
    assert all(err.count(f"  {', '.join(trial.experts)}  ") == 1 for trial in trials)
    assert sum("shape: A at" in line for line in err.splitlines()) == sum(not t.trained for t in trials)


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
    screen.begin("one", 0, 2)
    screen.stage(trials[0], "train")
    assert "train" in drawn(screen)
    screen.epoch(trials[0], trials[0].curve[0] if trials[0].curve else pytest.skip("the first trial failed"))
    assert "epoch 1: 0." in drawn(screen)
