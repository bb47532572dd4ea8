"""The actor on a node: runs one job at a time in a warm local engine, without labels of validation and test."""

from __future__ import annotations

import platform
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import nan
from queue import SimpleQueue
from typing import TypeAlias

import ray

from nngen import __version__
from nngen.errors import NngenError
from nngen.training.engine import CheckJob, TrainJob
from nngen.training.local_engine import LocalEngine
from nngen.training.memory_model import Prediction
from nngen.training.ray.dataset_transfer import DatasetTransfer, unpack
from nngen.types import EpochResult, Trial, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """The node of an actor."""

    host: str  # name of the node
    nngen: str  # version of nngen there
    python: str  # version of Python there


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """A completed epoch; the driver computes its accuracy."""

    point: EpochResult  # the epoch; its validation accuracy is NaN
    predictions: bytes  # class per validation image, as in ``Trial``


ActorMessage: TypeAlias = Epoch | Trial


class TrialActor:
    """The actor; Ray reserves its cores, its share of a card and its memory for as long as it lives."""

    def __init__(self, *, compiled: bool = False) -> None:
        self._prediction: Prediction | None = None
        self._engine = LocalEngine(predict=lambda *_: self._prediction, compiled=compiled)
        self._thread = ThreadPoolExecutor(1)

    def describe(self) -> NodeFacts:
        """Load torch, and describe the node."""
        with _node_named():
            self._engine.warm_up()
        return NodeFacts(host=socket.gethostname(), nngen=__version__, python=platform.python_version())

    def ping(self) -> None:
        """Answer, to show that the actor is alive."""

    def check(self, job: CheckJob) -> Verdict:
        """Check a candidate."""
        with _node_named():
            return self._engine.check(job)

    def train(self, job: TrainJob, transfer: DatasetTransfer, prediction: Prediction | None) -> Iterator[ActorMessage]:
        """Train a candidate on the data set of ``transfer``; yield each epoch as it ends, then the trial."""
        # Read by the engine's predictor: an actor runs one job at a time.
        self._prediction = prediction
        # The engine calls back in the thread that trains, and Ray's stream must be fed from this one.
        messages: SimpleQueue[Epoch | None] = SimpleQueue()
        work = self._thread.submit(self._train, job, transfer, messages)
        work.add_done_callback(lambda _: messages.put(None))
        while (epoch := messages.get()) is not None:
            yield epoch
        with _node_named():
            trial = work.result()
        yield replace(trial, environment={**trial.environment, "engine": "ray", "node": socket.gethostname()})

    def _train(self, job: TrainJob, transfer: DatasetTransfer, messages: SimpleQueue[Epoch | None]) -> Trial:
        predictions = b""

        def score(body: bytes) -> float:
            nonlocal predictions
            # The labels are in the driver: the predictions travel, and the accuracy is computed there.
            predictions = body
            return nan

        def on_epoch(point: EpochResult) -> None:
            messages.put(Epoch(point=point, predictions=predictions))

        return self._engine.train(replace(job, dataset=unpack(transfer, ray.get)), on_epoch, score=score)


@contextmanager
def _node_named() -> Iterator[None]:
    """Name this node in the local engine's errors, which Ray passes on to the driver."""
    try:
        yield
    except NngenError as error:
        raise type(error)(f"node {socket.gethostname()}: {error}") from None
