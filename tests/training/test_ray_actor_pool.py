"""The pool of actors with a simulated cluster: order of waiting threads, number of actors, end of waiting."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

pytest.importorskip("ray", reason="ray is not installed: pip install '.[ray]'")

from ray.exceptions import ActorDiedError, RayTaskError

from nngen import __version__
from nngen.errors import EngineLostError, NngenError
from nngen.training.ray.actor import NodeFacts
from nngen.training.ray.actor_pool import ActorPool
from nngen.training.ray.cluster import Request

REQUEST = Request(cpus=1, memory_mib=100)
FACTS = NodeFacts(host="a", nngen=__version__, python="3.11.2")


class Played:
    """Fake of the module ``ray`` that places actors as soon as there is room."""

    def __init__(self, room=99, facts=FACTS, telling_s=0.005):
        self.room = room
        self.facts = facts
        self.telling_s = telling_s
        self.actors = []
        self.alive = []

    def remote(self, _slot):
        return SimpleNamespace(options=lambda **options: SimpleNamespace(remote=self._start))

    def _start(self, *, compiled):
        actor = SimpleNamespace(compiled=compiled)
        actor.describe = SimpleNamespace(remote=lambda: ("describe", actor))
        actor.ping = SimpleNamespace(remote=lambda: ("ping", actor))
        self.actors.append(actor)
        self.alive.append(actor)
        return actor

    def wait(self, references, timeout):
        ready = [reference for reference in references if self._placed(reference[1])]
        if not ready:
            time.sleep(0.01)
        return ready, []

    def _placed(self, actor):
        return any(actor is other for other in self.alive[: self.room])

    def get(self, reference, timeout=None):
        word, actor = reference
        if not any(actor is other for other in self.alive):
            raise ActorDiedError
        if word == "describe":
            time.sleep(self.telling_s)
            if isinstance(self.facts, NngenError):
                raise RayTaskError("describe", "Traceback of the actor", self.facts)
            return self.facts
        return None

    def kill(self, actor):
        self.alive = [other for other in self.alive if other is not actor]


@pytest.fixture
def play(monkeypatch):
    def begin(most=2, patience_s=600.0, **arguments):
        monkeypatch.setattr("platform.python_version", lambda: "3.11.7")
        played = Played(**arguments)
        monkeypatch.setattr("nngen.training.ray.actor_pool.ray", played)
        return played, ActorPool(REQUEST, lambda: most, patience_s)

    return begin


@pytest.mark.parametrize("compiled", [False, True])
def test_actors_compile_if_asked_to(play, compiled):
    play()
    pool = ActorPool(REQUEST, lambda: 1, compiled=compiled)
    held = pool.take()
    assert held.actor.compiled is compiled
    pool.give(held)
    pool.close()


def test_actors_are_started_as_needed_and_never_too_many(play):
    played, pool = play(most=3)
    pool.give(pool.take())
    assert len(played.actors) == 1
    held = set()

    def work(_number):
        one = pool.take()
        assert one not in held
        held.add(one)
        assert len(held) <= 3
        time.sleep(0.01)
        held.remove(one)
        pool.give(one)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(60)))
    assert 1 <= len(played.actors) <= 3
    pool.close()
    assert played.alive == []


@pytest.mark.long
def test_while_an_actor_describes_its_node_no_other_is_started(play):
    played, pool = play(most=1, telling_s=0.5)
    with ThreadPoolExecutor(2) as threads:
        for held in threads.map(lambda _: pool.take(), range(2)):
            pool.give(held)
    assert len(played.actors) == 1
    pool.close()


def test_an_actor_that_cannot_be_placed_delays_no_thread(play):
    played, pool = play(most=2, room=1)
    first = pool.take()
    with ThreadPoolExecutor(1) as threads:
        second = threads.submit(pool.take)
        time.sleep(0.1)
        assert len(played.actors) == 2
        assert not second.done()
        pool.give(first)
        assert second.result(timeout=5) is first
    pool.give(first)
    pool.close()
    assert played.alive == []


def test_the_thread_that_waits_longest_is_next(play):
    _, pool = play(most=1)
    first = pool.take()
    order = []

    def work(number):
        held = pool.take()
        order.append(number)
        pool.give(held)

    with ThreadPoolExecutor(5) as threads:
        for number in range(5):
            threads.submit(work, number)
            time.sleep(0.02)
        pool.give(first)
    assert order == [0, 1, 2, 3, 4]
    pool.close()


def test_an_actor_that_was_lost_is_replaced(play):
    played, pool = play(most=1)
    first = pool.take()
    pool.give(first)
    played.kill(first.actor)
    second = pool.take()
    assert second is not first
    pool.drop(second)
    third = pool.take()
    assert third not in (first, second)
    pool.give(third)
    pool.close()


def test_closing_wakes_waiting_threads(play):
    _, pool = play(most=1)
    held = pool.take()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(pool.take)
        threading.Timer(0.1, pool.drop, [held]).start()
        pool.close()
        with pytest.raises(EngineLostError, match="closed"):
            waiting.result(timeout=60)


@pytest.mark.long
def test_patience_begins_when_the_last_actor_ends(play):
    played, pool = play(most=2, room=1, patience_s=0.3)
    first = pool.take()
    with ThreadPoolExecutor(1) as threads:
        second = threads.submit(pool.take)
        time.sleep(0.6)
        assert not second.done()  # somebody works: there is something to wait for
        played.room = 0
        pool.drop(first)
        time.sleep(0.1)
        assert not second.done()
        with pytest.raises(NngenError, match="had room for a trial with 1 CPU, 100 MiB"):
            second.result(timeout=5)
    pool.close()


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (NngenError("node a: no torch"), "^node a: no torch$"),
        (NodeFacts(host="a", nngen="0.0", python="3.11.2"), r"node a has nngen 0\.0"),
        (NodeFacts(host="a", nngen=__version__, python="3.12.1"), r"node a has Python 3\.12\.1"),
    ],
)
def test_a_node_with_another_version_ends_the_work(facts, message, play):
    played, pool = play(facts=facts)
    with pytest.raises(NngenError, match=message):
        pool.take()
    assert played.alive == []
    pool.close()


def test_actors_that_never_start_end_the_work(play, monkeypatch):
    played, pool = play()

    def die(reference, timeout=None):
        raise ActorDiedError

    monkeypatch.setattr(played, "get", die)
    with pytest.raises(NngenError, match="no actor can be started"):
        pool.take()
    assert len(played.actors) == 5
    assert played.alive == []
    pool.close()
