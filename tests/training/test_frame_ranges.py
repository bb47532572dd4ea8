"""Ranges of what a worker may say, at their ends, and the whole of what a scorer makes of a training."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nngen.isolation import ExitReason, Frame, FrameError, JobResult, Limits
from nngen.isolation.protocol import MESSAGE
from nngen.training.frames import PROOF_BATCH, FrameKind
from nngen.training.scoring import CheckScorer, TrialScorer, accuracy, read_verdict, suspicion, verdict_of_result
from nngen.types import EpochResult, Outcome, Shape, Trial, TrialSpec, Verdict

LABELS = np.array([0, 1, 2, 2], dtype=np.int64)
RIGHT = LABELS.astype("<u2").tobytes()
WRONG = np.array([0, 0, 2, 0], "<u2").tobytes()
READY = {"event": "ready", "parameters": 10}
EPOCH = {"event": "epoch", "samples": 6}
FAILURE = {"event": "verdict", "outcome": "crashed", "rule": "x", "message": "y", "line": None}


def message(value: Mapping[str, Any]) -> Frame:
    return Frame(MESSAGE, json.dumps(value).encode())


def scorer(**changes: Any) -> TrialScorer:
    fields = {"epochs": 1, "classes": 3, "lines": 30, "images": 8, "score": lambda body: accuracy(body, LABELS)}
    return TrialScorer(**(fields | changes))


def feed(one: TrialScorer, *timed: tuple[Frame | Mapping[str, Any], float]) -> list[bool]:
    return [one.take(frame if isinstance(frame, Frame) else message(frame), seconds) for frame, seconds in timed]


class Sink:
    """Receives files, and keeps what it is told."""

    names = ("weights",)

    def __init__(self) -> None:
        self.events: list[Any] = []

    def announce(self, message: Mapping[str, Any]) -> None:
        self.events.append(message["name"])

    def append(self, body: bytes) -> None:
        self.events.append(body)


def test_a_training_of_two_epochs_with_files_and_logits() -> None:
    sink, seen = Sink(), []
    one = scorer(epochs=2, slow_s=2.0, artifacts=sink, on_epoch=seen.append, logits=True)
    logits = np.eye(3, dtype="<f2")[LABELS].tobytes()
    first = {"train_accuracy": 0.5, "train_loss": 1.5, "usage": [0.25, 0.75], "entropy": 0.5}
    taken = feed(
        one,
        (READY | {"started": "2 experts\ntrained alone"}, 3.0),
        (EPOCH | first, 5.0),
        (Frame(FrameKind.VALIDATION, RIGHT), 5.5),
        ({"event": "file", "name": "checkpoint"}, 6.0),
        (Frame(FrameKind.FILE, b"part"), 7.0),
        ({"event": "no-file", "name": "weights"}, 7.25),
        (EPOCH | {"samples": 0}, 18.0),
        (Frame(FrameKind.VALIDATION, WRONG), 18.0078125),
    )
    assert taken == [False] * 8
    assert one.verdict is None
    logits = np.eye(3, dtype="<f2")[np.frombuffer(WRONG, "<u2")].tobytes()
    assert feed(one, (Frame(FrameKind.LOGITS, logits), 19.0), (Frame(FrameKind.TEST, b"\2\0"), 20.0)) == [False, True]
    points = [
        EpochResult(
            epoch=1,
            validation_accuracy=1.0,
            train_accuracy=0.5,
            train_loss=1.5,
            seconds=2.5,
            usage=(0.25, 0.75),
            entropy=0.5,
            samples=6,
        ),
        # The time for a file is not that of an epoch.
        EpochResult(epoch=2, validation_accuracy=0.5, seconds=11.0078125, samples=0),
    ]
    assert (one.curve, seen) == (points, points)
    assert (one.verdict, one.parameters, one.started) == (Verdict(outcome=Outcome.VALID), 10, "2 experts trained alone")
    assert (one.validation_predictions, one.test_predictions, one.validation_logits) == (WRONG, b"\2\0", logits)
    # 11 s for 8 images, then 1/128 s for 4.
    assert one.suspect == "epoch 2 took 704 times as long as predicting as many images"
    assert sink.events == ["checkpoint", b"part", "weights"]
    predictions = base64.b64encode(WRONG).decode()
    assert one.progress() == {"epoch": 2, "curve": [asdict(point) for point in points], "predictions": predictions}


@pytest.mark.parametrize(
    ("images", "body", "slow_s", "learned_s", "predicted_s", "times"),
    [
        (8, RIGHT, 2.0, 30.0, 0.25, None),  # 60 times as long, which one pass may take
        (8, RIGHT, 2.0, 30.25, 0.25, "60"),
        (8, RIGHT, 30.25, 30.25, 0.25, None),
        (1, b"\0\0", 2.0, 30.0, 0.5, None),
        (1, b"\0\0", 2.0, 31.0, 0.5, "62"),
        (8, RIGHT, math.inf, 1000.0, 0.25, None),
    ],
)
def test_an_epoch_is_suspect_from_sixty_times_on(images, body, slow_s, learned_s, predicted_s, times) -> None:
    one = scorer(images=images, slow_s=slow_s, score=lambda _: 0.0)
    feed(one, (READY, 1.0), (EPOCH, 1 + learned_s), (Frame(FrameKind.VALIDATION, body), 1 + learned_s + predicted_s))
    assert one.suspect == ((times and f"epoch 1 took {times} times as long as predicting as many images") or "")


def test_the_first_reason_stays() -> None:
    one = scorer(epochs=2, slow_s=0.0)
    for begin in (0.0, 100.0):
        frames = [READY] * (begin == 0.0) + [EPOCH, Frame(FrameKind.VALIDATION, RIGHT)]
        feed(one, *zip(frames, [begin, begin + 99.75, begin + 100][-len(frames) :], strict=True))
    assert one.suspect.startswith("epoch 1 took ")


@pytest.mark.parametrize("parameters", [1, 10**12 - 1])
def test_a_number_of_parameters_that_can_be(parameters: int) -> None:
    one = scorer()
    assert feed(one, (READY | {"parameters": parameters}, 1.0)) == [False]
    assert one.parameters == parameters


@pytest.mark.parametrize("parameters", [0, 10**12, 1.0, "1"])
def test_a_number_of_parameters_that_cannot_be(parameters: object) -> None:
    with pytest.raises(FrameError, match=r"^a number of parameters that cannot be$"):
        feed(scorer(), (READY | {"parameters": parameters}, 1.0))


@pytest.mark.parametrize(("samples", "good"), [(0, True), (3 * 10**8, True), (3 * 10**8 + 1, False), (-1, False)])
def test_a_hundred_million_samples_a_second_can_be(samples: int, good: bool) -> None:
    one, ready = scorer(), (READY, 1.0)
    frames = (EPOCH | {"samples": samples}, 2.0), (Frame(FrameKind.VALIDATION, RIGHT), 3.0)
    if good:
        feed(one, ready, *frames)
        assert one.curve[0].samples == samples
    else:
        with pytest.raises(FrameError, match=r"^a number of samples that cannot be$"):
            feed(one, ready, *frames)


@pytest.mark.parametrize(
    ("report", "found"),
    [
        ({"train_accuracy": 0, "usage": [0, 1, 0.5]}, (0.0, None, (0.0, 1.0, 0.5), None)),
        ({"train_accuracy": 1, "train_loss": -3}, (1.0, -3.0, (), None)),
        ({"train_accuracy": 1.5, "train_loss": True, "entropy": "1"}, (None, None, (), None)),
        ({"train_accuracy": -0.5, "train_loss": 10**400, "entropy": 2}, (None, None, (), 2.0)),
        ({"usage": [0.5] * 64}, (None, None, (0.5,) * 64, None)),
        ({"usage": [0.5] * 65}, (None, None, (), None)),
        ({"usage": [0.5, 1.5]}, (None, None, (), None)),
        ({"usage": "0.5"}, (None, None, (), None)),
    ],
)
def test_numbers_of_a_report_are_kept_in_their_range(report: dict[str, Any], found: tuple[object, ...]) -> None:
    one = scorer()
    feed(one, (READY, 1.0), (EPOCH | report, 2.0), (Frame(FrameKind.VALIDATION, RIGHT), 3.0))
    (point,) = one.curve
    assert (point.train_accuracy, point.train_loss, point.usage, point.entropy) == found
    assert [type(value) for value in point.usage] == [float] * len(point.usage)


def test_texts_of_a_worker_have_an_end() -> None:
    one = scorer()
    feed(one, (READY | {"started": "s" * 400}, 1.0))
    assert one.started == "s" * 299 + "…"
    verdict = read_verdict(FAILURE | {"message": "m" * 700, "rule": "r" * 60, "line": 1}, lines=1)
    assert (verdict.message, verdict.rule, verdict.line) == ("m" * 599 + "…", "r" * 60, 1)
    assert read_verdict(FAILURE | {"rule": ""}, lines=1).rule == ""


@pytest.mark.parametrize(
    ("classes", "frames", "fault"),
    [
        (3, [({"event": "file", "name": "weights"}, 1.0)], "a message out of order"),
        (3, [(EPOCH, 1.0)], "a message out of order"),
        (3, [(READY, 1.0), (Frame(FrameKind.VALIDATION, RIGHT), 2.0)], "validation predictions out of order"),
        (3, [(READY, 1.0), (Frame(FrameKind.TEST, RIGHT), 2.0)], "test predictions out of order"),
        (3, [(READY, 1.0), (Frame(FrameKind.LOGITS, b""), 2.0)], "logits out of order"),
        (3, [(FAILURE | {"outcome": "valid"}, 1.0)], "a training that calls itself valid"),
        (
            2,
            [(READY, 1.0), (EPOCH, 2.0), (Frame(FrameKind.VALIDATION, RIGHT), 3.0)],
            "a prediction of class 2, where there are 2 classes",
        ),
    ],
)
def test_frames_out_of_place_are_named(classes: int, frames: list[Any], fault: str) -> None:
    with pytest.raises(FrameError) as caught:
        feed(scorer(classes=classes), *frames)
    assert str(caught.value) == fault


def test_a_single_class_has_predictions() -> None:
    one = scorer(classes=1, score=lambda _: 1.0)
    assert feed(one, (READY, 1.0), (EPOCH, 2.0), (Frame(FrameKind.VALIDATION, b"\0\0"), 3.0)) == [False] * 3


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"outcome": "duplicate"}, "a message that is not a verdict"),
        ({"event": "odd"}, "a message that is not a verdict"),
        ({"message": 3}, "a verdict whose rule or message is not text"),
        ({"rule": 3}, "a verdict whose rule or message is not text"),
        ({"rule": "r" * 61}, "a verdict whose rule is not a worker's"),
        ({"rule": "predicted"}, "a verdict whose rule is not a worker's"),
        ({"line": 8}, "a verdict whose line is not a line of the source"),
        ({"line": 0}, "a verdict whose line is not a line of the source"),
    ],
)
def test_a_verdict_of_no_valid_form_is_named(change: dict[str, Any], fault: str) -> None:
    with pytest.raises(FrameError) as caught:
        read_verdict(FAILURE | change, lines=7)
    assert str(caught.value) == fault
    assert read_verdict(FAILURE | {"line": 7}, lines=7) == Verdict(
        outcome=Outcome.CRASHED, rule="x", message="y", line=7
    )


def judged(
    logits: np.ndarray, before: bytes = b"b" * 32, after: bytes = b"b" * 31 + b"a"
) -> tuple[Verdict | None, Any]:
    """Return the verdict of a check on an answer, and what was asked."""
    asked: list[bytes] = []
    one = CheckScorer(classes=3, lines=30, ask=asked.append)
    assert one.take(message({"event": "imported"}), 1.0) is False
    body = asked[0] + before + after + logits.astype("<f4").tobytes()
    assert one.take(Frame(FrameKind.PROOF, body), 2.0) is True
    return one.verdict, asked


def test_an_answer_is_judged_by_its_digests_and_by_every_logit() -> None:
    logits = np.ones(PROOF_BATCH * 3)
    verdict, asked = judged(logits)
    assert verdict == Verdict(outcome=Outcome.VALID)
    assert [len(question) for question in asked] == [32]
    for place in (0, -1):
        odd = logits.copy()
        odd[place] = np.inf
        assert judged(odd)[0] == Verdict(
            outcome=Outcome.NON_FINITE,
            rule="worker.proof",
            message="logits in eval mode on random images are not finite",
        )
    same = Verdict(
        outcome=Outcome.NO_GRADIENT,
        rule="worker.proof",
        message="learn changed no parameter on batches of which one was drawn after the import",
    )
    assert judged(logits, after=b"b" * 32)[0] == same
    assert judged(logits, before=b"c" + b"b" * 31, after=b"b" * 32)[0] == Verdict(outcome=Outcome.VALID)


RESULT = JobResult(
    reason=ExitReason.EXIT,
    limits=Limits(time_limit_s=5, memory_mib=100),
    status=11,
    seconds=1.0,
    peak_mib=50.0,
    output=b"Fatal Python error: Segmentation fault\n\n" + b'  File "/t/candidate.py", line 7 in g\n',
)


@pytest.mark.parametrize(
    ("reason", "outcome", "text"),
    [
        (ExitReason.TIME, Outcome.TIMEOUT, "ran longer than 5 s and was ended: simplify it, or raise --time-limit"),
        (
            ExitReason.MEMORY,
            Outcome.MEMORY,
            "used 50 MiB, more than the limit of 100 MiB: choose smaller batches or images, or raise --memory-mib",
        ),
        (ExitReason.PROTOCOL, Outcome.CRASHED, "the worker broke its protocol: "),
    ],
)
def test_a_limit_is_explained_with_its_remedy(reason: ExitReason, outcome: Outcome, text: str) -> None:
    expected = Verdict(outcome=outcome, rule="worker", message=text.strip())
    found = verdict_of_result(replace(RESULT, reason=reason), 30)
    assert replace(found, message=found.message.strip()) == expected


@pytest.mark.parametrize(("lines", "line"), [(30, 7), (7, 7), (6, None)])
def test_a_crash_has_the_line_that_python_printed(lines: int, line: int | None) -> None:
    found = verdict_of_result(RESULT, lines)
    assert (found.outcome, found.rule, found.line) == (Outcome.CRASHED, "worker", line)
    assert verdict_of_result(replace(RESULT, output=RESULT.output.replace(b"line 7", b"line 1")), 30).line == 1
    assert verdict_of_result(replace(RESULT, status=9), 30).rule == "worker.killed"


def test_a_description_has_an_end() -> None:
    found = verdict_of_result(replace(RESULT, reason=ExitReason.PROTOCOL, error="e" * 500), 30)
    assert found.message == "the worker broke its protocol: " + "e" * 368 + "…"


@pytest.mark.parametrize(
    ("images", "samples", "share", "known", "reason"),
    [
        (50, 1000, 1.0, "", "perfect on validation and test"),
        (49, 1000, 1.0, "", ""),
        (49, 1000, 1.0, "odd", "odd"),
        (50, 1000, 0.5, "odd", "odd"),
        (50, 1100, 0.5, "", ""),
        (50, 1101, 0.5, "odd", "1.1 passes in epoch 1"),
        (50, 0, 0.5, "odd", "drew no batch of train_data"),
        (50, None, 0.5, "odd", "odd"),
        (50, 0, None, "odd", ""),
    ],
)
def test_a_trial_is_suspect_with_one_reason(images, samples, share, known, reason) -> None:
    labels = np.zeros(images, np.int64)
    dataset: Any = SimpleNamespace(validation_labels=labels, test_labels=labels, training_images=lambda size: size)
    trial = Trial(
        candidate_id="x",
        spec=TrialSpec(dataset="digits", shape=Shape(1, 8, 8), train_size=1000),
        verdict=Verdict(outcome=Outcome.VALID),
        validation_accuracy=share,
        curve=(EpochResult(epoch=1, validation_accuracy=0.5, samples=samples),),
        test_predictions=bytes(2 * images),
        suspect=known,
    )
    assert suspicion(trial, dataset) == reason
