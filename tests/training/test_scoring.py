"""Scoring: validation of the order, sizes, ranges and kinds of a worker's frames."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nngen.isolation import ExitReason, Frame, FrameError, JobResult, Limits
from nngen.isolation.protocol import MESSAGE
from nngen.training.engine import KILLED
from nngen.training.frames import PROOF_BATCH, FrameKind, proof_size
from nngen.training.scoring import (
    CheckScorer,
    TrialScorer,
    accuracy,
    read_verdict,
    suspicion,
    verdict_of_result,
)
from nngen.types import EpochResult, Outcome, Shape, Trial, TrialSpec

LABELS = np.array([0, 1, 2, 2], dtype=np.int64)
RIGHT = LABELS.astype("<u2").tobytes()
READY = {"event": "ready", "parameters": 10}
CRASHED = {"event": "verdict", "outcome": "crashed", "rule": "x", "message": "y", "line": None}
EPOCH = {
    "event": "epoch",
    "samples": 6,
    "train_accuracy": 0.5,
    "train_loss": 1.5,
    "usage": [0.25, 0.75],
    "entropy": 0.5,
}
LIMITS = Limits(time_limit_s=5, memory_mib=100)
EXIT = JobResult(reason=ExitReason.EXIT, limits=LIMITS, status=0, seconds=1.0, peak_mib=50.0, output=b"")


def _message(value):
    return Frame(MESSAGE, json.dumps(value).encode())


def _scorer(**changes):
    return TrialScorer(
        **{"epochs": 1, "classes": 3, "lines": 30, "images": 8, "score": lambda body: accuracy(body, LABELS), **changes}
    )


def _feed(scorer, *frames):
    return [
        scorer.take(frame if isinstance(frame, Frame) else _message(frame), 1.0 + i) for i, frame in enumerate(frames)
    ]


def test_frames_in_order_give_curve_and_predictions():
    seen = []
    scorer = _scorer(on_epoch=seen.append)
    done = _feed(scorer, READY, EPOCH, Frame(FrameKind.VALIDATION, RIGHT), Frame(FrameKind.TEST, b"\2\0"))
    assert done == [False, False, False, True]
    assert scorer.verdict.valid
    assert scorer.parameters == 10
    assert scorer.test_predictions == b"\2\0"
    (point,) = scorer.curve
    assert seen == [point]
    assert (point.validation_accuracy, point.train_accuracy, point.train_loss) == (1.0, 0.5, 1.5)
    assert (point.usage, point.entropy, point.seconds) == ((0.25, 0.75), 0.5, 2.0)
    assert point.samples == 6


@pytest.mark.parametrize(
    "frames",
    [
        [EPOCH],
        [READY, READY],
        [READY, EPOCH, EPOCH],
        [READY, Frame(FrameKind.VALIDATION, RIGHT)],
        [READY, Frame(FrameKind.TEST, b"\0\0")],
        [READY, EPOCH, Frame(FrameKind.TEST, b"\0\0")],
        [READY, EPOCH, Frame(FrameKind.VALIDATION, RIGHT), EPOCH, Frame(FrameKind.VALIDATION, RIGHT)],
        [READY, EPOCH, Frame(FrameKind.VALIDATION, b"\3\0" * 4)],
        [READY, EPOCH, Frame(FrameKind.VALIDATION, b"\xff\xff" * 4)],
        [READY, EPOCH, Frame(FrameKind.VALIDATION, RIGHT), Frame(FrameKind.TEST, b"\3\0")],
        [{"event": "ready", "parameters": -1}],
        [{"event": "ready", "parameters": True}],
        [{"event": "ready", "parameters": 10**30}],
        [{"event": "ready"}],
        [{"event": "verdict", "outcome": "valid", "rule": "", "message": "", "line": None}],
        [{"event": "verdict", "outcome": "excellent", "rule": "", "message": "", "line": None}],
        *([CRASHED | {"line": line}] for line in ("x", 1.0, True, 0, -1, 31, 10**30)),
        *([CRASHED | {"outcome": outcome}] for outcome in ("duplicate", "timeout", None, 3, ["crashed"])),
        *([CRASHED | {"rule": rule}] for rule in (7, KILLED, "worker", "predicted", "Rule\n", "r" * 61)),
        [CRASHED | {"message": None}],
        [{"event": "verdict"}],
        [{}],
    ],
)
def test_frames_out_of_order_or_range_are_refused(frames):
    scorer = _scorer()
    with pytest.raises(FrameError):
        _feed(scorer, *frames)
    assert scorer.verdict is None


LOGITS = np.array([[2, 1, 0], [0, 2, 1], [0, 1, 2], [0, 2, 2]], "<f2")


def test_logits_come_between_the_last_epoch_and_the_test():
    scorer = _scorer(logits=True)
    frames = [READY, EPOCH, Frame(FrameKind.VALIDATION, RIGHT), Frame(FrameKind.LOGITS, LOGITS.tobytes())]
    assert _feed(scorer, *frames, Frame(FrameKind.TEST, b"\2\0"))[-1]
    assert scorer.verdict.valid
    assert scorer.validation_logits == LOGITS.tobytes()


@pytest.mark.parametrize(
    "frames",
    [
        [Frame(FrameKind.LOGITS, LOGITS.tobytes())],
        [EPOCH, Frame(FrameKind.LOGITS, LOGITS.tobytes())],
        [EPOCH, Frame(FrameKind.VALIDATION, RIGHT), Frame(FrameKind.TEST, b"\2\0")],
        [EPOCH, Frame(FrameKind.VALIDATION, RIGHT), *[Frame(FrameKind.LOGITS, LOGITS.tobytes())] * 2],
        [EPOCH, Frame(FrameKind.VALIDATION, RIGHT), Frame(FrameKind.LOGITS, LOGITS[::-1].tobytes())],
        [EPOCH, Frame(FrameKind.VALIDATION, RIGHT), Frame(FrameKind.LOGITS, (LOGITS + np.float16("inf")).tobytes())],
    ],
)
def test_logits_out_of_order_or_of_other_predictions_are_refused(frames):
    with pytest.raises(FrameError):
        _feed(_scorer(logits=True), READY, *frames)


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    )
)
def test_a_report_of_any_kind_becomes_numbers_or_nothing(value):
    scorer = _scorer()
    report = {
        "event": "epoch",
        "samples": 6,
        "train_accuracy": value,
        "train_loss": value,
        "usage": value,
        "entropy": value,
    }
    _feed(scorer, READY, report, Frame(FrameKind.VALIDATION, RIGHT))
    point = scorer.curve[0]
    assert point.validation_accuracy == 1.0
    for number in (point.train_accuracy, point.train_loss, point.entropy, *point.usage):
        assert number is None or np.isfinite(number)
    assert point.train_accuracy is None or 0 <= point.train_accuracy <= 1
    assert all(0 <= share <= 1 for share in point.usage)


@given(
    st.dictionaries(
        st.sampled_from(["event", "outcome", "rule", "message", "line", "parameters", "samples", "usage"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.sampled_from(["verdict", "valid", "crashed", "imported", "ready", "epoch", "duplicate", "\ud800"])
        | st.lists(st.integers(), max_size=2),
    )
)
def test_a_message_of_any_kind_is_taken_or_refused(message):
    asked = []
    for scorer in (_scorer(), CheckScorer(classes=3, lines=30, ask=asked.append)):
        try:
            done = scorer.take(_message(message), 1.0)
        except FrameError:
            assert scorer.verdict is None
        else:
            assert done is (scorer.verdict is not None)
        if scorer.verdict is not None:
            assert not scorer.verdict.valid
            assert scorer.verdict.line is None or 1 <= scorer.verdict.line <= 30
            assert scorer.verdict.message.isprintable()


VALID = CRASHED | {"outcome": "valid"}
IMPORTED = {"event": "imported"}


def _proof(question, *, before=b"b" * 32, after=b"a" * 32, logits=0.5):
    return Frame(FrameKind.PROOF, question + before + after + np.full(PROOF_BATCH * 3, logits, "<f4").tobytes())


def _check():
    asked = []
    return CheckScorer(classes=3, lines=30, ask=asked.append), asked


def test_a_check_is_valid_by_the_answer_to_a_question():
    scorer, asked = _check()
    assert not scorer.take(_message(IMPORTED), 1.0)
    assert scorer.verdict is None
    assert scorer.take(_proof(asked[0]), 1.0)
    assert scorer.verdict.valid
    assert len(_proof(asked[0]).body) == proof_size(3)
    other, asked_then = _check()
    other.take(_message(IMPORTED), 1.0)
    assert asked != asked_then


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [({"after": b"b" * 32}, Outcome.NO_GRADIENT), ({"logits": float("nan")}, Outcome.NON_FINITE)],
)
def test_the_answer_decides(changes, outcome):
    scorer, asked = _check()
    scorer.take(_message(IMPORTED), 1.0)
    assert scorer.take(_proof(asked[0], **changes), 1.0)
    assert scorer.verdict.outcome is outcome


def test_a_failure_after_the_question_counts():
    scorer, _ = _check()
    scorer.take(_message(IMPORTED), 1.0)
    assert scorer.take(_message(CRASHED | {"outcome": "import"}), 1.0)
    assert scorer.verdict.outcome is Outcome.IMPORT


@pytest.mark.parametrize(
    "frames",
    [
        [_proof(bytes(32))],
        [_message(IMPORTED), _proof(bytes(32))],
        [_message(IMPORTED), _message(IMPORTED)],
        [_message(VALID)],
        [_message(IMPORTED), _message(VALID)],
    ],
    ids=["not asked", "another question", "asked twice", "valid", "valid after the question"],
)
def test_answers_to_no_question_are_refused(frames):
    scorer, _ = _check()
    with pytest.raises(FrameError):
        for frame in frames:
            scorer.take(frame, 1.0)
    assert scorer.verdict is None


@pytest.mark.parametrize(
    ("learned_s", "predicted_s", "suspect"),
    [
        (10.0, 1.0, ""),
        (10.0, 0.2, ""),  # 25 times per image
        (10.0, 0.01, "epoch 1 took 500 times as long as predicting as many images"),
        (1.9, 0.001, ""),  # too short to compare
        (10.0, 0.0, "epoch 1 took"),
    ],
)
def test_an_epoch_that_takes_far_longer_than_its_predictions_is_suspect(learned_s, predicted_s, suspect):
    scorer = _scorer(slow_s=2.0)
    for frame, seconds in [
        (_message(READY), 1.0),
        (_message(EPOCH), 1.0 + learned_s),
        (Frame(FrameKind.VALIDATION, RIGHT), 1.0 + learned_s + predicted_s),
    ]:
        scorer.take(frame, seconds)
    assert scorer.suspect.startswith(suspect)
    assert bool(scorer.suspect) is bool(suspect)


def test_a_usage_of_too_many_experts_is_ignored():
    scorer = _scorer()
    _feed(scorer, READY, {**EPOCH, "usage": [0.0] * 65}, Frame(FrameKind.VALIDATION, RIGHT))
    assert scorer.curve[0].usage == ()


@given(st.lists(st.tuples(st.integers(0, 65_535), st.integers(0, 65_535)), min_size=1))
def test_accuracy_is_the_share_of_correct_predictions(pairs):
    predictions = np.array([pair[0] for pair in pairs], dtype="<u2")
    labels = np.array([pair[1] for pair in pairs], dtype=np.int64)
    right = sum(a == b for a, b in pairs)
    assert accuracy(predictions.tobytes(), labels) == pytest.approx(right / len(pairs))


def test_accuracy_needs_one_prediction_per_label():
    with pytest.raises(ValueError, match="3 predictions for 4 labels"):
        accuracy(RIGHT[:6], LABELS)


def test_a_verdict_is_one_printable_line():
    text = "red\x1b[31m\nline" + "x" * 10_000
    verdict = read_verdict({"event": "verdict", "outcome": "shape", "rule": "r", "message": text, "line": 3}, lines=3)
    assert (verdict.outcome, verdict.rule, verdict.line) == (Outcome.SHAPE, "r", 3)
    assert verdict.message.startswith("red linexx")
    assert len(verdict.message) <= 600


@pytest.mark.parametrize("samples", [None, "6", 6.0, True, -1, 10**10, 10**400])
def test_a_number_of_samples_that_cannot_be_is_refused(samples):
    with pytest.raises(FrameError, match="number of samples"):
        _feed(_scorer(), READY, {**EPOCH, "samples": samples}, Frame(FrameKind.VALIDATION, RIGHT))


def _trial(dataset, *, samples=(1000,), right=0.9, test=0.9):
    """Return a trial whose predictions are right for the first images of each split."""

    def predicted(labels, share):
        return np.where(np.arange(len(labels)) < share * len(labels), labels, labels + 1).astype("<u2").tobytes()

    return Trial(
        candidate_id="x",
        spec=TrialSpec(dataset="digits", shape=Shape(1, 8, 8)),
        verdict=None,
        validation_accuracy=right,
        curve=tuple(EpochResult(epoch=n, validation_accuracy=right, samples=s) for n, s in enumerate(samples, 1)),
        test_predictions=predicted(dataset.test_labels, test),
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"samples": (None, None), "right": 1.0}, ""),
        ({"samples": (1064, 1000)}, ""),  # a first batch was looked at
        ({"samples": (1000, 50_000)}, "50 passes in epoch 2"),
        ({"samples": (1500,)}, "1.5 passes in epoch 1"),
        ({"samples": (0, 0)}, "drew no batch of train_data"),
        ({"samples": (0, 1000)}, ""),
        ({"right": 1.0}, ""),
        ({"test": 1.0}, ""),
        ({"right": 1.0, "test": 1.0}, "perfect on validation and test"),
        ({"right": None}, ""),
    ],
)
@pytest.mark.parametrize("images", [100, 10])
def test_a_trial_that_is_not_comparable_is_suspect_with_its_reason(changes, reason, images):
    labels = np.zeros(images, np.int64)
    dataset = SimpleNamespace(validation_labels=labels, test_labels=labels, training_images=lambda size: size or 1000)
    # In small splits no mistake at all is plausible.
    expected = "" if images == 10 and reason.startswith("perfect") else reason
    assert suspicion(_trial(dataset, **changes), dataset) == expected


@pytest.mark.parametrize(
    ("ending", "outcome", "message"),
    [
        (EXIT, Outcome.CRASHED, "exit code 0"),
        (replace(EXIT, status=11), Outcome.CRASHED, "SIGSEGV"),
        (replace(EXIT, status=9), Outcome.CRASHED, "SIGKILL, by itself or by the kernel"),
        (replace(EXIT, status=256, output=b"a\nE: \x1b[1mlast\n"), Outcome.CRASHED, "last line: E: last"),
        (replace(EXIT, status=None), Outcome.CRASHED, "supervisor"),
        (replace(EXIT, reason=ExitReason.TIME), Outcome.TIMEOUT, "longer than 5 s"),
        (replace(EXIT, reason=ExitReason.MEMORY), Outcome.MEMORY, "used 50 MiB, more than the limit of 100 MiB"),
        (replace(EXIT, reason=ExitReason.PROTOCOL, error="x"), Outcome.CRASHED, "broke its protocol: x"),
    ],
)
def test_a_worker_that_ended_early_is_explained(ending, outcome, message):
    verdict = verdict_of_result(ending, 30)
    assert verdict.outcome is outcome
    assert message in verdict.message


def test_a_crash_is_traced_to_the_candidate():
    frames = b'  File "/t/torch.py", line 9 in f\n  File "/t/candidate.py", line 7 in g\n'
    output = b"Fatal Python error: Segmentation fault\n\n" + frames
    verdict = verdict_of_result(replace(EXIT, status=11, output=output), 30)
    assert verdict.line == 7
    assert verdict.message.startswith("line 7: ")
    # A traceback that the candidate printed itself may name any line.
    assert verdict_of_result(replace(EXIT, status=11, output=output), lines=6).line is None


@pytest.mark.parametrize(("status", "killed"), [(None, True), (9, True), (11, False), (256, False)])
def test_a_kill_from_outside_has_a_rule_of_its_own(status, killed):
    verdict = verdict_of_result(replace(EXIT, status=status), 30)
    assert (verdict.rule == KILLED) is killed
