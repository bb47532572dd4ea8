"""Exported weights and graphs: of a real trial, and of workers that send invalid data."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from optional import needs
from PIL import Image
from safetensors import safe_open

from nngen.archive import Archive
from nngen.checks.rules.sample_nets import net_source
from nngen.datasets import load_dataset
from nngen.datasets.batches import Preparation
from nngen.datasets.preprocessing import Preprocessing
from nngen.errors import ExportError
from nngen.export.weights import repeat
from nngen.isolation import Isolation
from nngen.isolation.protocol import MESSAGE, Frame, FrameError
from nngen.training.engine import TrainJob
from nngen.training.frames import FrameKind
from nngen.training.orders import artifact_metadata
from nngen.training.scoring import TrialScorer
from nngen.training.state.artifacts import ArtifactReport, ArtifactRequest
from nngen.types import Outcome, Trial, Verdict

pytestmark = needs("export", "onnxruntime", "onnxscript")

SPLITS = ("validation", "test")
FAMILIES = "ICNet,MNASNet,MobileNetV3,ShuffleNet"


def message(**what: object) -> Frame:
    return Frame(MESSAGE, json.dumps(what).encode())


@pytest.mark.slow
def test_the_weights_are_those_of_the_trial(nngen, tmp_path: Path) -> None:
    """The exported folder, used as its card says, and the graph repeat the predictions in the archive."""
    import onnxruntime

    archive, to = tmp_path / "a.db", tmp_path / "out"
    asked = ("--size", "1", "--families", FAMILIES, "--epochs", "1", "--lr", "0.003", "--threads", "1")
    assert nngen("campaign", "run", "one", "--archive", archive, *asked).code == 0
    result = nngen("export", "one", "--archive", archive, "--out", to, "--weights", "--onnx", "--json")
    (row,) = json.loads(result.out)
    assert (row["weights"], row["onnx"], row["same_predictions"]) == (True, True, True), result.err
    name = row["model"]
    with Archive.open(archive, readonly=True) as store:
        (trial,) = store.trials("one")
        validated, predicted = (np.frombuffer(store.predictions(trial.id, split), "<u2") for split in SPLITS)

    data, folder = load_dataset("digits"), to / "weights" / name / "digits"
    config = json.loads((folder / "config.json").read_text())
    assert Preprocessing.from_dict(config) == data.preprocessing(trial.spec.shape)
    assert config["trial"]["test_accuracy"] == config["test_accuracy"] == row["test_accuracy"]
    with safe_open(folder / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == metadata
    assert json.loads(metadata["mean"]) == list(data.mean)
    assert (metadata["model"], metadata["data"], metadata["epochs"]) == (name, data.fingerprint, "1")

    # The program that the card names, on image files: it needs neither nngen nor its cache.
    card = (to / "cards" / f"{name}.md").read_text()
    assert "kept; with them the network predicts every test image as the trial did" in card
    program = f"weights/{name}/digits/classify.py"
    assert f"python {program} photo.jpg" in card
    paths = []
    for number, image in enumerate(data.test_images):
        paths.append(f"{number}.png")
        Image.fromarray(image[0]).save(to / paths[-1])
    done = subprocess.run([sys.executable, program, *paths], cwd=to, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = np.array([int(line.split("\t")[1]) for line in done.stdout.splitlines()])
    assert np.mean(answers == data.test_labels) == row["test_accuracy"]
    assert np.array_equal(answers, predicted)

    prepare = Preparation(shape=trial.spec.shape, mean=data.mean, std=data.std)
    images = prepare(torch.from_numpy(np.array(data.validation_images)))
    (found,) = session.run(None, {"images": images.numpy()})
    assert np.array_equal(found.argmax(1), validated)


@pytest.mark.parametrize("claimed", ["process", "none", "sandbox", ""])
def test_the_level_of_a_repetition_does_not_depend_on_the_archive(exports, digits, claimed: str) -> None:
    """Sources from elsewhere run in the sandbox, whatever the archive says of their trials."""
    levels = []

    class Recording:
        def train(self, job: TrainJob, on_epoch: object = None, *, artifacts: ArtifactRequest) -> Trial:
            levels.append(job.isolation)
            verdict = Verdict(outcome=Outcome.CRASHED, message="not run")
            return Trial(candidate_id=job.candidate.id, spec=job.spec, verdict=verdict)

    export = replace(exports[0], trial=replace(exports[0].trial, isolation=claimed))
    for asked in ("auto", "process"):
        with pytest.raises(ExportError, match="not run"):
            repeat(export, digits, Recording(), ["weights"], test_predictions=b"", isolation=asked)
    assert levels == [Isolation.SANDBOX, Isolation.PROCESS]


def test_a_database_takes_no_weights(nngen, tmp_path: Path) -> None:
    result = nngen("export", "one", "--out", tmp_path / "ab.nn.db", "--weights")
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert "export them to a folder" in result.err


def test_parts_are_joined_and_the_rest_is_passed_on() -> None:
    scorer = TrialScorer(
        epochs=1, classes=2, lines=1, images=1, score=lambda _: 0.5, artifacts=ArtifactRequest(("weights",))
    )
    assert not scorer.take(message(event="ready", parameters=1), 0.0)
    assert not scorer.take(message(event="epoch", samples=0), 0.0)
    assert not scorer.take(Frame(FrameKind.VALIDATION, b""), 0.0)
    assert not scorer.take(message(event="file", name="weights"), 0.0)
    assert not scorer.take(Frame(FrameKind.FILE, b"ab"), 0.0)
    assert not scorer.take(Frame(FrameKind.FILE, b"c"), 0.0)
    assert scorer.take(Frame(FrameKind.TEST, b""), 0.0)
    assert scorer.artifacts is not None
    assert scorer.artifacts.files == {"weights": b"abc"}
    assert len(scorer.curve) == 1


@pytest.mark.parametrize(
    "frames",
    [
        [Frame(FrameKind.FILE, b"a")],
        [message(event="file", name="other")],
        [message(event="file", name="onnx")],
        [message(event="file", name="weights"), message(event="file", name="weights")],
        [message(event="no-file", name=["weights"])],
    ],
    ids=["no name", "another name", "not asked for", "twice", "no text"],
)
def test_what_was_not_asked_for(frames: list[Frame]) -> None:
    scorer = TrialScorer(
        epochs=1, classes=2, lines=1, images=1, score=lambda _: 0.5, artifacts=ArtifactRequest(("weights",))
    )
    with pytest.raises(FrameError):
        for frame in frames:
            scorer.take(frame, 0.0)


def test_all_files_together_have_at_most_the_memory_of_the_trial() -> None:
    artifacts = ArtifactRequest(("weights",))
    artifacts.clear(limit_mib=2)
    artifacts.announce({"event": "file", "name": "weights"})
    artifacts.append(bytes(2 * 2**20))
    with pytest.raises(FrameError, match="files of more than 2 MiB"):
        artifacts.append(b"x")


def _request(**files: bytes) -> ArtifactRequest:
    artifacts = ArtifactRequest(("weights", "onnx"))
    artifacts.files.update({name: bytearray(content) for name, content in files.items()})
    return artifacts


def test_files_of_a_candidate_are_opened_by_a_worker_alone(engine, job, monkeypatch) -> None:
    for opener in ("onnxruntime.InferenceSession", "safetensors.numpy.load", "safetensors.deserialize"):
        monkeypatch.setattr(opener, lambda *_, **__: pytest.fail("opened in the launching process"))
    training = job(net_source())
    report = engine.open_artifacts(_request(weights=b"no weights", onnx=b"no graph", example=b"no tensors"), training)
    assert "header" in report.weights
    assert report.onnx.startswith("onnxruntime cannot run it: ")
    assert report.difference is None
    assert engine.open_artifacts(_request(), training) == ArtifactReport()


def test_a_file_that_ends_the_worker_is_not_exported(engine, job) -> None:
    # Eight bytes say how long the header is: this one would need more memory than the worker may have.
    huge = (2**40).to_bytes(8, "little") + b"{}"
    report = engine.open_artifacts(_request(weights=huge), job(net_source()))
    assert report.weights
    late = engine.open_artifacts(_request(weights=bytes(2**20)), job(net_source(), time_limit_s=1e-3))
    assert late.weights.startswith("they could not be opened: ran longer than 0.001 s")


def test_metadata_that_a_candidate_changed_are_refused(engine, job) -> None:
    training = job(net_source())
    metadata = artifact_metadata(training)
    true, forged = (safetensors.torch.save({"w": torch.zeros(1)}, {**metadata, **new}) for new in ({}, {"mean": "[0]"}))
    assert engine.open_artifacts(_request(weights=true), training).weights == ""
    assert "metadata are not those" in engine.open_artifacts(_request(weights=forged), training).weights
