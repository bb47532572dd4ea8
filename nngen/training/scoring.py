"""Scoring of a training from the frames of its worker: curve, accuracies and verdict.

The labels are in the process that scores and never in the worker, whose every frame is checked before it is used.
"""

from __future__ import annotations

import base64
import math
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nngen.checks.rule import fail
from nngen.datasets.dataset import Dataset
from nngen.isolation import ExitReason, Frame, FrameError, JobResult
from nngen.isolation.job import SOURCE_FILE
from nngen.isolation.protocol import MESSAGE
from nngen.text import one_line
from nngen.training.engine import KILLED, PREDICTED
from nngen.training.frames import IMPORTED, NONCE, FrameKind
from nngen.training.state.checkpoints import FileSink
from nngen.types import EpochResult, Outcome, Trial, Verdict

_MAX_EXPERTS = 64
_MAX_PARAMETERS = 10**12
_MOST_SAMPLES_PER_S = 10**8  # no machine hands out more; a larger number is forged

_MOST_PASSES = 1.1  # passes in an epoch that are not suspect: a file may look at a first batch before its one pass

_MOST_RATIO = 60.0
"""Time per image in training, relative to predictions: 3 to 20 times as long in one pass, by the size of the batch."""

_FEWEST_IMAGES = 50  # images of a split from which on no mistake at all is implausible

_RULE = "worker"
_PROOF = "worker.proof"


def accuracy(predictions: bytes, labels: npt.NDArray[np.int64]) -> float:
    """Return the share of correct predictions, in [0, 1].

    Args:
        predictions: One little-endian uint16 per label, as ``Trial`` keeps them.
        labels: ``(N,)`` correct classes.

    Raises:
        ValueError: If there are more or fewer predictions than labels.
    """
    classes = np.frombuffer(predictions, "<u2")
    if len(classes) != len(labels):
        raise ValueError(f"{len(classes)} predictions for {len(labels)} labels")
    return float(np.mean(classes == labels))


def suspicion(trial: Trial, dataset: Dataset) -> str:
    """Return the reason why a trial's accuracy is implausible for its fidelity, or "" where nothing in it is."""
    if trial.validation_accuracy is None:
        return ""
    images = dataset.training_images(trial.spec.train_size)
    counted = [(point.epoch, point.samples) for point in trial.curve if point.samples is not None]
    for epoch, samples in counted:
        if samples > images * _MOST_PASSES:
            return f"{samples / images:.3g} passes in epoch {epoch}"
    if counted and not any(samples for _, samples in counted):
        return "drew no batch of train_data"
    smallest = min(len(dataset.validation_labels), len(dataset.test_labels))
    perfect = trial.validation_accuracy == 1.0 and accuracy(trial.test_predictions, dataset.test_labels) == 1.0
    return "perfect on validation and test" if perfect and smallest >= _FEWEST_IMAGES else trial.suspect


@dataclass(slots=True, kw_only=True)
class CheckScorer:
    """Receives the verdict of a check: a failure, or the answer to a question that was drawn meanwhile.

    The candidate shares a process with the rules, so any frame may be its own. Of a failure its word is enough. The
    answer to a question that is drawn once the candidate is imported shows that the net builds, predicts and learns
    now: docs/design/0021-verdicts.md.
    """

    classes: int  # number of classes
    lines: int  # largest line number that a verdict may have
    ask: Callable[[bytes], object]  # sends the question to the worker
    verdict: Verdict | None = None  # verdict once all is received
    _question: bytes = b""

    def take(self, frame: Frame, _seconds: float) -> bool:
        """Take a frame; return whether all is received.

        Raises:
            FrameError: If it is out of order, of no valid form, or the answer to another question.
        """
        if frame.kind == FrameKind.PROOF:
            self.verdict = self._judged(frame.body)
            return True
        message = frame.message()
        if message.get("event") == IMPORTED:
            if self._question:
                raise FrameError("a candidate that is imported twice")
            self._question = secrets.token_bytes(NONCE)
            self.ask(self._question)
            return False
        verdict = read_verdict(message, self.lines)
        if verdict.valid:
            raise FrameError("a check that calls itself valid")
        self.verdict = verdict
        return True

    def _judged(self, body: bytes) -> Verdict:
        if not self._question or body[:NONCE] != self._question:
            raise FrameError("an answer to a question that was not asked")
        if body[NONCE : 2 * NONCE] == body[2 * NONCE : 3 * NONCE]:
            message = "learn changed no parameter on batches of which one was drawn after the import"
            return Verdict(outcome=Outcome.NO_GRADIENT, rule=_PROOF, message=message)
        if not np.isfinite(np.frombuffer(body[3 * NONCE :], "<f4")).all():
            message = "logits in eval mode on random images are not finite"
            return Verdict(outcome=Outcome.NON_FINITE, rule=_PROOF, message=message)
        return Verdict(outcome=Outcome.VALID)


