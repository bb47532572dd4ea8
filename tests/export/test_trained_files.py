"""Files of a trained network: which trial they come from, what is asked of the engine, and what of a fault becomes."""

from __future__ import annotations

from dataclasses import replace
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nngen.errors import ExportError, UsageError
from nngen.export import weights as module
from nngen.export.selection import TrainedFiles
from nngen.export.weights import best_trial, check_installed, from_kept, repeat, with_weights
from nngen.isolation import Isolation
from nngen.training.engine import TrainJob
from nngen.training.inference import PredictJob
from nngen.training.orders import artifact_metadata
from nngen.training.state.artifacts import ArtifactReport
from nngen.types import Candidate, EpochResult, Outcome, Trial, Verdict

ALL = {"weights": b"w", "onnx": b"g", "example": b"e"}


class FakeTrainer:
    """Engine that hands over the given files and the given report on them."""

    def __init__(self, files: dict[str, bytes], report: ArtifactReport, predictions: bytes = b"", **reasons: str):
        self.files, self.report, self.predictions, self.reasons = files, report, predictions, reasons
        self.jobs: list[TrainJob] = []

    def train(self, job, on_epoch, *, artifacts):
        self.jobs.append(job)
        artifacts.files.update({name: bytearray(content) for name, content in self.files.items()})
        artifacts.reasons.update(self.reasons)
        for epoch in (1, 2):
            on_epoch(EpochResult(epoch=epoch, validation_accuracy=0.5, train_loss=1.0, seconds=1.0))
        verdict = Verdict(outcome=Outcome.VALID)
        return Trial(candidate_id=job.candidate.id, spec=job.spec, verdict=verdict, test_predictions=self.predictions)

    def open_artifacts(self, artifacts, job):
        assert job == self.jobs[-1]
        return self.report


@pytest.fixture
def wanted(exports, digits) -> TrainJob:
    export = exports[0]
    return TrainJob(
        candidate=Candidate(
            id=export.candidate.id, source=export.candidate.source, canonical=export.candidate.canonical
        ),
        spec=replace(export.trial.spec, time_limit_s=export.trial.spec.time_limit_s + 600),
        dataset=digits,
        isolation=Isolation.PROCESS,
    )


def right(digits, number: int) -> bytes:
    labels = np.asarray(digits.test_labels)
    return np.where(np.arange(len(labels)) < number, labels, (labels + 1) % 10).astype("<u2").tobytes()


def test_a_repetition_tells_of_its_epochs_and_whether_it_predicts_the_same(exports, digits, wanted):
    report, epochs = ArtifactReport(difference=1e-6), []
    for stored in (right(digits, 300), right(digits, 299)):
        engine = FakeTrainer(ALL, report, right(digits, 300))
        found = repeat(
            exports[0], digits, engine, ["weights", "onnx"], test_predictions=stored, isolation="process",
            on_epoch=epochs.append,
        )  # fmt: skip
        assert engine.jobs == [wanted]
        assert found == TrainedFiles(
            export=exports[0], weights=b"w", onnx=b"g", reason="", difference=1e-6, kept=False,
            same=stored == right(digits, 300), test_accuracy=300 / len(digits.test_labels),
        )  # fmt: skip
    assert epochs == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("asked", "files", "report", "weights", "onnx", "reason"),
    [
        (["weights"], ALL, ArtifactReport(), b"w", None, ""),
        (["weights"], {"weights": b"w"}, ArtifactReport(), b"w", None, ""),
        (["onnx"], {"onnx": b"g", "example": b"e"}, ArtifactReport(weights="not looked at"), None, b"g", ""),
        (["onnx"], ALL, ArtifactReport(onnx="it differs"), None, None, "it differs"),
        (["weights", "onnx"], ALL, ArtifactReport(), b"w", b"g", ""),
        (["onnx"], {"onnx": b"g"}, ArtifactReport(), None, None, "torch cannot write it as ONNX: {}"),
        (["onnx"], {"example": b"e"}, ArtifactReport(), None, None, "torch cannot write it as ONNX: {}"),
        (["onnx", "weights"], {"weights": b"w"}, ArtifactReport(), b"w", None, "torch cannot write it as ONNX: {}"),
    ],
)
@pytest.mark.parametrize("why", ["", "an operator is missing"])
def test_only_files_that_were_asked_for_and_have_no_fault_are_taken(
    exports, digits, asked, files, report, weights, onnx, reason, why
):
    engine = FakeTrainer(files, report, right(digits, 9), **({"onnx": why} if why else {}))
    found = repeat(exports[0], digits, engine, asked, test_predictions=right(digits, 9))
    assert (found.weights, found.onnx, found.reason) == (weights, onnx, reason.format(why or "no graph came"))


@pytest.mark.parametrize(
    ("files", "report", "fault"),
    [
        ({}, ArtifactReport(), "none came"),
        ({"onnx": b"g"}, ArtifactReport(), "none came"),
        ({"weights": b"w"}, ArtifactReport(weights="a header"), "a header"),
        ({}, ArtifactReport(weights="a header"), "a header"),
    ],
)
def test_an_export_without_its_weights_fails(exports, digits, files, report, fault):
    with pytest.raises(ExportError) as failure:
        repeat(exports[0], digits, FakeTrainer(files, report), ["weights"], test_predictions=b"")
    assert str(failure.value) == f"{exports[0].candidate.id} gave no weights: {fault}"


