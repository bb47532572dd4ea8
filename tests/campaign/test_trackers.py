"""Trackers of finished trials: real TensorBoard files where it is installed, and modules that record calls."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import pytest
from optional import needs

from nngen.archive import Archive
from nngen.campaign.protocols import Watcher
from nngen.campaign.trackers import TRACKERS, Tracked, _settings, tracker
from nngen.errors import AssemblyError, MissingExtraError, UsageError
from nngen.plan import Losses
from nngen.testing.fakes import FakeEngine, fake_campaign
from nngen.types import Outcome


class Run:
    def __init__(self, **settings):
        self.settings, self.logged, self.finished = settings, [], False
        print("* Created new run")  # as trackio does

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
def test_each_trial_is_a_run_with_plan_curve_and_results(monkeypatch, tmp_path, capsys, name):
    runs = []
    module = SimpleNamespace(init=lambda **settings: runs.append(Run(**settings)) or runs[-1])
    monkeypatch.setitem(sys.modules, name, module)
    notes = Notes()
    with Archive.in_memory() as archive:
        watcher = Tracked(notes, name, tracker(name, tmp_path))
        fake_campaign(archive, size=3, watcher=watcher).run()
        trials = archive.trials("one")
    assert len(runs) == len(notes.trials) == 3
    assert capsys.readouterr().out == ""
    for trial, run in zip(trials, runs, strict=True):
        assert (run.settings["project"], run.settings["group"]) == ("nngen", "one")
        config = run.settings["config"]
        assert config["experts"] == ", ".join(trial.experts)
        assert (config["gate.width"], config["recipe.optimizer"], config["lr"]) == (32, "adamw", 1e-3)
        for part in (trial.plan.gate, trial.plan.losses, trial.plan.recipe):
            title = type(part).__name__.lower()
            own = {f"{title}.{name}": getattr(part, name) for name in part.__slots__ if name != "others"}
            assert own.items() <= config.items()
        assert (config["outcome"], config["shape"], config["seed"]) == ("valid", "1x8x8", trial.spec.seed)
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


@needs("trackio", "trackio")
def test_trackio_stores_runs_with_their_curves_and_nothing_is_printed(tmp_path):
    found = _in_process(tmp_path, "trackio", TRACKIO_DIR=str(tmp_path))
    assert found.stdout == "3 done\n"
    with closing(sqlite3.connect(tmp_path / "nngen.db")) as db:
        names = {name for (name,) in db.execute("SELECT DISTINCT run_name FROM metrics")}
        curve = [json.loads(text) for (text,) in db.execute("SELECT metrics FROM metrics WHERE step = 2")]
    assert len(names) == 3 and all(name.startswith("one-") for name in names)
    assert len(curve) == 3 and all("validation_accuracy" in values for values in curve)


@needs("wandb", "wandb")
def test_wandb_stores_runs_without_a_network(tmp_path):
    found = _in_process(tmp_path, "wandb", WANDB_MODE="offline", WANDB_DIR=str(tmp_path), WANDB_SILENT="true")
    assert found.stdout == "3 done\n"
    runs = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(runs) == 3 and all(run.stat().st_size > 500 for run in runs)


CAMPAIGN = """
import sys
from pathlib import Path
from nngen.archive import Archive
from nngen.campaign.protocols import Watcher
from nngen.campaign.trackers import Tracked, tracker
from nngen.testing.fakes import fake_campaign

class Notes(Watcher):
    def note(self, line):
        if "failed" in line:
            sys.exit(line)

with Archive.in_memory() as archive:
    watcher = Tracked(Notes(), sys.argv[1], tracker(sys.argv[1], Path()))
    print(fake_campaign(archive, size=3, watcher=watcher).run().done, "done")
"""


def _in_process(place, name, **variables):
    """Run a campaign that reports to a tracker in a process of its own, since trackers start threads and services."""
    done = subprocess.run(
        [sys.executable, "-c", CAMPAIGN, name],
        cwd=place,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done


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


class Writer:
    """Stands in for TensorBoard's writer and keeps what it is given."""

    made = []  # noqa: RUF012

    def __init__(self, folder):
        self.folder, self.scalars, self.settings, self.closed = folder, [], [], False
        self.made.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closed = True

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def add_hparams(self, settings, results, run_name):
        self.settings.append((settings, results, run_name))


def told(trial):
    """Return the curve and the results that a tracker is told of a trained trial."""
    known = ("validation_accuracy", "train_loss", "entropy", "seconds")
    curve = [(point.epoch, {name: getattr(point, name) for name in known}) for point in trial.curve]
    names = ("validation_accuracy", "parameters", "seconds", "peak_mib")
    return curve, {f"result/{name}": getattr(trial, name) for name in names}


