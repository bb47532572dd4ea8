"""The Ray engine, with a fake of Ray and of an actor: what is sent, what comes back, and what becomes of the actor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import nan
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray", reason="ray is not installed: pip install '.[ray]'")

from ray.exceptions import RayError, RayTaskError

from nngen.datasets import Dataset
from nngen.errors import DataError, EngineLostError, NngenError
from nngen.isolation import Isolation
from nngen.plan import Plan
from nngen.training.engine import CheckJob, TrainJob
from nngen.training.ray import engine as module
from nngen.training.ray.actor import Epoch
from nngen.training.ray.cluster import Node, Request
from nngen.training.ray.engine import RayEngine
from nngen.training.state.checkpoints import TrialFolder
from nngen.types import Candidate, EpochResult, Outcome, Shape, Trial, Verdict

REQUEST = Request(cpus=2, memory_mib=1000)
MIXTURE = Candidate(id="one", source="x = 1\n", canonical="abc", plan=Plan(experts=("A", "B")))
BARE = Candidate(id="one", source="x = 1\n", canonical="")
FAILED = Verdict(outcome=Outcome.CRASHED, rule="worker", message="it crashed")


class Reference:
    """What an actor returns; it is there when it was waited for twice."""

    def __init__(self, value: object) -> None:
        self.value, self.there = value, False


class Stream(Reference):
    """Messages of an actor; before each it must be waited for."""

    def __next__(self) -> Reference:
        assert self.there
        self.there = False
        messages: Any = self.value
        message = Reference(next(messages))
        message.there = True
        return message


class FakeRay:
    """Fake of the module ``ray``: every second time that it is asked, something is there."""

    def __init__(self) -> None:
        self.turns, self.stored = 0, 0

    def wait(self, references: list[Reference], timeout: float) -> tuple[list[Reference], list[Reference]]:
        (reference,) = references
        self.turns += 1
        reference.there = self.turns % 2 == 0
        return ([reference], []) if reference.there else ([], [reference])

    def get(self, reference: Reference) -> object:
        assert reference.there
        if isinstance(reference.value, BaseException):
            raise reference.value
        return reference.value

    def put(self, array: np.ndarray) -> str:
        self.stored += 1
        return f"reference {self.stored} of {array.nbytes} bytes"


class FakeCluster:
    """A cluster whose head answers, unless it is said to be silent."""

    def __init__(self) -> None:
        self.required: list[Request] = []
        self.lost, self.silent, self.fresh = False, False, 0
        self.rooms = (4, 2)

    def require(self, request: Request) -> None:
        self.required.append(request)

    def require_head(self, *, fresh: bool = False) -> bool:
        self.fresh += fresh
        return not self.silent

    def nodes(self) -> tuple[Node, ...]:
        return tuple(Node(id="", host="a", cpus=cpus, gpus=0, memory_mib=9000) for cpus in self.rooms)


class FakePool:
    """A pool of one actor that answers with given messages, and keeps what was asked of it."""

    def __init__(self, answer: object) -> None:
        self.events: list[str] = []
        self.asked: list[tuple[Any, ...]] = []
        self.answer = answer

    def take(self) -> SimpleNamespace:
        self.events.append("take")
        check = SimpleNamespace(remote=lambda job: self.asked.append((job,)) or Reference(self.answer))
        actor = SimpleNamespace(check=check, train=SimpleNamespace(options=self._options))
        return SimpleNamespace(actor=actor, host="far")

    def _options(self, num_returns: str) -> SimpleNamespace:
        assert num_returns == "streaming"
        messages: Any = self.answer
        return SimpleNamespace(remote=lambda *given: self.asked.append(given) or Stream(iter(messages)))

    def give(self, handle: SimpleNamespace) -> None:
        self.events.append(f"give {handle.host}")

    def drop(self, handle: SimpleNamespace) -> None:
        self.events.append(f"drop {handle.host}")

    def close(self) -> None:
        self.events.append("close")


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setattr(module, "ray", fake)
    return fake


def make(answer: object = None, **options: Any) -> tuple[RayEngine, FakeCluster, FakePool]:
    cluster: Any = FakeCluster()
    engine: Any = RayEngine(cluster, REQUEST, **options)
    engine._pool = FakePool(answer)
    return engine, cluster, engine._pool


def test_actors_are_asked_for_with_the_engines_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Any, ...]] = []
    monkeypatch.setattr(module, "ActorPool", lambda request, most, compiled: made.append((request, most, compiled)))
    for compiled in (False, True):
        engine, cluster, _ = make(compiled=compiled)
        assert made.pop() == (REQUEST, engine._room, compiled)
        assert cluster.required == [REQUEST]
    make()
    assert made.pop()[2] is False


def test_the_number_of_trainings_follows_the_nodes_every_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    engine, cluster, _ = make()
    assert (engine.slots, engine._room()) == (3, 3)
    cluster.rooms = (8,)
    for now, silent, slots in ((1002.0, False, 3), (1002.5, True, 3), (1002.5, False, 4)):
        clock.now, cluster.silent = now, silent
        assert (engine.slots, engine._room()) == (slots, 0 if silent else slots)
    clock.now, cluster.rooms = 1009.0, ()
    assert engine.slots == 1


def test_one_training_fits_while_the_head_has_not_answered_yet() -> None:
    engine, cluster, _ = make()
    cluster.silent = True
    assert (engine.slots, engine._room()) == (1, 0)


def test_a_number_that_the_user_gave_stays() -> None:
    engine, cluster, _ = make(slots=7)
    assert (engine.slots, engine._room()) == (7, 7)
    cluster.silent = True
    assert (engine.slots, engine._room()) == (7, 0)


def test_a_check_has_the_source_and_nothing_else_of_the_candidate(ray: FakeRay) -> None:
    engine, _, pool = make(FAILED)
    job = CheckJob(candidate=MIXTURE, shape=Shape(1, 8, 8), classes=7, threads=2, isolation=Isolation.SANDBOX)
    assert engine.check(job) == FAILED
    assert pool.asked == [(replace(job, candidate=BARE),)]
    assert pool.events == ["take", "give far"]


def predictions(labels: np.ndarray, right: int) -> bytes:
    """Return predictions of which the first so many are right."""
    return np.where(np.arange(len(labels)) < right, labels, (labels + 1) % 10).astype("<u2").tobytes()


def point(epoch: int, seconds: float, accuracy: float = nan, samples: int = 1151) -> EpochResult:
    return EpochResult(epoch=epoch, validation_accuracy=accuracy, seconds=seconds, samples=samples)


def messages(job: TrainJob, *, samples: int = 1151) -> list[Epoch | Trial]:
    """Return what an actor sends whose first attempt ran out of memory after an epoch."""
    labels = job.dataset.validation_labels
    epochs = [(point(1, 1.0), 10), (point(1, 2.0), 40), (point(2, 3.0, samples=samples), 80)]
    trial = Trial(
        candidate_id="one",
        spec=job.spec,
        verdict=Verdict(outcome=Outcome.VALID),
        curve=tuple(epoch for epoch, _ in epochs[1:]),
        validation_accuracy=nan,
        test_predictions=predictions(job.dataset.test_labels, 5),
        environment={"engine": "ray"},
    )
    return [*(Epoch(point=epoch, predictions=predictions(labels, right)) for epoch, right in epochs), trial]


@pytest.fixture
def work(job: Callable[..., TrainJob], tmp_path: Path) -> TrainJob:
    """A training of a mixture on digits, with a folder of this machine."""
    return replace(job(MIXTURE, epochs=2, train_size=500), folder=TrialFolder(path=tmp_path))


def test_accuracies_are_computed_where_the_labels_are(ray: FakeRay, work: TrainJob, digits: Dataset) -> None:
    sent = messages(work)
    foretold: list[tuple[Any, ...]] = []
    engine, _, pool = make(sent, predict=lambda *given: foretold.append(given) or "a prediction")
    seen: list[EpochResult] = []
    trial = engine.train(work, seen.append)
    images = len(digits.validation_labels)
    expected = [point(1, 1.0, 10 / images), point(1, 2.0, 40 / images), point(2, 3.0, 80 / images)]
    assert seen == expected
    assert isinstance(sent[-1], Trial)
    suspect = "2.3 passes in epoch 1"
    assert trial == replace(sent[-1], curve=tuple(expected[1:]), validation_accuracy=80 / images, suspect=suspect)
    assert foretold == [(MIXTURE, work.spec, 500)]
    ((remote, transfer, prediction),) = pool.asked
    assert (remote.candidate, remote.folder, remote.spec, prediction) == (BARE, None, work.spec, "a prediction")
    assert remote.dataset is transfer.blank
    assert [len(getattr(remote.dataset, f"{part}_labels")) for part in ("train", "validation", "test")] == [0, 0, 0]
    assert transfer.files[1] == f"reference 2 of {128 + 8 * len(digits.train_labels)} bytes"
    assert pool.events == ["take", "give far"]


def test_a_training_that_failed_has_no_accuracy(ray: FakeRay, work: TrainJob) -> None:
    sent = messages(work)
    assert isinstance(sent[-1], Trial)
    failed = replace(sent[-1], verdict=FAILED, curve=(sent[-1].curve[0],), validation_accuracy=None)
    engine, _, pool = make([*sent[:2], failed])
    trial = engine.train(work)
    assert (trial.verdict, trial.validation_accuracy, trial.suspect) == (FAILED, None, "")
    assert trial.curve == (point(1, 2.0, 40 / len(work.dataset.validation_labels)),)
    assert pool.asked[0][2] is None  # nothing predicts its memory


def test_a_data_set_is_put_into_the_store_once(ray: FakeRay, work: TrainJob) -> None:
    engine, _, pool = make(messages(work))
    engine.train(work)
    engine.train(work)
    assert ray.stored == 4
    assert pool.asked[0][1] is pool.asked[1][1]
    engine.close()
    engine.train(work)
    assert ray.stored == 8


@pytest.mark.parametrize(
    ("error", "raised", "events"),
    [
        (RayTaskError("train", "Traceback", DataError("no image")), DataError("no image"), "give far"),
        (
            RayTaskError("train", "Traceback (most recent call last):\nValueError: odd", ValueError("odd")),
            NngenError("node far failed: ValueError: odd"),
            "drop far",
        ),
        (RayError("it\ndied"), EngineLostError("node far or its actor went away: it died"), "drop far"),
        (KeyboardInterrupt(), KeyboardInterrupt(), "drop far"),
        (DataError("of the caller"), DataError("of the caller"), "drop far"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_actor_is_kept_where_its_engine_refused_and_ended_otherwise(error, raised, events, ray: FakeRay) -> None:
    engine, cluster, pool = make(error)
    job = CheckJob(candidate=MIXTURE, shape=Shape(1, 8, 8), isolation=Isolation.SANDBOX)
    with pytest.raises(type(raised)) as caught:
        engine.check(job)
    assert (type(caught.value), str(caught.value)) == (type(raised), str(raised))
    assert pool.events == ["take", events]
    assert cluster.fresh == isinstance(raised, EngineLostError)


def test_nothing_is_asked_of_a_cluster_that_is_lost(ray: FakeRay) -> None:
    engine, cluster, pool = make(RayError("gone"))
    cluster.lost = True
    with pytest.raises(RayError, match="gone"), engine as entered:
        assert entered is engine
        engine.check(CheckJob(candidate=MIXTURE, shape=Shape(1, 8, 8), isolation=Isolation.SANDBOX))
    assert pool.events == ["take"]


def test_leaving_the_engine_ends_its_actors(ray: FakeRay) -> None:
    engine, _, pool = make()
    with engine:
        assert pool.events == []
    assert pool.events == ["close"]
