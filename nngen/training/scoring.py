"""The judge: holds the labels, takes predictions, and makes the curve and the accuracies of them."""

from __future__ import annotations

import math
import os
import re
import signal
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nngen.isolation.limits import MAX_PROCESSES, Limits
from nngen.isolation.monitor import End, Ending
from nngen.isolation.protocol import Frame, FrameError, Kind
from nngen.text import one_line
from nngen.types import EpochResult, Outcome, Verdict

__all__ = ["KILLED", "TrialScorer", "VerdictJudge", "accuracy", "verdict_of_ending"]

_MAX_EXPERTS = 64
_MAX_PARAMETERS = 10**12
_RULE = "worker"
KILLED = "worker.killed"
"""The rule of a worker that a signal ended from where the judge cannot see: it may have been the machine's doing,
so whoever asked may ask again."""


def accuracy(predictions: bytes, labels: npt.NDArray[np.int64]) -> float:
    """Return the share of right predictions, in [0, 1].

    Args:
        predictions: One little-endian uint16 per label, as ``Trial`` keeps them.
        labels: ``(N,)`` right classes.

    Raises:
        ValueError: If there are more or fewer predictions than labels.
    """
    classes = np.frombuffer(predictions, "<u2")
    if len(classes) != len(labels):
        raise ValueError(f"{len(classes)} predictions for {len(labels)} labels")
    return float(np.mean(classes == labels))


class VerdictJudge:
    """Takes the one message of a check."""

    def __init__(self) -> None:
        self.verdict: Verdict | None = None

    def take(self, frame: Frame, _seconds: float) -> bool:
        """Take a frame; true means that all is said.

        Raises:
            FrameError: If the frame is not the verdict of a check.
        """
        self.verdict = _read_verdict(frame.message())
        return True


class TrialScorer:
    """Takes the frames of a trial in their only order: ready, then per epoch a report and predictions, then test.

    Attributes:
        curve: One point per epoch that was completed.
        verdict: Set once all is said: valid after the test predictions, or what the worker refused.
    """

    def __init__(
        self,
        *,
        epochs: int,
        classes: int,
        score: Callable[[bytes], float],
        on_epoch: Callable[[EpochResult], None] | None = None,
    ) -> None:
        self.curve: list[EpochResult] = []
        self.verdict: Verdict | None = None
        self.parameters: int | None = None
        self.validation_predictions = b""
        self.test_predictions = b""
        self._epochs = epochs
        self._classes = classes
        self._score = score
        self._on_epoch = on_epoch
        self._report: Mapping[str, Any] | None = None
        self._since = 0.0

    def take(self, frame: Frame, seconds: float) -> bool:
        """Take a frame that came ``seconds`` after the start; true means that all is said.

        Raises:
            FrameError: If it is out of order, or holds a class that does not exist.
        """
        match frame.kind:
            case Kind.MESSAGE:
                return self._take_message(frame.message(), seconds)
            case Kind.VALIDATION:
                self._take_validation(frame.body, seconds)
                return False
            case Kind.TEST:
                return self._take_test(frame.body)
            case Kind.FILE:
                raise FrameError("a file that was not asked for")

    def _take_message(self, message: Mapping[str, Any], seconds: float) -> bool:
        event = message.get("event")
        if event == "verdict":
            verdict = _read_verdict(message)
            if verdict.valid:
                raise FrameError("a trial that calls itself valid")
            self.verdict = verdict
            return True
        if event == "ready" and self.parameters is None:
            self.parameters = _whole(message.get("parameters"))
            self._since = seconds
        elif event == "epoch" and self.parameters is not None and self._report is None:
            self._report = message
        else:
            raise FrameError("a message out of order")
        return False

    def _take_validation(self, body: bytes, seconds: float) -> None:
        if self._report is None or len(self.curve) >= self._epochs:
            raise FrameError("validation predictions out of order")
        self._check_classes(body)
        self.validation_predictions = body
        usage = self._report.get("usage")
        point = EpochResult(
            epoch=len(self.curve) + 1,
            validation_accuracy=self._score(body),
            train_accuracy=_share(self._report.get("train_accuracy")),
            train_loss=_number(self._report.get("train_loss")),
            seconds=seconds - self._since,
            usage=_usage(usage),
            entropy=_number(self._report.get("entropy")),
        )
        self._report, self._since = None, seconds
        self.curve.append(point)
        if self._on_epoch is not None:
            self._on_epoch(point)

    def _take_test(self, body: bytes) -> bool:
        if len(self.curve) != self._epochs or self._report is not None:
            raise FrameError("test predictions out of order")
        self._check_classes(body)
        self.test_predictions = body
        self.verdict = Verdict(outcome=Outcome.VALID)
        return True

    def _check_classes(self, body: bytes) -> None:
        highest = int(np.frombuffer(body, "<u2").max(initial=0))
        if highest >= self._classes:
            raise FrameError(f"a prediction of class {highest}; there are {self._classes}")


