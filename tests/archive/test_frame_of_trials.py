"""Trials of an archive as a data frame: rows, columns, missing values, curves, and an archive opened by its path."""

from __future__ import annotations

import runpy
import sys
from dataclasses import asdict

import pytest

from nngen.archive import Archive
from nngen.archive import trials as module
from nngen.errors import ArchiveError, MissingExtraError
from nngen.plan import Plan
from nngen.testing.fakes import fake_campaign, fake_record

pytest.importorskip("pandas")


@pytest.fixture
def path(tmp_path):
    with Archive.open(tmp_path / "a.db") as archive:
        fake_campaign(archive).run()
    return tmp_path / "a.db"


def test_a_path_opens_an_archive_for_reading(path, tmp_path):
    with Archive(str(path)) as archive:
        assert archive.readonly
        assert len(archive.trials()) == 6
    with pytest.raises(ArchiveError, match="no archive at"):
        Archive(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()


def test_one_row_for_each_trial_with_settings_results_and_plan(path):
    with Archive(path) as archive:
        trials = archive.trials("one")
        frame = trials.to_frame()
    assert list(frame["id"]) == [trial.id for trial in trials]
    assert list(frame["validation_accuracy"]) == [trial.validation_accuracy for trial in trials]
    assert set(frame["state"]) == {"done"}
    first = frame.iloc[0]
    assert first["experts"] == trials[0].experts
    assert (first["shape"], first["lr"], first["seed"]) == (
        str(trials[0].spec.shape),
        trials[0].spec.lr,
        trials[0].seed,
    )
    assert first["gate.width"] == trials[0].plan.gate.width
    assert first["recipe.mixup"] == trials[0].plan.recipe.mixup
    # What a stranger does first.
    best = frame.sort_values("validation_accuracy", ascending=False).iloc[0]
    assert best["validation_accuracy"] == max(trial.validation_accuracy for trial in trials)


def test_a_row_has_every_value_of_its_trial_by_name(path):
    with Archive(path) as archive:
        trial, row = archive.trials("one")[0], archive.trials("one").to_frame().iloc[0].to_dict()
    spec, plan = trial.spec, trial.plan
    expected = {
        "id": 1,
        "campaign": "one",
        "candidate_id": trial.candidate_id,
        "experts": plan.experts,
        "state": "done",
        "rung": 0,
        "replicate": 0,
        "copied_from": None,
        "outcome": "valid",
        "seed": spec.seed,
        "dataset": spec.dataset,
        "shape": "1x8x8",
        "train_size": None,
        "epochs": 2,
        **{name: getattr(spec, name) for name in ("lr", "momentum", "augment", "class_weights", "device", "threads")},
        "batch": trial.batch,
        **{name: getattr(trial, name) for name in ("validation_accuracy", "test_accuracy", "parameters", "seconds")},
        **{name: getattr(trial, name) for name in ("peak_mib", "energy_j", "suspect", "started_at", "finished_at")},
        **{f"gate.{name}": value for name, value in asdict(plan.gate).items()},
        **{f"losses.{name}": value for name, value in asdict(plan.losses).items()},
        **{f"recipe.{name}": value for name, value in asdict(plan.recipe).items()},
    }
    assert {name: None if value != value else value for name, value in row.items()} == expected


def test_one_row_for_each_epoch(path):
    with Archive(path) as archive:
        trials = archive.trials("one")
        curves = trials.to_frame(curves=True)
    assert len(curves) == sum(len(trial.curve) for trial in trials)
    last = curves.groupby("id")["validation_accuracy"].last()
    assert list(last) == [trial.validation_accuracy for trial in trials]


def test_trials_without_a_result_have_missing_values():
    with Archive.in_memory() as archive:
        assert archive.trials().to_frame().empty
        archive.add_campaign(fake_record("one"), [Plan(experts=("A", "B", "C", "D"))])
        frame = archive.trials().to_frame()
    assert set(frame["state"]) == {"ready"}
    assert frame["validation_accuracy"].isna().all()
    row = frame.iloc[0].to_dict()
    missing = ("shape", "dataset", "epochs", "outcome", "candidate_id", "started_at", "batch")
    assert {name: row[name] for name in missing} == dict.fromkeys(missing)
    assert row["seed"] == 0


def test_without_pandas_the_command_that_installs_it_is_named(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with Archive(path) as archive, pytest.raises(MissingExtraError, match=r"pip install '\.\[frame\]'"):
        archive.trials().to_frame()


def test_pandas_is_not_needed_to_read_an_archive(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert issubclass(runpy.run_path(module.__file__)["Trials"], tuple)
