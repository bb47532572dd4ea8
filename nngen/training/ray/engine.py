"""The Ray engine: the local engine's methods, carried out by actors somewhere in the cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

import ray
from ray.exceptions import RayError, RayTaskError

from nngen.datasets.dataset import Dataset
from nngen.errors import EngineLostError, NngenError
from nngen.training.engine import CheckJob, TrainJob
from nngen.training.memory_model import Predictor
from nngen.training.ray.actor import ActorMessage, Epoch
from nngen.training.ray.actor_pool import ActorHandle, ActorPool
from nngen.training.ray.cluster import Cluster, Request, local_error, reason_of
from nngen.training.ray.dataset_transfer import DatasetTransfer, pack
from nngen.training.scoring import accuracy, suspicion
from nngen.types import Candidate, EpochResult, Trial, Verdict

_LOOK_S = 2.0


class RayEngine:
    """Runs candidates on the nodes of a Ray cluster. Safe to use from several threads at once.

    Each actor runs a warm ``LocalEngine``, so a candidate is as isolated there as it would be here. Where a node or
    an actor is lost, the caller gets ``EngineLostError`` and may submit the job again, to another actor.
    Leaving the ``with`` block ends whatever still runs.
    """

    def __init__(
        self,
        cluster: Cluster,
        request: Request,
        *,
        slots: int | None = None,
        predict: Predictor | None = None,
        compiled: bool = False,
    ) -> None:
        """Check that the cluster has room.

        Args:
            cluster: The cluster, which must outlive the engine.
            request: Resources that Ray reserves for each actor: as many cores as a trial has threads.
            slots: Number of actors; by default, what fits on the nodes that are alive. A number makes a cluster that
                scales by demand grow.
            predict: Predicts the memory of a training, here; the actor uses it as ``LocalEngine`` does.
            compiled: Whether nets are compiled, as for ``LocalEngine``.

        Raises:
            UsageError: If no node is large enough.
            NngenError: If nngen or Python differs on a node.
        """
        cluster.require(request)
        self._cluster = cluster
        self._request = request
        self._fixed = slots
        self._predict = predict
        self._counted = (1, -_LOOK_S)
        self._pool = ActorPool(request, self._room, compiled=compiled)
        self._placing = threading.Lock()
        self._placed: dict[str, DatasetTransfer] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every actor and whatever runs in it, unless the cluster is lost."""
        if not self._cluster.lost:
            self._pool.close()
        self._placed.clear()

    @property
    def slots(self) -> int:
        """Number of trainings that fit at once, at least 1; it follows the nodes that come and go."""
        if self._fixed is not None:
            return self._fixed
        count, seen = self._counted
        now = time.monotonic()
        # Campaigns read this between any two trials: Ray is not asked each time, nor without a head, which would hang.
        if now - seen > _LOOK_S and self._cluster.require_head():
            count = max(1, sum(node.room(self._request) for node in self._cluster.nodes()))
            self._counted = (count, now)
        return count

    def check(self, job: CheckJob) -> Verdict:
        """Run every static and dynamic rule over a candidate on some node; see ``Engine.check``.

        Messages of errors name the node.
        """
        with self._borrowed() as handle:
            found: Verdict = self._get(handle.actor.check.remote(replace(job, candidate=_bare(job.candidate))))
        return found

    def train(self, job: TrainJob, on_epoch: Callable[[EpochResult], None] | None = None) -> Trial:
        """Train a candidate on some node and compute its accuracy here, where the labels are; see ``Engine.train``.

        The images and the labels of the train split are sent to each node once; no other label is sent. Messages of
        errors name the node.
        """
        candidate, spec, dataset = job.candidate, job.spec, job.dataset
        dataset.check_unchanged()
        transfer = self._place(dataset)
        images = dataset.training_images(spec.train_size)
        prediction = self._predict(candidate, spec, images) if self._predict is not None else None
        scored: dict[tuple[int, float], EpochResult] = {}
        message: ActorMessage | None = None
        with self._borrowed() as handle:
            train = handle.actor.train.options(num_returns="streaming")
            remote = replace(job, candidate=_bare(candidate), dataset=transfer.blank, folder=None)
            for reference in self._each(train.remote(remote, transfer, prediction)):
                message = ray.get(reference)
                if isinstance(message, Epoch):
                    share = accuracy(message.predictions, dataset.validation_labels)
                    point = replace(message.point, validation_accuracy=share)
                    scored[_mark(point)] = point
                    if on_epoch is not None:
                        on_epoch(point)
        assert isinstance(message, Trial)
        # The trial knows which epochs are its own; those of an attempt that ran out of memory are not.
        curve = tuple(scored[_mark(point)] for point in message.curve)
        last = curve[-1].validation_accuracy if message.verdict.valid else None
        trial = replace(message, curve=curve, validation_accuracy=last)
        return replace(trial, suspect=suspicion(trial, dataset))

    @contextmanager
    def _borrowed(self) -> Iterator[ActorHandle]:
        """Borrow an actor; where the block does not complete, the actor and whatever runs in it are ended."""
        handle = self._pool.take()
        try:
            yield handle
        except BaseException as error:  # Ctrl-C and errors of the caller too: what runs in the actor must end
            if (own := local_error(error)) is not None:
                self._pool.give(handle)
                raise own from None
            if self._cluster.lost:
                raise
            self._pool.drop(handle)
            if isinstance(error, RayTaskError):
                raise NngenError(f"node {handle.host} failed: {str(error).strip().splitlines()[-1]}") from error
            if isinstance(error, RayError):
                # The head may have gone with the actor: no other thread may take its last answer for the present.
                self._cluster.require_head(fresh=True)
                raise EngineLostError(f"node {handle.host} or its actor went away: {reason_of(error)}") from error
            raise
        self._pool.give(handle)

    def _room(self) -> int:
        """Return the largest number of actors now, 0 without a head; raise ``NngenError`` where the cluster is lost."""
        # Without a head, the start of an actor would hang until Ray ends this process.
        return self.slots if self._cluster.require_head() else 0

    def _get(self, reference: Any) -> Any:
        """Return the value behind a reference; raise ``NngenError`` where the cluster is lost meanwhile."""
        # In turns: nothing ends a plain ray.get when the head has gone.
        while True:
            self._cluster.require_head()
            if ray.wait([reference], timeout=_LOOK_S)[0]:
                return ray.get(reference)

    def _each(self, stream: Any) -> Iterator[Any]:
        """Yield the references of a stream as they arrive; raise ``NngenError`` where the cluster is lost meanwhile."""
        while True:
            # Before each: an actor on a node that lives sends its epochs without a head, until Ray ends this process.
            self._cluster.require_head()
            if ray.wait([stream], timeout=_LOOK_S)[0]:
                try:
                    yield next(stream)
                except StopIteration:
                    return

    def _place(self, dataset: Dataset) -> DatasetTransfer:
        """Put a data set into the object store, once; each node takes it from there."""
        with self._placing:
            if dataset.fingerprint not in self._placed:
                self._placed[dataset.fingerprint] = pack(dataset, ray.put)
            return self._placed[dataset.fingerprint]


def _mark(point: EpochResult) -> tuple[int, float]:
    """Return what identifies an epoch among all of a trial, those of earlier attempts included."""
    return point.epoch, point.seconds


def _bare(candidate: Candidate) -> Candidate:
    """Leave out what no worker reads."""
    return Candidate(id=candidate.id, source=candidate.source, canonical="")