@dataclass(slots=True, kw_only=True)
class TrialScorer:
    """Receives the frames of a training in their only order: ready, then per epoch a report and predictions, then test.

    Where they are asked for, the logits of the validation images come before the test predictions.
    """

    epochs: int  # number of epochs to come
    classes: int  # number of classes
    lines: int  # largest line number that a verdict may have
    images: int  # number of training images
    # seconds from which on an epoch is compared with its predictions; infinite where it cannot be
    slow_s: float = math.inf
    score: Callable[[bytes], float]  # computes the accuracy of validation predictions
    on_epoch: Callable[[EpochResult], None] | None = None  # called after each completed epoch
    artifacts: FileSink | None = None  # receives the files of the training
    logits: bool = False  # whether the logits of the validation images follow those of the last epoch
    # one point per completed epoch; those of an earlier run, if it goes on from there
    curve: list[EpochResult] = field(default_factory=list)
    # verdict once all is received: valid after the test predictions, or the worker's own
    verdict: Verdict | None = None
    parameters: int | None = None  # number of parameters of the net, as the worker counted them
    # class per validation image after the last completed epoch, as ``Trial`` keeps them
    validation_predictions: bytes = b""
    test_predictions: bytes = b""  # class per test image in the same form; empty until the end
    # logits per validation image, as ``Trial`` keeps them; empty where they were not asked for
    validation_logits: bytes = b""
    started: str = ""  # weights that the training started from, in words; empty for new ones
    suspect: str = ""  # reason why the time of an epoch is implausible; empty for most
    _report: Mapping[str, Any] | None = None
    _since: float = 0.0
    _learned: float = 0.0

    def take(self, frame: Frame, seconds: float) -> bool:
        """Take a frame that came ``seconds`` after the start; return whether all is received.

        Raises:
            FrameError: If it is out of order or was not asked for, or contains a class that does not exist.
        """
        if frame.kind == MESSAGE:
            return self._take_message(frame.message(), seconds)
        if frame.kind == FrameKind.VALIDATION:
            self._take_validation(frame.body, seconds)
            return False
        if frame.kind == FrameKind.LOGITS:
            self._take_logits(frame.body)
            return False
        if frame.kind == FrameKind.TEST:
            return self._take_test(frame.body)
        # The frame reader admits parts of files only where there is a request for files.
        assert self.artifacts is not None
        self.artifacts.append(frame.body)
        # The time for files is not that of an epoch.
        self._since = seconds
        return False

    def progress(self) -> dict[str, Any]:
        """Return the completed epochs as JSON types, for a training that may go on later."""
        curve = [asdict(point) for point in self.curve]
        predictions = base64.b64encode(self.validation_predictions).decode()
        return {"epoch": len(curve), "curve": curve, "predictions": predictions}

    def _take_message(self, message: Mapping[str, Any], seconds: float) -> bool:
        event = message.get("event")
        if event == "verdict":
            verdict = read_verdict(message, self.lines)
            # Only a failure may end a training early: valid is decided here, after the last predictions.
            if verdict.valid:
                raise FrameError("a training that calls itself valid")
            self.verdict = verdict
            return True
        if event == "ready" and self.parameters is None:
            # The first epoch is timed from here: import and building are not counted.
            self.parameters = _parameters(message.get("parameters"))
            self.started = one_line(str(message.get("started", "")), 300)
            self._since = seconds
        elif event in ("file", "no-file") and self.artifacts is not None:
            self.artifacts.announce(message)
        elif event == "epoch" and self.parameters is not None and self._report is None:
            self._report = message
            self._learned = seconds
        else:
            raise FrameError("a message out of order")
        return False

    def _take_validation(self, body: bytes, seconds: float) -> None:
        if self._report is None or len(self.curve) >= self.epochs:
            raise FrameError("validation predictions out of order")
        self._check_classes(body)
        self.validation_predictions = body
        # Of the report only numbers in their range are kept: all of it comes from the candidate.
        usage = self._report.get("usage")
        point = EpochResult(
            epoch=len(self.curve) + 1,
            validation_accuracy=self.score(body),
            train_accuracy=_share(self._report.get("train_accuracy")),
            train_loss=_number(self._report.get("train_loss")),
            # By the clock of this process, from one frame of predictions to the next.
            seconds=seconds - self._since,
            usage=_usage(usage),
            entropy=_number(self._report.get("entropy")),
            samples=_samples(self._report.get("samples"), seconds - self._since),
        )
        # By this process's clock, whatever the worker counts: training costs a few times as much as predicting.
        learned_s, predicted_s = self._learned - self._since, seconds - self._learned
        ratio = learned_s / self.images / max(predicted_s / max(len(body) / 2, 1), 1e-9)
        if learned_s > self.slow_s and ratio > _MOST_RATIO and not self.suspect:
            self.suspect = f"epoch {point.epoch} took {ratio:.0f} times as long as predicting as many images"
        self._report, self._since = None, seconds
        self.curve.append(point)
        if self.on_epoch is not None:
            self.on_epoch(point)

    def _take_logits(self, body: bytes) -> None:
        if not self._trained or self.validation_logits:
            raise FrameError("logits out of order")
        logits = np.frombuffer(body, "<f2").reshape(-1, self.classes)
        classes = np.frombuffer(self.validation_predictions, "<u2")
        # Rounding to float16 may make ties, and never another order.
        if not np.isfinite(logits).all() or not np.array_equal(
            logits[np.arange(len(classes)), classes], logits.max(axis=1)
        ):
            raise FrameError("logits that do not belong to the predictions")
        self.validation_logits = body

    @property
    def _trained(self) -> bool:
        return len(self.curve) == self.epochs and self._report is None

    def _take_test(self, body: bytes) -> bool:
        if not self._trained or (self.logits and not self.validation_logits):
            raise FrameError("test predictions out of order")
        self._check_classes(body)
        self.test_predictions = body
        self.verdict = Verdict(outcome=Outcome.VALID)
        return True

    def _check_classes(self, body: bytes) -> None:
        # One class too many would count as a wrong answer here, and as an index out of range elsewhere.
        highest = int(np.frombuffer(body, "<u2").max(initial=0))
        if highest >= self.classes:
            raise FrameError(f"a prediction of class {highest}, where there are {self.classes} classes")