def test_tensorboard_is_given_curves_settings_and_results(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    Writer.made.clear()
    notes = Notes()
    with Archive.in_memory() as archive:
        watcher = Tracked(notes, "tensorboard", tracker("tensorboard", tmp_path))
        fake_campaign(archive, name="a/b c", size=2, watcher=watcher).run()
        trials = archive.trials("a/b c")
    assert not [line for line in notes.lines if "failed" in line]
    assert [writer.folder for writer in Writer.made] == [str(tmp_path / "a_b_c" / f"00000{n}") for n in (1, 2)]
    for trial, writer in zip(trials, Writer.made, strict=True):
        curve, results = told(trial)
        assert writer.scalars == [(name, value, step) for step, values in curve for name, value in values.items()]
        ((settings, shown, run_name),) = writer.settings
        assert (shown, run_name, writer.closed) == (results, ".", True)
        assert settings["candidate"] == trial.candidate_id


def test_a_run_has_the_whole_curve_the_results_and_flat_settings(monkeypatch, tmp_path):
    runs = []
    module = SimpleNamespace(init=lambda **settings: runs.append(Run(**settings)) or runs[-1])
    monkeypatch.setitem(sys.modules, "wandb", module)
    with Archive.in_memory() as archive:
        watcher = Tracked(Notes(), "wandb", tracker("wandb", tmp_path))
        engine = FakeEngine(trials={"A": Outcome.MEMORY})
        fake_campaign(archive, size=6, engine=engine, watcher=watcher, batch=32).run()
        trials = archive.trials("one")
    for trial, run in zip(trials, runs, strict=True):
        config = run.settings["config"]
        assert run.settings["name"] == f"one-{trial.id}"
        plain = {name: value for name, value in config.items() if "." not in name}
        assert plain == {
            "campaign": "one",
            "candidate": trial.candidate_id,
            "rung": 0,
            "outcome": trial.outcome.value,
            "experts": ", ".join(trial.experts),
            "dataset": "digits",
            "epochs": 2,
            "batch": 32,
            "lr": 1e-3,
            "momentum": 0.9,
            "augment": "none",
            "class_weights": "none",
            "seed": trial.spec.seed,
            "shape": "1x8x8",
        }
        curve, results = told(trial)
        if trial.trained:
            assert run.logged == [*curve, (None, results)]
        else:
            assert run.logged == [(None, {"result/seconds": 0.5, "result/peak_mib": 0.0})]


def test_a_trial_that_never_became_a_candidate_has_no_specification():
    def refuse(plan, experts):
        raise AssemblyError("no")

    seen = []
    with Archive.in_memory() as archive:
        fake_campaign(archive, size=1, assemble=refuse, watcher=Tracked(Notes(), "x", seen.append)).run()
    (trial,) = seen
    found = _settings(replace(trial, plan=replace(trial.plan, losses=Losses(others=(("ranking", 0.25),)))))
    assert found["losses.ranking"] == 0.25 and "losses.others" not in found
    assert (found["candidate"], found["outcome"], "lr" in found) == ("", "contract", False)


def test_everything_is_passed_on_and_the_tracker_gets_finished_trials_alone():
    class All(Watcher):
        def __init__(self):
            self.calls = []

        def note(self, line):
            self.calls.append(("note", line))

        def begin(self, name, work):
            self.calls.append(("begin", name, work))

        def stage(self, trial, stage):
            self.calls.append(("stage", trial, stage))

        def epoch(self, trial, result):
            self.calls.append(("epoch", trial, result))

        def requeued(self, trial):
            self.calls.append(("requeued", trial))

        def finished(self, trial):
            self.calls.append(("finished", trial))

    inner, reported = All(), []
    watcher = Tracked(inner, "x", reported.append)
    calls = [("note", "a"), ("begin", "b", "work"), ("stage", "t", "check"), ("epoch", "t", "e"), ("requeued", "t")]
    calls += [("finished", "t1"), ("finished", "t2")]
    for name, *arguments in calls:
        getattr(watcher, name)(*arguments)
    assert inner.calls == calls
    assert reported == ["t1", "t2"]


@pytest.mark.parametrize(("length", "shown"), [(200, 200), (201, 200)])
def test_the_error_of_a_tracker_is_shortened_to_200_signs(length, shown):
    text = "x" * (length - len("ValueError('')"))

    def fail(trial):
        raise ValueError(text)

    notes = Notes()
    Tracked(notes, "t", fail).finished("trial")
    (line,) = notes.lines
    message = line.removeprefix("t failed, and gets no more trials: ")
    assert (len(message), message.endswith("…")) == (shown, length > 200)
