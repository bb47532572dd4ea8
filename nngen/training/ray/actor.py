"""The actor on a node: runs one job at a time in a warm local engine, without labels of validation and test."""

from __future__ import annotations

import platform
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import nan
from queue import SimpleQueue
from typing import Any, TypeAlias

import ray

from nngen import __version__
from nngen.errors import NngenError
from nngen.isolation.limits import Isolation
from nngen.training.engine import CheckJob, TrainJob
from nngen.training.local_engine import LocalEngine
from nngen.training.memory_model import Prediction
from nngen.training.ray.dataset_transfer import Bytes, DatasetTransfer, unpack
from nngen.types import Candidate, EpochResult, Trial, TrialSpec, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """The node of an actor.

    Attributes:
        host: Name of the node.
        nngen: Version of nngen there.
        python: Version of Python there.
    """

    host: str
    nngen: str
    python: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """A completed epoch; the driver computes its accuracy.

    Attributes:
        point: The epoch; its validation accuracy is NaN.
        predictions: Class per validation image, as in ``Trial``.
    """

    point: EpochResult
    predictions: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An error of the local engine, to raise in the driver."""

    kind: type[NngenError]
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteTrainJob:
    """A ``TrainJob`` on its way to a node.

    Attributes:
        transfer: The data set without its arrays.
        files: References to the bytes of its files in Ray's object store.
    """

    candidate: Candidate
    spec: TrialSpec
    transfer: DatasetTransfer
    files: Sequence[Any]
    isolation: Isolation


ActorMessage: TypeAlias = Epoch | Trial | Refusal


class TrialActor:
    """The actor; Ray reserves its cores, its share of a card and its memory for as long as it lives."""

    def __init__(self, *, compiled: bool = False) -> None:
        self._prediction: Prediction | None = None
        self._engine = LocalEngine(predict=lambda *_: self._prediction, compiled=compiled)
        self._thread = ThreadPoolExecutor(1)

    def describe(self) -> NodeFacts | Refusal:
        """Load torch, and describe the node."""
        try:
            self._engine.warm_up()
        except NngenError as error:
            return _refusal(error)
        return NodeFacts(host=socket.gethostname(), nngen=__version__, python=platform.python_version())

    def ping(self) -> None:
        """Answer, to show that the actor is alive."""

    def check(self, job: CheckJob) -> Verdict | Refusal:
        """Check a candidate."""
        try:
            return self._engine.check(job)
        except NngenError as error:
            return _refusal(error)

    def train(self, job: RemoteTrainJob, prediction: Prediction | None) -> Iterator[ActorMessage]:
        """Train a candidate; yield each epoch as it ends, then the trial or the error in its place.

        Args:
            job: What to train, without the data set.
            prediction: The driver's prediction of its memory.
        """
        # Read by the engine's predictor: an actor runs one job at a time.
        self._prediction = prediction
        # The engine calls back in the thread that trains, and Ray's stream must be fed from this one.
        messages: SimpleQueue[Epoch | None] = SimpleQueue()
        work = self._thread.submit(self._train, job, messages)
        work.add_done_callback(lambda _: messages.put(None))
        while (epoch := messages.get()) is not None:
            yield epoch
        yield work.result()

    def _train(self, job: RemoteTrainJob, messages: SimpleQueue[Epoch | None]) -> Trial | Refusal:
        predictions = b""

        def score(body: bytes) -> float:
            nonlocal predictions
            # The labels are in the driver: the predictions travel, and the accuracy is computed there.
            predictions = body
            return nan

        def on_epoch(point: EpochResult) -> None:
            messages.put(Epoch(point=point, predictions=predictions))

        def fetch(number: int) -> Bytes:
            array: Bytes = ray.get(job.files[number])
            return array

        try:
            local = TrainJob(
                candidate=job.candidate,
                spec=job.spec,
                dataset=unpack(job.transfer, fetch),
                isolation=job.isolation,
            )
            trial = self._engine.train(local, on_epoch, score=score)
        except NngenError as error:
            return _refusal(error)
        return replace(trial, environment={**trial.environment, "engine": "ray", "node": socket.gethostname()})


def _refusal(error: NngenError) -> Refusal:
    return Refusal(kind=type(error), message=f"node {socket.gethostname()}: {error}")