@pytest.mark.parametrize(("asked", "device"), [("cpu", "cpu"), ("auto", "a card"), ("cuda", "a card")])
def test_kept_weights_predict_as_the_trial_was_trained(exports, digits, wanted, monkeypatch, asked, device):
    spec = replace(exports[0].trial.spec, device=asked, threads=3, memory_mib=777)
    export = replace(exports[0], trial=replace(exports[0].trial, spec=spec))
    job = replace(wanted, spec=replace(spec, time_limit_s=spec.time_limit_s + 600))
    jobs: list[PredictJob] = []

    def predict(order: PredictJob) -> Any:
        jobs.append(order)
        assert order.artifacts is not None
        order.artifacts.files.update(weights=bytearray(b"w"))
        return np.eye(10, dtype=np.float32)[np.frombuffer(right(digits, 90), "<u2")]

    monkeypatch.setattr(module, "predict_logits", predict)
    monkeypatch.setattr(module, "pick_device", lambda: "a card")
    engine = FakeTrainer({}, ArtifactReport())
    engine.jobs = [job]
    kept: Any = "the weights of a trial"
    found = from_kept(
        export, digits, engine, ["weights"], kept, test_predictions=right(digits, 90), isolation="process"
    )  # fmt: skip
    assert jobs == [
        PredictJob(
            source=export.candidate.source, kept=kept, images=digits.file("test-images"), count=359, device=device,
            threads=3, time_limit_s=spec.time_limit_s + 600, memory_mib=777, isolation=Isolation.PROCESS,
            artifacts=jobs[0].artifacts, metadata=artifact_metadata(job),
        )
    ]  # fmt: skip
    assert found == TrainedFiles(
        export=export, weights=b"w", onnx=None, reason="", difference=None, kept=True, same=True, test_accuracy=90 / 359
    )


# Choice of the trial


def test_the_best_trial_is_of_the_highest_rung_and_one_with_kept_weights_comes_first(exports):
    trial = exports[0].trial

    def made(number: int, accuracy: float | None, rung: int = 1, **spec: object):
        return replace(trial, id=number, validation_accuracy=accuracy, rung=rung, spec=replace(trial.spec, **spec))

    low, best, same, longer = made(1, 0.9, 0), made(4, 0.5), made(3, 0.5), made(5, 0.4, epochs=9)
    worse, none = made(2, 0.3), made(6, None)
    trials = [low, none, worse, best, same, longer]
    assert best_trial(trials).id == 3
    assert best_trial(trials, kept=[4]).id == 4
    assert best_trial(trials, kept=[1, 5]).id == 3  # of another rung, of another fidelity
    assert best_trial(trials, kept=[2, 6]).id == 2
    assert best_trial([none, made(7, 0.001)], kept=[]).id == 7
    assert best_trial([none, made(7, 0.001)], kept=[6, 7]).id == 7
    assert best_trial([made(8, 0.0), none, made(9, 0.0)]).id == 6
    assert best_trial([low, longer, made(7, 0.45, epochs=9)]).id == 7
    assert best_trial([worse, longer]).id == 5  # the better one, although of another fidelity
    assert best_trial([made(1, None, epochs=9), made(7, 0.001)]).id == 7


def test_one_trial_of_each_model_and_data_set_has_weights_and_the_best_comes_first(exports):
    def made(of: int, number: int, accuracy: float | None, dataset: str = "digits"):
        one = exports[of]
        trial = replace(one.trial, id=number, validation_accuracy=accuracy)
        return replace(one, trial=trial, results=one.results._replace(dataset=dataset))

    first, kept, other = made(0, 11, 0.7), made(0, 12, 0.6), made(0, 13, 0.8, "mine")
    second, third = made(1, 14, None), made(2, 15, 0.01)
    given = [second, first, kept, other, third]
    assert with_weights(given) == (other, first, third, second)
    assert with_weights(given, kept=[12]) == (other, kept, third, second)
    assert with_weights([]) == ()


# Packages


@pytest.mark.parametrize(
    ("names", "installed", "missing"),
    [
        (["weights"], [], "safetensors"),
        (["weights"], ["safetensors"], ""),
        (["onnx"], ["safetensors"], "onnx, onnxscript, onnxruntime"),
        (["weights", "onnx"], ["onnx", "onnxruntime"], "safetensors, onnxscript"),
        (["weights", "onnx"], ["safetensors", "onnx", "onnxruntime", "onnxscript"], ""),
    ],
)
def test_missing_packages_are_named(monkeypatch, names, installed, missing):
    monkeypatch.setattr(util, "find_spec", lambda name: Path(name) if name in installed else None)
    if not missing:
        check_installed(names)
        return
    with pytest.raises(UsageError) as failure:
        check_installed(names)
    assert str(failure.value) == f"{missing} missing: pip install '.[export]' in nngen's folder"
