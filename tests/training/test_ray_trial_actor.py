"""The actor on a node, with a fake of its engine, and the transfer of a data set to the node."""

from __future__ import annotations

import hashlib
import platform
import socket
import stat
from collections.abc import Callable
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray", reason="ray is not installed: pip install '.[ray]'")

from nngen import __version__
from nngen.datasets import Dataset
from nngen.datasets.array_files import WORKER_FILES
from nngen.errors import DataError, UsageError
from nngen.isolation import Isolation
from nngen.training.engine import CheckJob, TrainJob
from nngen.training.memory_model import Prediction
from nngen.training.ray import actor as module
from nngen.training.ray.actor import Epoch, NodeFacts, TrialActor
from nngen.training.ray.dataset_transfer import DatasetTransfer, pack, unpack
from nngen.types import Candidate, EpochResult, Outcome, Shape, Trial, Verdict

HOST = socket.gethostname()
PREDICTION = Prediction(fixed_mib=1.0, image_mib=2.0, likely_mib=3.0, seconds=4.0)
VERDICT = Verdict(outcome=Outcome.SHAPE, message="too small")


class FakeLocalEngine:
    """An engine of two epochs, which keeps what it is asked."""

    def __init__(self, *, predict: Callable[..., Any], compiled: bool) -> None:
        self.predict, self.compiled = predict, compiled
        self.asked: list[object] = []
        self.fault: UsageError | None = None

    def warm_up(self) -> None:
        self.asked.append("warm up")
        self._fail()

    def check(self, job: CheckJob) -> Verdict:
        self.asked.append(job)
        self._fail()
        return VERDICT

    def train(
        self, job: TrainJob, on_epoch: Callable[[EpochResult], None], *, score: Callable[[bytes], float]
    ) -> Trial:
        self.asked += [job, self.predict(job.candidate, job.spec, 5)]
        for epoch in (1, 2):
            on_epoch(EpochResult(epoch=epoch, validation_accuracy=score(b"%d" % epoch), seconds=epoch))
        self._fail()
        return Trial(candidate_id="one", spec=job.spec, verdict=Verdict(outcome=Outcome.VALID), environment={"a": "b"})

    def _fail(self) -> None:
        if self.fault is not None:
            raise self.fault


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An actor whose node has the arrays of ``store`` by their places."""
    monkeypatch.setattr(module, "LocalEngine", FakeLocalEngine)
    return TrialActor()


@pytest.fixture
def store() -> list[np.ndarray]:
    return []


@pytest.fixture
def transfer(digits: Dataset, store: list[np.ndarray], cache: Path) -> DatasetTransfer:
    """The digits on their way to a machine with an empty cache."""
    return pack(digits, lambda array: store.append(array) or len(store) - 1)


def test_an_actor_warms_its_engine_and_describes_its_node(actor: Any) -> None:
    assert actor.describe() == NodeFacts(host=HOST, nngen=__version__, python=platform.python_version())
    assert (actor._engine.asked, actor._engine.compiled, actor.ping()) == (["warm up"], False, None)
    assert TrialActor(compiled=True)._engine.compiled is True


def test_an_actor_trains_and_sends_each_epoch_with_its_predictions(
    actor: Any, transfer: DatasetTransfer, store: list[np.ndarray], job: Callable[..., TrainJob], monkeypatch: Any
) -> None:
    monkeypatch.setattr(module.ray, "get", lambda place: store[place])
    work = job("x = 1", dataset=transfer.blank)
    first, second, trial = actor.train(work, transfer, PREDICTION)
    for number, message in enumerate((first, second), 1):
        assert isinstance(message, Epoch)
        assert (message.point.epoch, message.point.seconds, message.predictions) == (number, number, b"%d" % number)
        assert isnan(message.point.validation_accuracy)
    assert trial.environment == {"a": "b", "engine": "ray", "node": HOST}
    asked, prediction = actor._engine.asked
    assert (replace(asked, dataset=transfer.blank), prediction) == (work, PREDICTION)
    assert np.array_equal(
        asked.dataset.train_images, unpack(transfer, lambda _: pytest.fail("read again")).train_images
    )


def test_errors_of_its_engine_name_the_node(
    actor: Any, transfer: DatasetTransfer, store: list[np.ndarray], job: Callable[..., TrainJob], monkeypatch: Any
) -> None:
    monkeypatch.setattr(module.ray, "get", lambda place: store[place])
    check = CheckJob(
        candidate=Candidate(id="x", source="", canonical=""), shape=Shape(1, 8, 8), isolation=Isolation.PROCESS
    )
    assert actor.check(check) == VERDICT
    assert actor._engine.asked == [check]
    actor._engine.fault = UsageError("no bubblewrap")
    for call in (actor.describe, lambda: actor.check(check), lambda: [*actor.train(job("x"), transfer, None)]):
        with pytest.raises(UsageError, match=f"^node {HOST}: no bubblewrap$"):
            call()


def test_a_data_set_travels_without_the_labels_of_validation_and_test(
    transfer: DatasetTransfer, store: list[np.ndarray], digits: Dataset, cache: Path
) -> None:
    contents = [digits.file(part).read_bytes() for part in WORKER_FILES]
    assert [array.tobytes() for array in store] == contents
    digests = tuple(hashlib.sha256(content).hexdigest() for content in contents)
    assert (transfer.digests, transfer.files) == (digests, (0, 1, 2, 3))
    assert transfer.key == hashlib.sha256(" ".join(digests).encode()).hexdigest()[:16]
    found = unpack(transfer, store.__getitem__)
    folder = cache / "transfers" / transfer.key
    assert found.folder == folder
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{part}.npy" for part in WORKER_FILES)
    assert [(folder / f"{part}.npy").read_bytes() for part in WORKER_FILES] == contents
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o444}
    for split in ("train", "validation", "test"):
        assert np.array_equal(getattr(found, f"{split}_images"), getattr(digits, f"{split}_images"))
    assert np.array_equal(found.train_labels, digits.train_labels)
    assert (len(found.validation_labels), len(found.test_labels), found.fingerprint) == (0, 0, digits.fingerprint)


def test_a_data_set_that_is_there_whole_is_not_read_again(
    transfer: DatasetTransfer, store: list[np.ndarray], cache: Path
) -> None:
    read: list[int] = []

    def get(place: int) -> np.ndarray:
        read.append(place)
        return store[place]

    for _ in range(2):
        unpack(transfer, get)
    assert read == [0, 1, 2, 3]
    folder = cache / "transfers" / transfer.key
    for damage in (lambda file: file.unlink(), lambda file: file.chmod(0o644) or file.write_bytes(b"")):
        damage(folder / "test-images.npy")
        read.clear()
        unpack(transfer, get)
        assert read == [0, 1, 2, 3]


@pytest.mark.usefixtures("cache")
def test_bytes_that_arrive_changed_are_refused(transfer: DatasetTransfer, store: list[np.ndarray]) -> None:
    store[3] = store[2]
    with pytest.raises(DataError, match=r"^digits did not arrive as it was sent$"):
        unpack(transfer, store.__getitem__)


def test_a_cache_that_cannot_be_written_is_one_line(
    transfer: DatasetTransfer, store: list[np.ndarray], cache: Path
) -> None:
    cache.mkdir(exist_ok=True)
    (cache / "transfers").write_text("a file")
    with pytest.raises(DataError, match=rf"^digits cannot be kept in {cache}/transfers: .*; set NNGEN_CACHE$"):
        unpack(transfer, store.__getitem__)