_LIMITS = {
    ExitReason.TIME: (Outcome.TIMEOUT, ": simplify it, or raise --time-limit"),
    ExitReason.MEMORY: (Outcome.MEMORY, ": choose smaller batches or images, or raise --memory-mib"),
    ExitReason.PROCESSES: (Outcome.CRASHED, ": start none"),
    ExitReason.PROTOCOL: (Outcome.CRASHED, ""),
}
"""Outcome and remedy for each limit that a worker may reach."""


def verdict_of_result(result: JobResult, lines: int) -> Verdict:
    """Explain a worker that ended before all was received; a crash is traced to its line where Python printed it."""
    message = one_line(result.describe(), 400)
    if result.reason in _LIMITS:
        outcome, remedy = _LIMITS[result.reason]
        return Verdict(outcome=outcome, rule=_RULE, message=message + remedy)
    line = result.crash_line(SOURCE_FILE)
    # The candidate may have printed the traceback itself.
    line = line if line is not None and 1 <= line <= lines else None
    return fail(Outcome.CRASHED, KILLED if result.killed else _RULE, message, line=line).verdict


_SENT = frozenset(Outcome) - {Outcome.DUPLICATE, Outcome.TIMEOUT}
"""Outcomes that a worker can find; the others are found by the launching process alone."""


def read_verdict(message: Mapping[str, Any], lines: int) -> Verdict:
    """Read the verdict that a worker sent, on a file of so many lines.

    Raises:
        FrameError: If the message is not a verdict, or a field has another type or range than a worker's.
    """
    outcome, rule, text, line = (message.get(name) for name in ("outcome", "rule", "message", "line"))
    if message.get("event") != "verdict" or not isinstance(outcome, str) or outcome not in _SENT:
        raise FrameError("a message that is not a verdict")
    if not isinstance(rule, str) or not isinstance(text, str):
        raise FrameError("a verdict whose rule or message is not text")
    if not re.fullmatch(r"[\w.-]{0,60}", rule, re.ASCII) or rule in (_RULE, KILLED, PREDICTED):
        raise FrameError("a verdict whose rule is not a worker's")
    if line is not None and (type(line) is not int or not 1 <= line <= lines):
        raise FrameError("a verdict whose line is not a line of the source")
    return Verdict(outcome=Outcome(outcome), rule=rule, message=one_line(text, 600), line=line)


def _parameters(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _MAX_PARAMETERS:
        raise FrameError("a number of parameters that cannot be")
    return value


def _samples(value: object, seconds: float) -> int:
    """Read a number of samples; a worker that sends none is not one of ours."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_SAMPLES_PER_S * (1 + seconds):
        raise FrameError("a number of samples that cannot be")
    return value


def _number(value: object) -> float | None:
    # A bool is an int in Python, but not a number in JSON. An int may be too large for a float.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _share(value: object) -> float | None:
    number = _number(value)
    return number if number is not None and 0 <= number <= 1 else None


def _usage(value: object) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) > _MAX_EXPERTS:
        return ()
    shares = [_share(item) for item in value]
    return tuple(share for share in shares if share is not None) if None not in shares else ()
