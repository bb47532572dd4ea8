"""Attempts of the local engine at one training: smaller batches, and folders from which a training goes on."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from fake_runner import (
    CARDS,
    DONE,
    FILES,
    FULL,
    LATE,
    READY,
    SPEC,
    WORK,
    a_trial,
    training,
    with_spec,
)

from nngen.training.frames import FrameKind
from nngen.training.orders import TrainOrder
from nngen.training.state.checkpoints import TrialFolder, training_key
from nngen.types import EpochResult, Outcome


def failing(*results: Any) -> list[tuple[list[Any], Any]]:
    """Return the scripts of trainings that end after the net was built."""
    return [([READY], result) for result in results]


@pytest.mark.parametrize(
    ("results", "changes", "tried"),
    [
        ([FULL] * 6, {"time_limit_s": 600.0}, (64, 32, 16, 8, 4, 2)),
        ([replace(FULL, peak_mib=599.9)] * 3, {}, (64, 32, 16)),
        (
            [FULL, replace(FULL, peak_mib=1.0), FULL, replace(FULL, peak_mib=1.0), FULL],
            {"batch": 33},
            (33, 16, 8, 4, 2),
        ),
        ([FULL] * 6, {}, (64, 32, 16, 8, 4, 2)),
        ([replace(FULL, seconds=20.0)] * 3, {}, (64, 32, 16)),
        ([FULL] * 2, {"batch": 4}, (4, 2)),
        ([replace(FULL, peak_mib=0.0)] * 4, {"device": "cuda", "batch": 16}, (16, 8, 4, 2)),
    ],
)
def test_the_batch_is_halved_while_there_is_hope(results, changes, tried, scripted) -> None:
    engine, runner = scripted(*failing(*results), cards=CARDS)
    work = with_spec(**changes)
    trial = engine.train(work)
    assert trial.batches_tried == tried
    assert trial.verdict.message.endswith(f" (batches of {', '.join(map(str, tried))} were tried)")
    assert (trial.verdict.outcome, trial.spec, trial.batch) == (Outcome.MEMORY, work.spec, tried[-1])
    assert trial.seconds == sum(result.seconds for result in results)
    spent = [sum(result.seconds for result in results[:number]) for number in range(len(results))]
    assert [job.limits.time_limit_s for job in runner.jobs] == [work.spec.time_limit_s - seconds for seconds in spent]
    assert [job.arguments["batch"] for job in runner.jobs] == [*tried]
    assert runner.scripts == []


def test_a_batch_that_fits_after_halving_is_the_trials(scripted) -> None:
    engine, _ = scripted(*failing(FULL), (training(), DONE))
    prm = a_trial().prm | {"batch": 32}
    assert engine.train(WORK) == a_trial(batch=32, batches_tried=(64, 32), prm=prm, seconds=12.5)


def test_a_folder_says_by_which_batch_its_weights_were_trained(scripted, tmp_path: Path) -> None:
    folder = TrialFolder(path=tmp_path / "trial", keep=True)
    weights = [{"event": "file", "name": "weights", "bytes": 1}, (FrameKind.FILE, b"w")]
    *frames, test = training()
    engine, _ = scripted(*failing(FULL), ([*frames, *weights, test], DONE))
    assert engine.train(replace(WORK, folder=folder)).batch == 32
    order = json.loads((folder.path / "config.json").read_text())["order"]
    assert (order["batch"], order["hyperparameters"]["batch"]) == (32, 32)


def test_nothing_of_a_larger_batch_is_kept(scripted, tmp_path: Path) -> None:
    folder = TrialFolder(path=tmp_path / "trial", before=tmp_path / "before")
    ready, epoch, validation, *_ = training()
    state = [{"event": "file", "name": "checkpoint", "bytes": 3}, (FrameKind.FILE, b"abc")]
    engine, _ = scripted(([ready, epoch, validation, *state], FULL), ([READY], LATE))
    engine.train(replace(with_spec(epochs=2), folder=folder))
    assert (folder.path.exists(), folder.before) == (False, None)


@pytest.mark.parametrize(("frames", "result"), [([], FULL), ([READY], LATE), ([READY], replace(DONE, status=256))])
def test_what_no_smaller_batch_mends_is_tried_once(frames, result, scripted) -> None:
    engine, runner = scripted((frames, result))
    trial = engine.train(WORK)
    assert (len(runner.jobs), trial.batches_tried, trial.seconds) == (1, (), result.seconds)
    assert trial.validation_accuracy is None
    assert "were tried" not in trial.verdict.message


def test_want_of_memory_stays_the_verdict_where_time_ends_later(scripted) -> None:
    engine, _ = scripted(*failing(FULL, LATE))
    trial = engine.train(WORK)
    assert (trial.verdict.outcome, trial.batches_tried, trial.seconds) == (Outcome.MEMORY, (64, 32), 50.0)
    assert trial.verdict.message == (
        "used 600 MiB, more than the limit of 1 MiB: choose smaller batches or images, or raise --memory-mib (batches"
        " of 64, 32 were tried)"
    )


def test_weights_are_described_and_a_training_goes_on_from_its_folder(scripted, tmp_path: Path) -> None:
    notes: list[str] = []
    folder = TrialFolder(path=tmp_path / "trial", keep=True, note=notes.append)
    work = replace(with_spec(epochs=2), folder=folder)
    ready, epoch, validation, *_ = training()
    state = [{"event": "file", "name": "checkpoint", "bytes": 3}, (FrameKind.FILE, b"abc")]
    weights = [{"event": "file", "name": "weights", "bytes": 1}, (FrameKind.FILE, b"w")]
    late = replace(LATE, seconds=30.0)
    part = [{"event": "file", "name": "weights", "bytes": 2}, (FrameKind.FILE, b"w")]
    engine, runner = scripted(([ready, epoch, validation, *state, *part], late))
    assert engine.train(work).verdict.outcome is Outcome.TIMEOUT
    point = EpochResult(epoch=1, validation_accuracy=3 / 40, seconds=2.0, samples=10)
    key = training_key(WORK.candidate, work.spec, "d1", {"torch": "2"})
    # A file that did not come whole is removed.
    assert sorted(file.name for file in folder.path.iterdir()) == ["checkpoint-1.safetensors", "checkpoint.json"]
    record = json.loads((folder.path / "checkpoint.json").read_text())
    assert record == json.loads(json.dumps({"key": key, "tried": [], "before": 0, "batch": 64, "seconds": 0.0})) | {
        "epoch": 1,
        "curve": [asdict(point) | {"usage": []}],
        "predictions": record["predictions"],
        "file": "checkpoint-1.safetensors",
        "bytes": 3,
    }
    (folder.path / "checkpoint.json").write_text(json.dumps(record | {"seconds": 12.0, "tried": [128]}))
    engine, runner = scripted(([ready, epoch, validation, *state, *weights, training()[-1]], DONE))
    trial = engine.train(work)
    (job,) = runner.jobs
    assert job.files == [*FILES, folder.path / "checkpoint-1.safetensors"]
    assert (job.limits.time_limit_s, job.arguments["done"]) == (48.0, 1)
    assert job.arguments["artifacts"] == ("checkpoint", "weights", "logits")
    assert job.arguments["metadata"] == {}
    assert [epoch.epoch for epoch in trial.curve] == [1, 2]
    assert json.loads((folder.path / "checkpoint.json").read_text())["seconds"] == 12.0
    assert trial.curve[0] == point
    assert (trial.seconds, trial.batches_tried, trial.epochs_before) == (14.5, (128, 64), None)
    config = json.loads((folder.path / "config.json").read_text())
    order = TrainOrder.of(work)
    assert config == json.loads(
        json.dumps({"order": order.to_json(), **work.dataset.preprocessing(SPEC.shape).to_dict()})
    )
    assert notes == ["goes on after epoch 1"]


def test_a_checkpoint_that_does_not_fit_begins_the_training_anew(scripted, tmp_path: Path) -> None:
    notes: list[str] = []
    folder = TrialFolder(path=tmp_path / "trial", note=notes.append)
    work = replace(with_spec(epochs=2), folder=folder)
    ready, epoch, validation, *_ = training()
    state = [{"event": "file", "name": "checkpoint", "bytes": 3}, (FrameKind.FILE, b"abc")]
    engine, _ = scripted(([ready, epoch, validation, *state], LATE))
    engine.train(work)
    record = folder.path / "checkpoint.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"batch": 8, "seconds": 60.0}))
    misfit = {"event": "verdict", "outcome": "crashed", "rule": "worker.restore", "message": "no", "line": None}
    engine, runner = scripted(([misfit], DONE), (training(2), DONE))
    trial = engine.train(work)
    assert notes == ["goes on after epoch 1", "starts again at epoch 1: no"]
    assert [(job.arguments["batch"], job.limits.time_limit_s) for job in runner.jobs] == [(8, 0.1), (64, 60.0)]
    assert (trial.batch, trial.seconds, len(trial.curve), trial.batches_tried) == (64, 2.5, 2, ())


def test_a_smaller_batch_does_not_go_on_from_a_checkpoint(scripted, tmp_path: Path) -> None:
    folder = TrialFolder(path=tmp_path / "trial", before=tmp_path / "before")
    ready, epoch, validation, *_ = training()
    state = [{"event": "file", "name": "checkpoint", "bytes": 3}, (FrameKind.FILE, b"abc")]
    before = TrialFolder(path=tmp_path / "before")
    engine, _ = scripted(([ready, epoch, validation, *state], LATE))
    engine.train(replace(with_spec(epochs=2, horizon=3), folder=before))
    work = replace(with_spec(epochs=3), folder=folder)
    engine, runner = scripted(*failing(FULL), (training(3), DONE))
    trial = engine.train(work)
    assert [job.arguments["done"] for job in runner.jobs] == [1, 0]
    assert (trial.batches_tried, trial.epochs_before, len(trial.curve)) == ((64, 32), None, 3)
    folder.before = tmp_path / "before"
    engine, _ = scripted(([ready, *[epoch, validation] * 2, training()[-1]], DONE))
    trial = engine.train(work)
    assert (trial.epochs_before, len(trial.curve), trial.batches_tried) == (1, 3, ())
