"""Checkpoints of trials: an interrupted training goes on after its last epoch and ends with the same digits."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from nngen.checks.rules.sample_nets import net_source
from nngen.isolation import FrameError
from nngen.training.inference import KeptWeights
from nngen.training.state.checkpoints import FolderSink, TrialFolder
from nngen.types import Outcome

GOLDEN = Path(__file__).parents[1] / "golden" / "homogeneous.py"
MOMENTUM = net_source(
    init="self.seen = 0",
    loss="self.seen += 1",
    forward="return self.head(nn.functional.dropout(x, 0.2, self.training))",
)


class InterruptedTestError(Exception):
    pass


@pytest.fixture
def notes():
    return []


@pytest.fixture
def folder(tmp_path, notes):
    return TrialFolder(path=tmp_path / "trial-1", note=notes.append)


def interrupted(engine, job, epoch):
    """Run a training that is ended by this process after an epoch, before its checkpoint."""

    def stop(point):
        if point.epoch == epoch:
            raise InterruptedTestError

    with pytest.raises(InterruptedTestError):
        engine.train(job, stop)


def stored_epoch(folder):
    """Return the epoch of the checkpoint: 2, or 1 where the machine is too busy to store each."""
    epoch = json.loads((folder.path / "checkpoint.json").read_text())["epoch"]
    assert epoch in (1, 2)
    return epoch


def stored_seconds(folder):
    return json.loads((folder.path / "checkpoint.json").read_text())["seconds"]


def without_times(curve):
    return [replace(point, seconds=0.0) for point in curve]


@pytest.mark.parametrize("source", [MOMENTUM, GOLDEN.read_text()], ids=["linear", "mixture"])
def test_an_interrupted_training_goes_on_and_ends_with_the_same_digits(source, engine, job, folder, notes):
    work = job(source, epochs=4, lr=0.01, batch=256)
    whole = engine.train(work)
    assert whole.verdict.valid, whole.verdict.message
    interrupted(engine, replace(work, folder=folder), 3)
    done = stored_epoch(folder)
    assert sorted(file.name for file in folder.path.iterdir()) == [f"checkpoint-{done}.safetensors", "checkpoint.json"]
    epochs = []
    resumed = engine.train(replace(work, folder=folder), lambda point: epochs.append(point.epoch))
    assert (notes, epochs) == ([f"goes on after epoch {done}"], [*range(done + 1, 5)])
    assert resumed.test_predictions == whole.test_predictions
    assert resumed.validation_predictions == whole.validation_predictions
    assert without_times(resumed.curve) == without_times(whole.curve)
    same = replace(whole, curve=resumed.curve, seconds=resumed.seconds, peak_mib=resumed.peak_mib)
    assert resumed == same


def damage_tensors(folder, work):
    (file,) = folder.path.glob("checkpoint-*")
    file.write_bytes(b"\0" * file.stat().st_size)
    return work


def cut_tensors(folder, work):
    (file,) = folder.path.glob("checkpoint-*")
    file.write_bytes(file.read_bytes()[:-1])
    return work


def damage_record(folder, work):
    record = json.loads((folder.path / "checkpoint.json").read_text())
    (folder.path / "checkpoint.json").write_text(json.dumps(record | {"curve": [1]}))
    return work


def change_seed(folder, work):
    return replace(work, spec=replace(work.spec, seed=5))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (damage_tensors, "its state cannot be restored: not a safetensors file"),
        (cut_tensors, "checkpoint-"),
        (damage_record, "checkpoint.json is damaged"),
        (change_seed, "its file, its settings, the data or torch have changed"),
    ],
)
def test_without_a_checkpoint_that_fits_it_starts_again(change, reason, engine, job, folder, notes):
    work = job(net_source(), epochs=3, batch=512)
    interrupted(engine, replace(work, folder=folder), 3)
    work = change(folder, work)
    epochs = []
    resumed = engine.train(replace(work, folder=folder), lambda point: epochs.append(point.epoch))
    assert epochs == [1, 2, 3]
    assert notes[-1].startswith(f"starts again at epoch 1: {reason}")
    assert resumed.test_predictions == engine.train(work).test_predictions


def test_what_cannot_be_stored_starts_again_with_the_reason(engine, job, folder, notes):
    work = replace(job(net_source(init="self.rest = iter([1])"), epochs=3, batch=512), folder=folder)
    interrupted(engine, work, 3)
    assert engine.train(work).verdict.valid
    assert notes == ["starts again at epoch 1: net.rest is a list_iterator, whose state cannot be stored"]


def test_a_foreign_file_starts_again_with_the_reason(engine, job, folder, notes):
    foreign = replace(folder, foreign="not assembled here")
    work = replace(job(net_source(), epochs=3, batch=512), folder=foreign)
    interrupted(engine, work, 3)
    assert notes == []
    assert engine.train(work).verdict.valid
    assert notes == ["starts again at epoch 1: not assembled here"]


def test_the_halved_batch_stays(engine, job, folder, notes):
    source = net_source(loss="if len(inputs) > 32: raise MemoryError")
    work = job(source, epochs=3)
    whole = engine.train(work)
    interrupted(engine, replace(work, folder=folder), 3)
    done = stored_epoch(folder)
    resumed = engine.train(replace(work, folder=folder))
    assert notes == [f"goes on after epoch {done}"]
    assert (resumed.batch, resumed.batches_tried) == (whole.batch, whole.batches_tried) == (32, (64, 32))
    assert resumed.test_predictions == whole.test_predictions


def test_time_before_the_interruption_counts(engine, job, folder):
    work = replace(job(net_source(loss="import time; time.sleep(0.1)"), epochs=3, batch=512), folder=folder)
    interrupted(engine, work, 3)
    before = stored_seconds(folder)
    assert before > 0.3
    assert engine.train(work).seconds > before
    interrupted(engine, work, 3)
    late = engine.train(replace(work, spec=replace(work.spec, time_limit_s=stored_seconds(folder))))
    assert late.verdict.outcome is Outcome.TIMEOUT


def test_a_full_disk_costs_the_checkpoint_and_nothing_else(engine, job, folder, notes, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
    work = replace(job(net_source(), epochs=3, batch=512), folder=replace(folder, keep=True))
    trial = engine.train(work)
    assert trial.verdict.valid
    assert len(notes) == 1
    assert notes[0].startswith(f"checkpoint not stored in {folder.path}: 0 MiB are needed, and 1 MiB are free")
    assert list(folder.path.iterdir()) == []


def test_kept_weights_are_those_that_predicted(engine, job, folder, digits):
    work = job(net_source(), epochs=2, batch=512)
    trial = engine.train(replace(work, folder=replace(folder, keep=True)))
    folder.clear(keep=True)
    files = ["config.json", "logits.safetensors", "weights.safetensors"]
    assert sorted(file.name for file in folder.path.iterdir()) == files
    weights = load_file(folder.path / "weights.safetensors")
    assert {name: tuple(value.shape) for name, value in weights.items()} == {
        "head.1.weight": (10, 64),
        "head.1.bias": (10,),
    }
    logits = load_file(folder.path / "logits.safetensors")["validation"]
    assert logits.shape == (len(digits.validation_labels), 10)
    assert logits.argmax(1).numpy().astype("<u2").tobytes() == trial.validation_predictions
    folder.clear(keep=False)
    assert not folder.path.exists()


def test_long_names_of_classes_are_beside_the_weights(engine, job, folder, digits):
    data = replace(digits, class_names=tuple("x" * 8000 + str(label) for label in range(10)))
    trial = engine.train(replace(job(net_source(), dataset=data, batch=512), folder=replace(folder, keep=True)))
    assert trial.verdict.valid
    assert KeptWeights.read(folder.path).preprocessing.class_names == data.class_names


@pytest.fixture
def sink(folder):
    return FolderSink(folder=folder, names=("checkpoint",), limit=10, progress=lambda: {"epoch": 1})


@pytest.mark.parametrize(
    "message",
    [
        {"event": "file", "name": "weights", "bytes": 3},
        {"event": "file", "name": "../x", "bytes": 3},
        {"event": "file", "name": "checkpoint", "bytes": 11},
        {"event": "file", "name": "checkpoint", "bytes": 0},
        {"event": "file", "name": "checkpoint", "bytes": "3"},
        {"event": "file", "name": ["checkpoint"], "bytes": 3},
    ],
)
def test_a_file_that_was_not_asked_for_is_refused(sink, folder, message):
    with pytest.raises(FrameError):
        sink.announce(message)
    assert not folder.path.exists()


def test_parts_beyond_the_announced_size_and_second_files_are_refused(sink, folder):
    with pytest.raises(FrameError):
        sink.append(b"a")
    sink.announce({"event": "file", "name": "checkpoint", "bytes": 3})
    sink.append(b"ab")
    with pytest.raises(FrameError):
        sink.append(b"cd")
    sink.append(b"c")
    assert (folder.path / "checkpoint-1.safetensors").read_bytes() == b"abc"
    with pytest.raises(FrameError):
        sink.announce({"event": "file", "name": "checkpoint", "bytes": 3})


def test_a_file_that_did_not_come_whole_leaves_nothing(sink, folder):
    sink.announce({"event": "file", "name": "checkpoint", "bytes": 3})
    sink.append(b"ab")
    sink.close()
    assert list(folder.path.iterdir()) == []
