"""Jobs that the local engine gives to its workers, and trials that it makes of their frames, without workers."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from descriptors import open_descriptors
from fake_runner import (
    CARDS,
    DONE,
    EPOCH,
    FILES,
    FRAMES,
    LATE,
    READY,
    WORK,
    a_trial,
    frame,
    training,
    with_spec,
)

from nngen.errors import DataError, UsageError
from nngen.isolation import Isolation, Job, JobResult, Limits
from nngen.isolation.limits import MIB
from nngen.training import LocalEngine
from nngen.training.cards import Card
from nngen.training.engine import CheckJob
from nngen.training.frames import FrameKind
from nngen.training.memory_model import Prediction
from nngen.training.orders import TrainOrder, artifact_metadata
from nngen.training.state.artifacts import ArtifactReport, ArtifactRequest
from nngen.types import EpochResult, Outcome, Shape, Trial, Verdict


@pytest.mark.long
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_check_is_one_job_and_a_question(device: str, scripted) -> None:
    opened = open_descriptors()
    engine, runner = scripted(([{"event": "imported"}, "answer"], DONE), cards=CARDS)

    def answer(job: Job) -> tuple[int, bytes]:
        (question,) = job.inputs
        return FrameKind.PROOF, os.read(question, 64) + b"b" * 32 + b"a" * 32 + bytes(4 * 3 * 7)

    runner.answer = answer
    asked = CheckJob(
        candidate=WORK.candidate,
        shape=Shape(3, 4, 5),
        classes=7,
        hyperparameters={"a": 1},
        device=device,
        threads=2,
        isolation=Isolation.SANDBOX,
    )
    assert engine.check(asked) == Verdict(outcome=Outcome.VALID)
    (job,) = runner.jobs
    arguments = {"shape": "3x4x5", "classes": 7, "hyperparameters": {"a": 1}, "device": device, "threads": 2}
    assert job == Job(
        entry_point="nngen.training.worker:check",
        arguments=arguments,
        limits=Limits(time_limit_s=60.0, memory_mib=12_288),
        isolation=Isolation.SANDBOX,
        source="x = 1\n",
        inputs=job.inputs,
        frames={FrameKind.PROOF: range(180, 181)},
        cuda=device == "cuda",
        card="" if device == "cpu" else "3",
    )
    assert open_descriptors() <= opened


def test_a_check_without_an_answer_is_explained(scripted) -> None:
    engine, _ = scripted(([], LATE), ([], DONE))
    asked = CheckJob(candidate=WORK.candidate, shape=Shape(1, 8, 8), isolation=Isolation.PROCESS)
    assert (asked.classes, asked.hyperparameters, asked.device, asked.threads) == (10, {}, "cpu", 1)
    assert engine.check(asked).outcome is Outcome.TIMEOUT
    for changes, words in (({"threads": 0}, "threads must be"), ({"shape": Shape(5, 8, 8)}, "5x8x8")):
        with pytest.raises(UsageError, match=words):
            engine.check(replace(asked, **changes))


def test_a_training_is_one_job_and_one_trial(scripted) -> None:
    engine, runner = scripted((training(), DONE))
    seen: list[EpochResult] = []
    trial = engine.train(WORK, seen.append)
    assert trial == a_trial()
    assert seen == [*trial.curve]
    assert runner.jobs == [
        Job(
            entry_point="nngen.training.worker:train",
            arguments=TrainOrder.of(WORK, whole_mib=50.0).to_json(),
            limits=Limits(time_limit_s=60.0, memory_mib=1200),
            isolation=Isolation.SANDBOX,
            source="x = 1\n",
            files=FILES,
            frames=FRAMES,
        )
    ]


def test_a_compiled_training_with_logits_from_other_weights(scripted) -> None:
    logits = [[1.0 if place == (number == 0) else 0.0 for place in range(10)] for number in range(40)]
    body = np.array(logits, "<f2").tobytes()
    *frames, test = training()
    started = [frames[0] | {"started": "2 experts trained alone"}, *frames[1:], (FrameKind.LOGITS, body), test]
    engine, runner = scripted((started, DONE), compiled=True)
    files = {"start": Path("start"), "experts": (Path("a"), Path("b"))}
    work = replace(with_spec(start="0" * 64), logits=True, **files)
    environment = a_trial().environment | {"compiled": "yes", "started_from": "2 experts trained alone"}
    assert engine.train(work) == a_trial(spec=work.spec, validation_logits=body, environment=environment)
    (job,) = runner.jobs
    assert job.arguments == TrainOrder.of(work, compiled=True, whole_mib=50.0).to_json()
    assert job.files == [*FILES, Path("start"), Path("a"), Path("b")]
    assert job.frames == FRAMES | {FrameKind.LOGITS: range(800, 801)}


def test_files_that_are_asked_for_come_with_the_trial(scripted) -> None:
    file = [{"event": "file", "name": "weights", "bytes": 3}, (FrameKind.FILE, b"abc")]
    *frames, test = training()
    engine, runner = scripted(([*frames, *file, test], DONE))
    request = ArtifactRequest(names=("weights",), files={"weights": bytearray(b"old")})
    assert engine.train(WORK, artifacts=request).verdict.valid
    assert request.files == {"weights": b"abc"}
    (job,) = runner.jobs
    metadata = artifact_metadata(WORK)
    order = TrainOrder.of(WORK, artifacts=("weights",), whole_mib=50.0, metadata=metadata)
    assert job.arguments == order.to_json()
    assert job.frames == FRAMES | {FrameKind.FILE: range(2**20 + 1)}
    with pytest.raises(Exception, match="files of more than 1,200 MiB"):
        request.files["weights"] = type("Large", (bytearray,), {"__len__": lambda _: 1200 * MIB})()
        request.append(b"a")


def test_whoever_scores_judges_what_is_suspect(scripted) -> None:
    engine, _ = scripted((training(), DONE), (training(), DONE))
    own = engine.train(WORK, score=lambda body: len(body) / 100)
    assert (own.validation_accuracy, own.suspect) == (0.8, "")
    many = [READY, EPOCH | {"samples": 30}, *training()[2:]]
    engine, _ = scripted((many, DONE), (many, DONE))
    assert engine.train(WORK).suspect == "3 passes in epoch 1"
    assert engine.train(WORK, score=lambda _: 1.0).suspect == ""


@pytest.mark.parametrize(
    ("device", "compiled", "seconds", "suspect"),
    [
        ("cpu", False, 2.0, False),
        ("cpu", False, 2.5, True),
        ("cpu", True, 99.0, False),
        ("cuda", False, 30.0, False),
        ("cuda", False, 30.5, True),
    ],
)
def test_an_epoch_is_compared_with_its_predictions_from_some_seconds_on(
    device: str, compiled: bool, seconds: float, suspect: bool, scripted
) -> None:
    engine, runner = scripted(cards=CARDS, compiled=compiled)

    def run(job: Job, take: Any) -> JobResult:
        for item, when in zip(training(), (0.0, seconds, seconds + 1e-4, seconds + 1), strict=True):
            take(frame(item), when)
        return DONE

    runner.run = run
    assert bool(engine.train(with_spec(device=device)).suspect) is suspect


FITS = Prediction(fixed_mib=100.0, image_mib=10.0, likely_mib=500.0, seconds=1.0)


@pytest.mark.parametrize(
    ("device", "memory_mib", "batch"), [("cpu", 740, 64), ("cpu", 739, 32), ("cuda", 9999, 64), ("cpu", 120, 2)]
)
def test_a_training_begins_with_the_largest_batch_that_can_fit(device, memory_mib, batch, scripted) -> None:
    foretold: list[tuple[Any, ...]] = []
    engine, runner = scripted((training(), DONE), cards=CARDS, predict=lambda *given: foretold.append(given) or FITS)
    work = with_spec(device=device, memory_mib=memory_mib)
    trial = engine.train(work)
    assert (trial.batch, trial.predicted_mib, trial.spec) == (batch, 500.0, work.spec)
    assert foretold == [(WORK.candidate, work.spec, 10)]
    assert runner.jobs[0].card == ("" if device == "cpu" else "GPU-a")


@pytest.mark.parametrize(("device", "limit"), [("cpu", 119), ("cuda", 800)])
def test_a_training_that_cannot_fit_is_refused_without_a_job(device: str, limit: int, scripted) -> None:
    heavy = FITS if device == "cpu" else replace(FITS, fixed_mib=781.0)
    engine, runner = scripted(cards=CARDS, predict=lambda *_: heavy)
    work = with_spec(device=device, memory_mib=119)
    trial = engine.train(work)
    assert (trial.verdict.outcome, trial.verdict.rule) == (Outcome.MEMORY, "predicted")
    assert f"there are {limit}:" in trial.verdict.message
    assert trial == Trial(
        candidate_id="one", spec=work.spec, verdict=trial.verdict, predicted_mib=500.0, data_fingerprint="d1"
    )
    assert runner.jobs == []


IMAGES_MIB = 100 * 3 * 64 / 2**20


@pytest.mark.parametrize(
    ("device", "prediction", "card_mib", "need"),
    [
        ("cpu", FITS, 800.0, 0.0),
        ("cuda", None, 800.0, None),
        ("cuda", FITS, 800.0, 500.0 + IMAGES_MIB),
        ("cuda", FITS, 8 * IMAGES_MIB, 500.0 + IMAGES_MIB),
        ("cuda", FITS, 7.99 * IMAGES_MIB, 500.0),
    ],
)
def test_the_need_of_a_card_has_the_images_where_they_lie_there(device, prediction, card_mib, need, scripted) -> None:
    engine, _ = scripted(cards=(replace(CARDS[0], memory_mib=card_mib),), predict=lambda *_: None)
    coloured = replace(WORK.dataset, train_images=np.zeros((10, 3, 8, 8), np.uint8))
    assert engine._need_mib(replace(with_spec(device=device), dataset=coloured), prediction) == need
    alone, _ = scripted()
    assert alone._need_mib(with_spec(device=device), prediction) == 0.0


def test_cards_are_asked_for_once_and_shared_up_to_nine_tenths(scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-a")
    engine, runner = scripted((training(), DONE), (training(), DONE))
    runner.messages = [{"name": "Small", "mib": 80}, {"name": "Large", "mib": 800}]
    assert (engine._cards.found, engine.card_mib) == (CARDS, 800.0)
    limits = Limits(time_limit_s=60.0, memory_mib=12_288)
    assert runner.jobs == [
        Job(entry_point="nngen.training.worker:describe_cards", arguments={}, limits=limits, cuda=True)
    ]
    for _ in range(2):
        trial = engine.train(with_spec(device="cuda"))
        assert trial.environment["device"] == "Small"
    assert engine._cards._pool is not None
    assert engine._cards._pool._limits == (72.0, 720.0)
    assert [(job.cuda, job.card, job.arguments["whole_mib"]) for job in runner.jobs[1:]] == [(True, "3", 10.0)] * 2


def test_a_machine_without_a_card_has_one_without_a_name(scripted) -> None:
    engine, _ = scripted()
    assert engine._cards.found == (Card(name="cuda", memory_mib=math.inf, visible=""),)
    assert engine.card_mib == math.inf


def test_sent_files_are_opened_by_a_worker_of_the_same_level(scripted) -> None:
    engine, runner = scripted()
    seen: dict[str, bytes] = {}
    runner.answer = lambda job: seen.update({path.name: path.read_bytes() for path in job.files})
    runner.messages = [{"weights": "", "onnx": "none", "difference": 0.0}]
    files = {"weights": bytearray(b"w"), "onnx": bytearray(b"graph")}
    request = ArtifactRequest(names=("weights", "onnx"), files=files)
    assert engine.open_artifacts(request, WORK) == ArtifactReport(onnx="none", difference=0.0)
    assert seen == {"weights": b"w", "onnx": b"graph"}
    (job,) = runner.jobs
    assert job == Job(
        entry_point="nngen.training.state.artifacts:open_artifacts",
        arguments={"names": ["weights", "onnx"], "metadata": artifact_metadata(WORK)},
        limits=Limits(time_limit_s=60.0, memory_mib=1200),
        isolation=Isolation.SANDBOX,
        files=job.files,
    )
    assert not job.files[0].parent.exists()
    for messages in ([], [{"weights": 3}], [{}] * 2):
        runner.messages = messages
        fault = f"they could not be opened: {DONE.describe()}"
        assert engine.open_artifacts(request, WORK) == ArtifactReport(weights=fault, onnx=fault)


@pytest.mark.parametrize(
    ("job", "error", "message"),
    [
        (
            with_spec(start="0" * 64),
            UsageError,
            "the training starts from kept weights, which only nngen train --from and nngen surrogate gates hand over",
        ),
        (with_spec(batch=1), UsageError, "--batch must be"),
        (with_spec(shape=Shape(1, 8, 9000)), UsageError, "1x8x9000"),
        (with_spec(train_size=11), UsageError, "--train-size 11: fake has 10 training images; leave it out for all"),
    ],
)
def test_a_training_without_sense_is_refused_before_any_job(job, error, message, scripted) -> None:
    engine, runner = scripted()
    with pytest.raises(error) as caught:
        engine.train(job)
    assert message in str(caught.value)
    assert runner.jobs == []


@pytest.mark.parametrize(("stored", "wanted", "good"), [(1, 3, True), (3, 3, True), (3, 1, False), (2, 3, False)])
def test_channels_are_repeated_and_never_joined(stored: int, wanted: int, good: bool, scripted) -> None:
    engine, _ = scripted((training(), DONE))
    images = np.zeros((10, stored, 8, 8), "uint8")
    work = replace(with_spec(shape=Shape(wanted, 8, 8)), dataset=replace(WORK.dataset, train_images=images))
    if good:
        assert engine.train(work).verdict.valid
    else:
        with pytest.raises(DataError) as caught:
            engine.train(work)
        assert str(caught.value) == (
            f"fake has {stored} channels and cannot become {wanted}x8x8: use --shape {stored}x8x8"
        )


def test_a_data_set_that_changes_gives_no_trial(scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def look(_: object) -> None:
        looks.append(len(runner.jobs))
        if len(looks) == 2:
            raise DataError("changed")

    monkeypatch.setattr(type(WORK.dataset), "check_unchanged", look)
    engine, runner = scripted((training(), DONE))
    with pytest.raises(DataError, match="changed"):
        engine.train(WORK)
    assert looks == [0, 1]


def test_the_engine_passes_its_beginning_and_end_on(scripted) -> None:
    engine, runner = scripted(slots=3)
    with engine as entered:
        assert (entered, engine.slots) == (engine, 3)
        engine.warm_up()
    assert runner.events == ["versions", "close"]
    assert LocalEngine().slots == 1