def verdict_of_ending(ending: Ending, limits: Limits, file: str) -> Verdict:
    """Explain a job that ended before it had said everything.

    Args:
        ending: How it ended.
        limits: What it was allowed.
        file: Name of the candidate's file; a crash inside it is traced to its line where Python could tell.
    """
    if ending.end is End.WALL:
        message = f"ran longer than {limits.time_limit_s:g} s and was ended: simplify it, or raise --time-limit"
        return Verdict(outcome=Outcome.TIMEOUT, rule=_RULE, message=message)
    if ending.end is End.MEMORY:
        message = (
            f"used {ending.peak_mib:,.0f} MiB, more than the limit of {limits.memory_mib:,} MiB:"
            " lower --batch or --shape, or raise --memory-mib"
        )
        return Verdict(outcome=Outcome.MEMORY, rule=_RULE, message=message)
    if ending.end is End.PROCESSES:
        message = f"started more than {MAX_PROCESSES} processes and was ended: start none"
        return Verdict(outcome=Outcome.CRASHED, rule=_RULE, message=message)
    if ending.end is End.PROTOCOL:
        message = f"the worker sent what no worker sends: {ending.error}"
        return Verdict(outcome=Outcome.CRASHED, rule=_RULE, message=message)
    line = _crash_line(ending.output, file)
    place = f"line {line}: " if line is not None else ""
    rule = KILLED if _killed(ending) else _RULE
    return Verdict(outcome=Outcome.CRASHED, rule=rule, message=f"{place}{_end_of_process(ending)}", line=line)


def _killed(ending: Ending) -> bool:
    """Say whether the worker, or the guard over it, was killed outright."""
    return ending.status is None or (os.WIFSIGNALED(ending.status) and os.WTERMSIG(ending.status) == signal.SIGKILL)


def _end_of_process(ending: Ending) -> str:
    if ending.status is None:
        return "the worker's guard process was killed or stopped"
    if os.WIFSIGNALED(ending.status):
        number = os.WTERMSIG(ending.status)
        name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
        cause = ", by itself or by the kernel for want of memory" if number == signal.SIGKILL else ""
        return f"the worker was killed by signal {name}{cause}"
    last = one_line(ending.output.decode(errors="replace").strip().rpartition("\n")[2], 200)
    said = f" (its last words: {last})" if last else ""
    return f"the worker left with exit code {os.waitstatus_to_exitcode(ending.status)} before it had finished{said}"


def _crash_line(output: bytes, file: str) -> int | None:
    """Find the innermost line of the candidate in what faulthandler prints when a signal kills it."""
    text = output.decode(errors="replace")
    found = re.search(
        rf'File "[^"\n]*{re.escape(file)}", line (\d{{1,7}}) in', text[text.rfind("Fatal Python error") :]
    )
    return int(found.group(1)) if found and "Fatal Python error" in text else None


def _read_verdict(message: Mapping[str, Any]) -> Verdict:
    try:
        outcome = Outcome(message["outcome"])
        rule, text, line = str(message["rule"]), str(message["message"]), message["line"]
    except (KeyError, ValueError) as error:
        raise FrameError("a message that is no verdict") from error
    if line is not None and not isinstance(line, int):
        raise FrameError("a verdict whose line is no number")
    return Verdict(outcome=outcome, rule=one_line(rule, 60), message=one_line(text, 600), line=line)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _MAX_PARAMETERS:
        raise FrameError("a number of parameters that is none")
    return value


def _number(value: object) -> float | None:
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
