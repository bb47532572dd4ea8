"""Trackers of finished trials: real TensorBoard files where it is installed, and modules that record calls."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from optional import needs

from nngen.archive import Archive
from nngen.campaign import Watcher
from nngen.campaign.trackers import TRACKERS, Tracked, tracker
from nngen.errors import MissingExtraError, UsageError
from nngen.testing.fakes import fake_campaign


class Run:
    def __init__(self, **settings):
        self.settings, self.logged, self.finished = settings, [], False

    def log(self, values, step=None):
        self.logged.append((step, values))

    def finish(self):
        self.finished = True


class Notes(Watcher):
    def __init__(self):
        self.lines, self.trials = [], []

    def note(self, line):
        self.lines.append(line)

    def finished(self, trial):
        self.trials.append(trial)


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_each_trial_is_a_run_with_plan_curve_and_results(monkeypatch, tmp_path, name):
    runs = []
    module = SimpleNamespace(init=lambda **settings: runs.append(Run(**settings)) or runs[-1])
    monkeypatch.setitem(sys.modules, name, module)
    notes = Notes()
    with Archive.in_memory() as archive:
        watcher = Tracked(notes, name, tracker(name, tmp_path))
        fake_campaign(archive, size=3, watcher=watcher).run()
        trials = archive.trials("one")
    assert len(runs) == len(notes.trials) == 3
    for trial, run in zip(trials, runs, strict=True):
        assert (run.settings["project"], run.settings["group"]) == ("nngen", "one")
        config = run.settings["config"]
        assert config["experts"] == ", ".join(trial.experts)
        assert (config["gate.width"], config["recipe.optimizer"], config["lr"]) == (32, "adamw", 1e-3)
        assert [step for step, _ in run.logged] == [1, 2, None]
        assert run.logged[1][1]["validation_accuracy"] == trial.validation_accuracy
        assert run.logged[-1][1]["result/parameters"] == trial.parameters
        assert run.finished


def test_a_tracker_that_fails_is_named_once_and_the_campaign_goes_on(monkeypatch, tmp_path):
    def init(**_):
        raise ConnectionError("no network\x1b[31m")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    notes = Notes()
    with Archive.in_memory() as archive:
        summary = fake_campaign(archive, size=3, watcher=Tracked(notes, "wandb", tracker("wandb", tmp_path))).run()
    assert summary.done == 3
    assert [line for line in notes.lines if "wandb" in line] == [
        "wandb failed, and gets no more trials: ConnectionError('no network\\x1b[31m')"
    ]


@needs("tensorboard", "tensorboard")
def test_tensorboard_reads_curves_and_settings(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Archive.in_memory() as archive:
        watcher = Tracked(Watcher(), "tensorboard", tracker("tensorboard", tmp_path / "runs"))
        fake_campaign(archive, name="a/b", size=2, watcher=watcher).run()
        trials = archive.trials("a/b")
    folders = sorted((tmp_path / "runs" / "a_b").iterdir())
    assert len(folders) == 2
    for trial, folder in zip(trials, folders, strict=True):
        events = EventAccumulator(str(folder)).Reload()
        found = [scalar.value for scalar in events.Scalars("validation_accuracy")]
        assert found == pytest.approx([point.validation_accuracy for point in trial.curve])
        assert events.Scalars("result/validation_accuracy")[0].value == pytest.approx(trial.validation_accuracy)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, tmp_path, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"pip install '\.\[{name}\]'"):
        tracker(name, tmp_path)


def test_an_unknown_tracker_is_refused_before_anything_is_stored(nngen, tmp_path):
    with pytest.raises(UsageError, match="did you mean wandb"):
        tracker("wandbb", tmp_path)
    archive = tmp_path / "a.db"
    result = nngen("campaign", "run", "x", "--size", "1", "--report-to", "mlflow", "--archive", archive)
    assert result.code == 2
    assert "no tracker is called 'mlflow': there are tensorboard, trackio, wandb" in result.err
    assert not archive.exists()
