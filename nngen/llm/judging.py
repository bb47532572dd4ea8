"""Who checks and trains proposals, and how far machine-written sources are trusted: not at all."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from typing import Protocol

from nngen.datasets import Dataset
from nngen.errors import UsageError
from nngen.isolation import Isolation
from nngen.llm.rewriters.base import Kind
from nngen.training import CheckJob, Engine, TrainJob
from nngen.types import Candidate, Shape, Trial, TrialSpec, Verdict

__all__ = ["EngineJudge", "Judge", "require_sandbox"]


class Judge(Protocol):
    """Checks and trains candidates somewhere that is not here.

    Attributes:
        sandboxed: Whether it has a sandbox, fit for code that a model wrote.
        spec: How each trial is trained; its seed is replaced.
    """

    @property
    def sandboxed(self) -> bool: ...

    @property
    def spec(self) -> TrialSpec: ...

    @property
    def classes(self) -> int: ...

    def check(self, candidate: Candidate, *, trusted: bool) -> Verdict:
        """Prove that a candidate works, in the sandbox unless it is trusted; never raises for what it does."""
        ...

    def train(self, candidate: Candidate, seed: int, *, trusted: bool) -> Trial:
        """Train a candidate and score it, in the sandbox unless it is trusted; never raises for what it does."""
        ...


@dataclass(slots=True, kw_only=True)
class EngineJudge:
    """The local engine as a judge: level ``process`` for what is trusted, ``sandbox`` for all else."""

    engine: Engine
    dataset: Dataset
    spec: TrialSpec

    @property
    def sandboxed(self) -> bool:
        return shutil.which("bwrap") is not None

    @property
    def classes(self) -> int:
        return self.dataset.classes

    @property
    def shape(self) -> Shape:
        return self.spec.shape

    def check(self, candidate: Candidate, *, trusted: bool) -> Verdict:
        job = CheckJob(
            candidate=candidate,
            shape=self.spec.shape,
            classes=self.dataset.classes,
            device=self.spec.device,
            threads=self.spec.threads,
            memory_mib=self.spec.memory_mib,
            isolation=_level(trusted=trusted),
        )
        return self.engine.check(job)

    def train(self, candidate: Candidate, seed: int, *, trusted: bool) -> Trial:
        spec = replace(self.spec, seed=seed)
        job = TrainJob(candidate=candidate, spec=spec, dataset=self.dataset, isolation=_level(trusted=trusted))
        trial = self.engine.train(job)
        return replace(trial, data_fingerprint=self.dataset.fingerprint)


def require_sandbox(name: str, kind: Kind, judge: Judge, *, trusted: bool) -> None:
    """Refuse to run code that a model wrote outside of a sandbox.

    Plans are data, and the baselines write only what this package's own tables hold; both run anywhere.

    Args:
        name: The rewriter's.
        kind: What it writes.
        judge: Who runs it.
        trusted: The rewriter's own word, ``Rewriter.trusted``.

    Raises:
        UsageError: If the kind is code, a model writes it, and the judge has no sandbox.
    """
    if kind is not Kind.PLAN and not trusted and not judge.sandboxed:
        raise UsageError(
            f"{name} would write code ({kind}), and code that a model wrote runs in a sandbox only: "
            "apt-get install bubblewrap, or ask for --kind plan"
        )


def _level(*, trusted: bool) -> Isolation:
    return Isolation.PROCESS if trusted else Isolation.SANDBOX
