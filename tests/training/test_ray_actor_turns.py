"""Single turns of the pool of actors, without threads: when an actor is started, taken, waited for or given up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray", reason="ray is not installed: pip install '.[ray]'")

from ray.exceptions import ActorDiedError, RayTaskError

from nngen import __version__
from nngen.errors import DataError, EngineLostError, NngenError
from nngen.training.ray import actor_pool as module
from nngen.training.ray.actor import NodeFacts, TrialActor
from nngen.training.ray.actor_pool import ActorHandle, ActorPool
from nngen.training.ray.cluster import Request

REQUEST = Request(cpus=2, gpus=0.5, memory_mib=100)
FACTS = NodeFacts(host="far", nngen=__version__, python="3.11.2")


class FakeRay:
    """Fake of the module ``ray`` whose references are values: what is ready, or the error that a call raises."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.killed: list[Any] = []
        self.got: list[tuple[Any, float | None]] = []
        self.waits: list[float] = []
        self.ready: list[Any] = []

    def remote(self, kind: type) -> SimpleNamespace:
        assert kind is TrialActor
        return SimpleNamespace(options=self._options)

    def _options(self, **options: Any) -> SimpleNamespace:
        def start(compiled: bool) -> SimpleNamespace:
            self.started.append(options | {"compiled": compiled})
            return SimpleNamespace(describe=SimpleNamespace(remote=lambda: f"facts {len(self.started)}"))

        return SimpleNamespace(remote=start)

    def wait(self, references: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        self.waits.append(timeout)
        return [reference for reference in references if reference in self.ready], []

    def get(self, reference: Any, timeout: float | None = None) -> Any:
        self.got.append((reference, timeout))
        if isinstance(reference, Exception):
            raise reference
        return reference

    def kill(self, actor: Any) -> None:
        self.killed.append(actor)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setattr(module, "ray", fake)
    monkeypatch.setattr("platform.python_version", lambda: "3.11.7")
    return fake


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def handle(name: str, facts: Any = FACTS) -> ActorHandle:
    ping = SimpleNamespace(remote=lambda: f"ping {name}")
    return ActorHandle(actor=SimpleNamespace(name=name, ping=ping), facts=facts)


def pool(*, lent: int = 0, idle: int = 0, starting: int = 0, tickets: int = 1, most: int = 3, **options: Any) -> Any:
    made: Any = ActorPool(REQUEST, lambda: most, **options)
    made._lent, made._idle, made._starting = (
        [handle(f"{word} {number}") for number in range(count)]
        for word, count in (("lent", lent), ("idle", idle), ("starting", starting))
    )
    made._tickets = [*range(tickets)]
    return made


@pytest.mark.parametrize(
    ("state", "ticket", "taken", "started"),
    [
        ({}, 0, None, True),
        ({"idle": 1}, 0, "idle 0", False),
        ({"idle": 2, "tickets": 2}, 1, "idle 1", False),
        ({"idle": 1, "tickets": 2}, 1, None, True),  # another thread has waited longer
        ({"idle": 1, "tickets": 2, "most": 1}, 1, None, False),
        ({"lent": 3}, 0, None, False),
        ({"lent": 2}, 0, None, True),
        ({"lent": 2, "starting": 1, "tickets": 2}, 0, None, False),
        ({"lent": 1, "starting": 1, "tickets": 2}, 0, None, True),
        ({"lent": 1, "starting": 1, "tickets": 1}, 0, None, False),
        ({"starting": 1, "tickets": 2, "most": 1}, 0, None, False),
        ({"idle": 1, "lent": 1, "starting": 1, "tickets": 3}, 1, None, False),
        ({"idle": 1, "starting": 1, "tickets": 2}, 1, None, False),
        ({"idle": 1, "starting": 1, "tickets": 3, "most": 4}, 2, None, True),
    ],
)
def test_an_actor_is_taken_or_another_is_started(state, ticket, taken, started, ray: FakeRay) -> None:
    one = pool(**state)
    before = len(one._starting)
    found = one._next(ticket)
    assert (found and found.actor.name) == taken
    assert (len(ray.started), len(one._starting) - before) == (started, started)
    if taken:
        assert found in one._lent
        assert found not in one._idle


@pytest.mark.parametrize("compiled", [False, True])
def test_an_actor_is_never_restarted_by_ray(compiled: bool, ray: FakeRay) -> None:
    one = pool(compiled=compiled)
    one._next(0)
    options = {"num_cpus": 2, "num_gpus": 0.5, "memory": 104_857_600, "max_restarts": 0, "max_task_retries": 0}
    assert ray.started == [options | {"scheduling_strategy": "SPREAD", "compiled": compiled}]
    assert (one._starting[0].facts, one._starting[0].host) == ("facts 1", "")


def test_patience_counts_from_the_last_actor(ray: FakeRay, clock: SimpleNamespace) -> None:
    one = pool(patience_s=30.0)
    one._next(0)
    for now, lent in ((1030.0, 0), (1031.0, 1)):
        clock.now, one._lent = now, [handle("x")] * lent
        one._wait()
    one._lent, one._idle = [], [handle("x")]
    one._wait()
    one._idle = []
    with pytest.raises(NngenError) as caught:
        one._wait()
    assert str(caught.value) == (
        "no node of the Ray cluster had room for a trial with 2 CPUs, 0.5 GPU, 100 MiB for 30 s: the same command goes"
        " on when one has"
    )
    one._next(0)  # one is starting already: patience does not begin again
    with pytest.raises(NngenError, match="for 30 s"):
        one._wait()
    for change in (one.give, one.drop):
        change(handle("unknown"))
        one._wait()
        clock.now += 31
        with pytest.raises(NngenError, match="for 30 s"):
            one._wait()


def test_without_an_actor_on_its_way_a_thread_waits_for_a_change(ray: FakeRay, monkeypatch) -> None:
    one = pool()
    waits: list[float] = []
    monkeypatch.setattr(one._change, "wait", waits.append)
    one._wait()
    assert (waits, ray.waits) == ([0.1], [])
    one._starting = [handle("a")]
    one._alone_since = float("inf")
    one._wait()
    assert (waits, ray.waits) == ([0.1], [0.1])


def test_patience_has_an_end_after_ten_minutes(ray: FakeRay, clock: SimpleNamespace) -> None:
    one = pool(starting=1)
    one._alone_since, clock.now = 400.0, 1000.0
    one._wait()
    clock.now = 1000.5
    with pytest.raises(NngenError, match=r" for 600 s: the same command goes on when one has$"):
        one._wait()


def test_each_change_wakes_the_threads_that_wait(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    one = pool(lent=2, starting=1, tickets=0)
    woken: list[tuple[int, int, int]] = []

    def count() -> None:
        woken.append(tuple(map(len, (one._lent, one._idle, one._tickets))))  # type: ignore[arg-type]

    monkeypatch.setattr(one._change, "notify_all", count)
    first, second = one._lent
    one.give(first)
    one.drop(second)
    one._arrived(one._starting[0])
    assert woken == [(1, 1, 0), (0, 1, 0), (0, 2, 0)]
    one.take()
    assert woken[3:] == [(1, 1, 0)]
    monkeypatch.setattr(one._change, "wait_for", lambda *_, **__: None)
    one.close()
    assert woken[4:] == [(1, 0, 0)]


def test_an_actor_that_described_its_node_is_free(ray: FakeRay) -> None:
    one = pool(starting=2)
    first, second = one._starting
    second.facts = "later"
    one._alone_since, one._failed_starts = float("inf"), 3
    ray.ready = [FACTS]
    one._wait()
    assert (one._idle, one._starting, first.host, one._failed_starts) == ([first], [second], "far", 0)
    one._arrived(first)  # another thread was earlier
    assert (one._idle, ray.got, ray.killed) == ([first], [(FACTS, None)], [])


@pytest.mark.parametrize(
    ("facts", "failed", "message"),
    [
        (ActorDiedError(), 3, None),
        (ActorDiedError(), 4, "no actor can be started in the Ray cluster: The actor died unexpectedly"),
        (RayTaskError("describe", "Traceback", DataError("node far: no torch")), 0, "node far: no torch"),
        (NodeFacts(host="far", nngen="0.0", python="3.11.2"), 0, "node far has nngen 0.0, the driver "),
    ],
)
def test_an_actor_that_cannot_be_used_ends(facts: Any, failed: int, message: str | None, ray: FakeRay) -> None:
    one = pool(starting=1)
    (only,) = one._starting
    only.facts, one._failed_starts = facts, failed
    if message is None:
        one._arrived(only)
    else:
        with pytest.raises(NngenError) as caught:
            one._arrived(only)
        assert str(caught.value).startswith(message)
    assert (one._idle, one._starting, ray.killed) == ([], [], [only.actor])


def test_an_actor_that_does_not_answer_is_ended(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    one = pool(idle=2, tickets=0)
    first, second = one._idle
    second.actor.ping.remote = ActorDiedError
    assert one.take() is first
    assert (ray.killed, one._lent, one._idle, one._tickets) == ([second.actor], [first], [], [])
    assert [reference for reference, _ in ray.got][1:] == ["ping idle 0"]
    assert [timeout for _, timeout in ray.got] == [10.0, 10.0]


def test_an_actor_that_is_given_back_is_free_and_one_that_is_dropped_is_not(ray: FakeRay) -> None:
    one = pool(lent=2)
    first, second = one._lent
    one.give(first)
    assert (one._lent, one._idle) == ([second], [first])
    one.drop(second)
    assert (one._lent, one._idle, ray.killed) == ([], [first], [second.actor])
    stranger = handle("stranger")
    one.give(stranger)
    one.drop(stranger)
    assert (one._lent, one._idle, ray.killed) == ([], [first], [second.actor, stranger.actor])


def test_a_pool_that_is_closed_has_no_actor(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    one = pool(lent=1, idle=1, starting=1)
    names = ["idle 0", "lent 0", "starting 0"]
    waited: list[bool] = []

    def wait_for(empty: Any, timeout: float) -> None:
        assert timeout == 10.0
        for lent, tickets in (([1], []), ([], [1]), ([1], [1]), ([], [])):
            one._lent, one._tickets = lent, tickets
            waited.append(empty())

    monkeypatch.setattr(one._change, "wait_for", wait_for)
    one.close()
    assert [actor.name for actor in ray.killed] == names
    assert (one._idle, one._starting, waited) == ([], [], [False, False, False, True])
    with pytest.raises(EngineLostError, match=r"^the engine was closed$"):
        one.take()
    assert one._tickets == []
