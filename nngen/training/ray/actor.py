"""What runs on a node: one trial at a time in a warm local engine, with no label of the judge's on the machine."""

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
from nngen.isolation.level import Isolation
from nngen.training.engine import CheckJob, TrainJob
from nngen.training.local_engine import LocalEngine
from nngen.training.memory_model import Prediction
from nngen.training.ray.dataset_transfer import Bytes, DatasetTransfer, unpack
from nngen.types import Candidate, EpochResult, Trial, TrialSpec, Verdict

__all__ = ["Epoch", "Facts", "Refusal", "Slot", "Word"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Where a slot is.

    Attributes:
        host: The node's name.
        nngen: Its version there.
        python: Likewise.
    """

    host: str
    nngen: str
    python: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One epoch that is done; its accuracy is made by the driver.

    Attributes:
        point: Its validation accuracy is not a number yet.
        predictions: Class per validation image, as in ``Trial``.
    """

    point: EpochResult
    predictions: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An error of the local engine, to be raised in the driver."""

    kind: type[NngenError]
    message: str


Word: TypeAlias = Epoch | Trial | Refusal


class Slot:
    """The actor; Ray gives it its cores, its share of a card and its memory for as long as it lives."""

    def __init__(self, *, compiled: bool = False) -> None:
        self._prediction: Prediction | None = None
        self._engine = LocalEngine(predict=lambda *_: self._prediction, compiled=compiled)
        self._thread = ThreadPoolExecutor(1)

    def hello(self) -> Facts | Refusal:
        """Load torch, and say where this is."""
        try:
            self._engine.warm_up()
        except NngenError as error:
            return _refusal(error)
        return Facts(host=socket.gethostname(), nngen=__version__, python=platform.python_version())

    def ping(self) -> None:
        """Show that this is alive."""

    def check(self, job: CheckJob) -> Verdict | Refusal:
        """Check a candidate."""
        try:
            return self._engine.check(job)
        except NngenError as error:
            return _refusal(error)

    def train(
        self,
        candidate: Candidate,
        spec: TrialSpec,
        parcel: DatasetTransfer,
        files: Sequence[Any],
        isolation: Isolation,
        prediction: Prediction | None,
    ) -> Iterator[Word]:
        """Train a candidate; yield each epoch as it ends, then the trial or why there is none.

        Args:
            candidate: As for ``LocalEngine.train``.
            spec: Likewise.
            parcel: The data set.
            files: References to its bytes in the object store.
            isolation: As for ``LocalEngine.train``.
            prediction: What the driver expects it to take.
        """
        self._prediction = prediction
        said: SimpleQueue[Epoch | None] = SimpleQueue()
        work = self._thread.submit(self._train, candidate, spec, parcel, files, isolation, said)
        work.add_done_callback(lambda _: said.put(None))
        while (epoch := said.get()) is not None:
            yield epoch
        yield work.result()

    def _train(
        self,
        candidate: Candidate,
        spec: TrialSpec,
        parcel: DatasetTransfer,
        files: Sequence[Any],
        isolation: Isolation,
        said: SimpleQueue[Epoch | None],
    ) -> Trial | Refusal:
        predictions = b""

        def score(body: bytes) -> float:
            nonlocal predictions
            predictions = body
            return nan

        def tell(point: EpochResult) -> None:
            said.put(Epoch(point=point, predictions=predictions))

        def fetch(number: int) -> Bytes:
            array: Bytes = ray.get(files[number])
            return array

        try:
            dataset = unpack(parcel, fetch)
            job = TrainJob(candidate=candidate, spec=spec, dataset=dataset, isolation=isolation)
            trial = self._engine.train(job, tell, score=score)
        except NngenError as error:
            return _refusal(error)
        return replace(trial, environment={**trial.environment, "engine": "ray", "node": socket.gethostname()})


def _refusal(error: NngenError) -> Refusal:
    return Refusal(kind=type(error), message=f"node {socket.gethostname()}: {error}")
