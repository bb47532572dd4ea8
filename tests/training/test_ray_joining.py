"""Joining a Ray cluster and leaving it, and the head that may have gone."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from fake_cluster import FakeRay

pytest.importorskip("ray", reason="ray is not installed: pip install '.[ray]'")

from nngen.errors import NngenError, UsageError
from nngen.training.ray import cluster as module
from nngen.training.ray.cluster import Cluster, connect


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch):
    def begin(*entries: dict[str, Any], **arguments: Any) -> FakeRay:
        ray = FakeRay(*entries, **arguments)
        monkeypatch.setattr(module, "ray", ray)
        return ray

    return begin


@pytest.fixture
def sigterm():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Addresses that the driver tried to connect to; each connection that is closed adds a word."""
    found: list[Any] = []

    def connected(address: Any, timeout: float) -> SimpleNamespace:
        assert timeout == 10.0
        found.append(address)
        return SimpleNamespace(close=lambda: found.append("closed"))

    monkeypatch.setattr(socket, "create_connection", connected)
    return found


def handler(*_: object) -> None:
    """Do nothing on SIGTERM."""


@pytest.mark.usefixtures("sigterm")
@pytest.mark.parametrize(("address", "tried"), [("auto", []), ("[::1]:6379", [("[::1]", 6379), "closed"])])
def test_a_cluster_is_joined_and_left(address, tried, play, reached, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    ray = play()
    signal.signal(signal.SIGTERM, handler)
    joined = connect(address)
    assert (signal.getsignal(signal.SIGTERM), os.environ["RAY_USAGE_STATS_ENABLED"]) == (handler, "0")
    with joined as entered:
        assert entered is joined
        assert not joined.lost
    options = {"address": address, "logging_level": logging.ERROR, "log_to_driver": False}
    assert (reached, ray.calls) == (tried, [("init", options), ("shutdown", None)])
    joined.close()
    assert ray.calls[2:] == []


@pytest.mark.usefixtures("sigterm")
def test_a_thread_leaves_the_handlers_of_signals_alone(play) -> None:
    ray = play()
    ray.init = lambda **options: None  # type: ignore[method-assign]
    found: list[Cluster] = []
    thread = threading.Thread(target=lambda: found.append(connect()))
    thread.start()
    thread.join()
    assert len(found) == 1


def test_a_cluster_that_the_process_is_in_stays_joined(play) -> None:
    ray = play(initialized=True)
    with connect("nowhere") as joined:
        assert not joined.lost
    assert ray.calls == []


@pytest.mark.usefixtures("sigterm", "reached")
@pytest.mark.parametrize(
    ("address", "fault", "message"),
    [
        ("a:1", RuntimeError("Version\nmismatch"), "the Ray cluster at a:1 cannot be joined: Version mismatch"),
        ("a:1", ConnectionError("gone"), "the Ray cluster at a:1 cannot be joined: gone"),
        ("auto", ValueError("odd"), "the Ray cluster at auto cannot be joined: odd"),
        (
            "auto",
            ConnectionError("gone"),
            "the Ray cluster at auto cannot be joined: none runs on this machine: ray start --head starts one, or give"
            " --address HOST:PORT",
        ),
        ("nowhere", None, "'nowhere' is not an address: write auto or HOST:PORT"),
        ("a:b", None, "no Ray cluster answers at a:b: invalid literal for int() with base 10: 'b'"),
        (
            "ray://a:10001",
            None,
            "ray://a:10001 is an address for Ray's client: run nngen on a node of the cluster with --address auto",
        ),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_one_line(address, fault, message, play) -> None:
    ray = play()
    ray.fault = fault
    with pytest.raises(UsageError) as caught:
        connect(address)
    assert str(caught.value) == message
    assert len(ray.calls) == (fault is not None)


class Head:
    """A clock, and the head of a cluster that takes connections or not; ``asked`` counts the attempts."""

    def __init__(self) -> None:
        self.now, self.answers, self.asked = 1000.0, True, 0

    def connect(self, address: tuple[str, int], timeout: float) -> SimpleNamespace:
        assert (address, timeout) == (("::1", 6379), 2.0)
        self.asked += 1
        if not self.answers:
            raise ConnectionRefusedError
        return SimpleNamespace(close=lambda: None)


@pytest.fixture
def head(play, monkeypatch: pytest.MonkeyPatch) -> Head:
    play().address = "[::1]:6379"
    head = Head()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: head.now))
    monkeypatch.setattr(socket, "create_connection", head.connect)
    return head


def test_the_head_is_asked_every_two_seconds_or_at_once(head: Head) -> None:
    cluster = Cluster(joined=True)
    for now, fresh, asked in ((1002.0, False, 0), (1002.25, False, 1), (1003.0, True, 2), (1005.0, False, 2)):
        head.now = now
        assert cluster.require_head(fresh=fresh)
        assert head.asked == asked
    head.answers, head.now = False, 1005.5
    assert not cluster.require_head()
    head.answers = True
    assert not cluster.require_head()  # the answer of the last time
    assert cluster.require_head(fresh=True)


def test_a_head_without_an_answer_for_more_than_twenty_seconds_is_lost(head: Head, play) -> None:
    cluster = Cluster(joined=True)
    head.answers = False
    head.now = 1020.0
    assert not cluster.require_head()
    assert not cluster.lost
    head.now = 1022.5
    with pytest.raises(NngenError) as caught:
        cluster.require_head()
    assert str(caught.value) == (
        "the head of the Ray cluster at ::1:6379 has not answered for 20 s: finished trials are stored; start the"
        " cluster and run the same command again"
    )
    assert cluster.lost
    ray = play()
    cluster.close()
    assert ray.calls == []  # it would wait for the head
