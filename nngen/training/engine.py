"""The engine protocol and its jobs: one interface to check and to train candidates, on this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nngen.isolation.limits import Isolation
from nngen.ranges import Classes, MiB, Seconds, Threads
from nngen.types import Candidate, EpochResult, Hyperparameters, Shape, Trial, TrialSpec, Verdict

if TYPE_CHECKING:
    from nngen.datasets.dataset import Dataset
    from nngen.training.state.checkpoints import TrialFolder

SMALLEST_BATCH = 2
"""Images in the smallest batch that the engine tries."""

PREDICTED = "predicted"
"""Rule of the verdict on a training that was refused because it cannot fit."""

KILLED = "worker.killed"
"""Rule of the verdict where the worker was killed from outside: the machine may have done it, so the caller may submit
the job again."""

TRAINING = "worker.train"
"""Rule of the verdict where a net fails in training or prediction, beyond the rules of a check."""

RESTORE = "worker.restore"
"""Rule of the verdict where a checkpoint does not fit the net that was built: the training begins anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckJob:
    """A candidate to check, and the limits of its worker."""

    candidate: Candidate  # the candidate; an engine reads only its source
    shape: Shape  # shape of one image, without the batch
    classes: Classes = 10  # number of classes
    hyperparameters: Hyperparameters = field(default_factory=dict)  # values of ``prm`` that differ from the defaults
    device: str = "cpu"  # ``cpu`` or ``cuda``
    threads: Threads = 1  # CPU threads of the worker
    time_limit_s: Seconds = 60.0  # limit in seconds, on the clock of the process that runs the engine
    memory_mib: MiB = 12_288  # limit on resident memory over the worker's process tree, in MiB
    isolation: Isolation  # isolation level of the worker


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """A candidate to train and to score."""

    candidate: Candidate  # the candidate; an engine reads its id, its source and, to predict memory, its plan
    spec: TrialSpec  # training settings and limits; ``spec.device`` is ``cpu`` or ``cuda``
    dataset: Dataset  # images and labels; the labels of validation and test stay in the process that runs the engine
    isolation: Isolation  # isolation level of the worker
    # folder of the trial's checkpoint and weights, from which an interrupted training goes on; None where nothing is
    # kept
    folder: TrialFolder | None = None
    # file of the weights that training starts from, whose SHA-256 is ``spec.start``; None for new ones
    start: Path | None = None
    # kept weights of each expert's family trained alone, in the plan's order, from which the experts of a mixture
    # start; empty for new ones. ``spec.start`` identifies them
    experts: tuple[Path, ...] = ()
    logits: bool = False  # whether the trial keeps its logits of the validation images


class Engine(Protocol):
    """Checks and trains candidates in isolated workers. Its methods are called from several threads at once.

    An engine that loses a job through no fault of the candidate (a machine went away) raises ``EngineLostError``;
    the caller may submit the same job again.
    """

    @property
    def slots(self) -> int:
        """Number of trainings that it takes at once, at least 1; it may change while a campaign runs."""
        ...

    def check(self, job: CheckJob) -> Verdict:
        """Run every static and dynamic rule over a candidate; never raises for what the candidate does.

        Raises:
            UsageError: If a sandbox is required and bubblewrap is missing; nothing is run then.
            EngineLostError: If the engine lost the job.
            NngenError: If no worker can be started.
        """
        ...

    def train(self, job: TrainJob, on_epoch: Callable[[EpochResult], None] | None = None) -> Trial:
        """Train a candidate and compute its accuracy; never raises for what the candidate does.

        Args:
            job: The candidate and how to train it.
            on_epoch: Called in this thread after each epoch; from the first on again where the batch was halved.

        Returns:
            The trial; its verdict says what went wrong, if something did.

        Raises:
            DataError: If the images cannot be brought to ``job.spec.shape``.
            UsageError: If there is nothing to train (no epoch, batches of one, fewer images than asked for), or a
                sandbox is required and bubblewrap is missing; nothing is run then.
            EngineLostError: If the engine lost the job.
            NngenError: If no worker can be started.
        """
        ...
