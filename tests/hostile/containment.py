"""Runs one attack of the corpus and decides whether it was contained.

An attack is contained if its verdict is one of the correct ones, arrived at most one second after the time limit, and
left no process, no changed file and no text of a file that it must not read; a lack of memory that it claims buys at
most two more tries.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import psutil
from corpus import Attack
from living import is_sandbox, lives

from nngen.checks import CheckFailed
from nngen.datasets import Dataset
from nngen.errors import FamilyError
from nngen.families.catalogue import read_family
from nngen.families.probe import Probe
from nngen.families.trust import AUTO
from nngen.isolation import Isolation, JobRunner, Limits
from nngen.training import LocalEngine, TrainJob
from nngen.training.candidate_files import read_candidate
from nngen.types import Outcome, Shape, TrialSpec, Verdict

__all__ = ["HONEST", "MEMORY_MIB", "SLACK_S", "TIME_LIMIT_S", "Containment", "Targets", "contain", "contain_family"]

TIME_LIMIT_S = 6.0
SLACK_S = 1.0
MEMORY_MIB = 1024
HONEST = 0.97
"""A linear net does not reach this accuracy on the digits in one epoch; one that knows the labels does."""

BREACH = "BREACH"
CANARY = "NNGEN_CANARY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Containment:
    """Outcome of an attack at one level.

    Attributes:
        fault: Reason why it was not contained; empty if it was.
    """

    verdict: Verdict
    seconds: float
    fault: str


class Targets:
    """Files, sockets and an environment variable that attacks try to reach."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.folder = Path(tempfile.mkdtemp(prefix="nngen-canary-"))
        (self.folder / "secret").write_text("the user's")
        (self.folder / "nngen.db").write_text("the archive")
        self._sockets = [socket.create_server(("127.0.0.1", 0)), *(socket.socket(socket.AF_UNIX) for _ in range(2))]
        self._port = self._sockets[0].getsockname()[1]
        self._sockets[1].bind(str(self.folder / "socket"))
        self._sockets[2].bind(f"\0nngen-hostile-{self._port}")
        for listener in self._sockets:
            listener.listen()
        os.environ[CANARY] = "the engine's"
        self._before = self._content()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        for listener in self._sockets:
            listener.close()
        shutil.rmtree(self.folder)
        del os.environ[CANARY]

    def write_source(self, attack: Attack, folder: Path) -> Path:
        """Write an attack's source, with the addresses of these targets, and return its path."""
        path = folder / "attack.py"
        if attack.large == "huge":
            with path.open("wb") as file:
                file.truncate(2**30)
            return path
        given = {
            "CANARY": self.folder,
            "PORT": self._port,
            "ENGINE": os.getpid(),
            "DATA": self.dataset.folder,
            "STANDARD": Path(os.__file__).parent,
            "PACKAGES": Path(psutil.__file__).parents[1],
            "VALIDATION": len(self.dataset.validation_labels),
            "TEST": len(self.dataset.test_labels),
        }
        text = attack.source
        for name, value in given.items():
            text = text.replace(f"GIVEN_{name}", str(value))
        path.write_text(text)
        return path

    def changed(self) -> bool:
        """Return whether a file was changed, added or removed."""
        return self._content() != self._before

    def _content(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() if path.is_file() else b"" for path in sorted(self.folder.rglob("*"))}


def contain(
    attack: Attack, level: Isolation, engine: LocalEngine, targets: Targets, slack_s: float = SLACK_S
) -> Containment:
    """Train an attack at one level, and compare verdict, time, processes and files with the expected ones."""
    spec = TrialSpec(dataset="digits", shape=Shape(1, 8, 8), lr=0.05, time_limit_s=TIME_LIMIT_S, memory_mib=MEMORY_MIB)
    others = set(_processes())
    seconds, accuracy, claimed = 0.0, None, 0
    with tempfile.TemporaryDirectory() as folder:
        try:
            candidate = read_candidate(targets.write_source(attack, Path(folder)))
        except CheckFailed as refused:
            verdict = refused.verdict
        else:
            job = TrainJob(candidate=candidate, spec=spec, dataset=targets.dataset, isolation=level)
            trial = engine.train(job)
            verdict, seconds, accuracy = trial.verdict, trial.seconds, trial.validation_accuracy
            # A slow machine has time for fewer: what holds on any is the bound.
            claimed = len(trial.batches_tried) if trial.peak_mib < MEMORY_MIB / 2 else 0
    left = _left(others)
    faults = {
        "it got what it wanted": BREACH in verdict.message,
        f"not {' or '.join(attack.right[level])}": verdict.outcome not in attack.right[level],
        f"does not say {attack.says!r}": attack.says not in verdict.message,
        "its message is not fit to print": not verdict.message.isprintable(),
        "too late": seconds > TIME_LIMIT_S + slack_s,
        "it left processes": bool(left),
        "it changed files": targets.changed(),
        "it bought more tries": claimed > 3,
        "it knew the labels": accuracy is not None and accuracy > HONEST,
    }
    fault = "; ".join(fault for fault, true in faults.items() if true)
    return Containment(verdict=verdict, seconds=seconds, fault=fault)


def contain_family(attack: Attack, runner: JobRunner, targets: Targets, slack_s: float = SLACK_S) -> Containment:
    """Measure an attack as a family, in the sandbox that the probe chooses; the verdict has the reason."""
    others = set(_processes())
    with tempfile.TemporaryDirectory() as folder:
        path = targets.write_source(attack, Path(folder))
        try:
            family = read_family(path.rename(path.with_name("Attack.py")))
        except FamilyError as refused:
            verdict, seconds = Verdict(outcome=Outcome.SYNTAX, message=str(refused)), 0.0
        else:
            probe = Probe(family=family, shape=Shape(1, 8, 8), classes=10, wanted=AUTO)
            job = replace(probe.job(), limits=Limits(time_limit_s=TIME_LIMIT_S, memory_mib=MEMORY_MIB))
            messages, result = runner.collect(job)
            answer, seconds = probe.answer(messages, result), result.seconds
            outcome = Outcome.CRASHED if answer.reason else Outcome.VALID
            verdict = Verdict(outcome=outcome, message=answer.reason)
    faults = {
        "it got what it wanted": BREACH in verdict.message,
        "its message is not fit to print": not verdict.message.isprintable(),
        "too late": seconds > TIME_LIMIT_S + slack_s,
        "it left processes": bool(_left(others)),
        "it changed files": targets.changed(),
    }
    fault = "; ".join(fault for fault, true in faults.items() if true)
    return Containment(verdict=verdict, seconds=seconds, fault=fault)


def _left(others: set[psutil.Process]) -> list[psutil.Process]:
    """Return new processes that still exist after one second."""
    deadline = time.monotonic() + SLACK_S
    while True:
        left = [process for process in _processes() if process not in others]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def _processes() -> list[psutil.Process]:
    """Return the living descendants of this process, without the engine's servers, which are its children."""
    me = psutil.Process()
    servers = [child for child in me.children() if not is_sandbox(child)]
    return [process for process in me.children(recursive=True) if process not in servers and lives(process)]
