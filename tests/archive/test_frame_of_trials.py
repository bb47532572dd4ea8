"""Trials of an archive as a data frame: rows, columns, missing values, curves, and an archive opened by its path."""

from __future__ import annotations

import sys

import pytest

from nngen.archive import Archive
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


def test_without_pandas_the_command_that_installs_it_is_named(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with Archive(path) as archive, pytest.raises(MissingExtraError, match=r"pip install '\.\[frame\]'"):
        archive.trials().to_frame()
