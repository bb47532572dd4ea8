"""The head of a Ray cluster that goes away: noticed by the driver before Ray ends it, in one line."""

from __future__ import annotations

import socket
import time
from types import SimpleNamespace

import pytest

ray = pytest.importorskip("ray", reason="ray is not installed: pip install '.[ray]'")

from ray.exceptions import RayError  # noqa: E402

from nngen.errors import DataError, EngineLostError, NngenError  # noqa: E402 - needs ray
from nngen.training.ray.cluster import Cluster  # noqa: E402
from nngen.training.ray.engine import RayEngine  # noqa: E402

LOST = r"the head of the Ray cluster at 127\.0\.0\.1:\d+ has not answered for .* run the same command again"


@pytest.fixture
def head():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def cluster(head, monkeypatch):
    address = f"127.0.0.1:{head.getsockname()[1]}"
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address=address))
    monkeypatch.setattr("nngen.training.ray.cluster._LOOK_S", 0.01)
    monkeypatch.setattr("nngen.training.ray.cluster._LOST_S", 0.3)
    monkeypatch.setattr("nngen.training.ray.engine._LOOK_S", 0.01)
    cluster = Cluster(joined=True)
    monkeypatch.setattr(cluster, "require", lambda request: None)
    return cluster


def _until_lost(call):
    with pytest.raises(NngenError, match=LOST) as caught:
        give_up = time.monotonic() + 10
        while time.monotonic() < give_up:
            call()
    assert not isinstance(caught.value, EngineLostError)  # which the campaign would try again
    assert "\n" not in str(caught.value)


def test_a_head_is_lost_once_it_has_not_answered_for_a_while(head, cluster, monkeypatch):
    ended = []
    monkeypatch.setattr(ray, "shutdown", lambda: ended.append(True))
    give_up = time.monotonic() + 0.2
    while time.monotonic() < give_up:
        assert cluster.require_head()
    head.close()
    _until_lost(cluster.require_head)
    assert cluster.lost
    cluster.close()
    assert ended == []  # it would wait for the head


def test_a_head_that_is_back_in_time_is_not_lost(head, cluster, monkeypatch):
    monkeypatch.setattr("nngen.training.ray.cluster._LOST_S", 60.0)
    port = head.getsockname()[1]
    head.close()
    while cluster.require_head():
        pass
    with socket.create_server(("127.0.0.1", port)):
        while not cluster.require_head():
            pass
    assert not cluster.lost


class Waiting:
    """Fake of the module ``ray`` in which nothing arrives."""

    @staticmethod
    def wait(references, timeout):
        return [], references

    @staticmethod
    def nodes():
        raise AssertionError("this call hangs without a head")


def test_a_stream_that_goes_on_without_a_head_ends_too(head, cluster, monkeypatch):
    ready = SimpleNamespace(wait=lambda references, timeout: (references, []))
    monkeypatch.setattr("nngen.training.ray.engine.ray", ready)
    engine = RayEngine(cluster, request=None)
    head.close()
    _until_lost(lambda: [None for _ in engine._each(iter(range(10**9)))])


def test_no_actor_is_started_once_one_was_lost_with_the_head(head, cluster, monkeypatch):
    monkeypatch.setattr("nngen.training.ray.cluster._LOOK_S", 60.0)
    monkeypatch.setattr("nngen.training.ray.cluster._LOST_S", 60.0)
    engine = RayEngine(cluster, request=None, slots=3)
    assert engine._room() == 3
    pool = SimpleNamespace(take=lambda: SimpleNamespace(host="a"), drop=lambda handle: None)
    monkeypatch.setattr(engine, "_pool", pool)
    head.close()
    with pytest.raises(EngineLostError, match="node a"), engine._borrowed():
        raise RayError
    assert engine._room() == 0


@pytest.mark.parametrize("wait", ["_get", "_each", "_room", "slots"])
def test_whoever_waits_for_the_cluster_ends_with_it(wait, head, cluster, monkeypatch):
    monkeypatch.setattr("nngen.training.ray.engine.ray", Waiting)
    engine = RayEngine(cluster, request=None)
    head.close()
    engine._counted = (1, 0.0)
    while cluster.require_head():
        pass
    calls = {
        "_get": lambda: engine._get(object()),
        "_each": lambda: list(engine._each(object())),
        "_room": engine._room,
        "slots": lambda: engine.slots,
    }
    monkeypatch.setattr("nngen.training.ray.cluster.ray", Waiting)
    _until_lost(calls[wait])
    engine.close()  # does not ask the cluster


def test_a_data_set_that_changed_in_the_cache_is_not_sent(cluster):
    def changed():
        raise DataError("the stored arrays changed")

    job = SimpleNamespace(candidate=None, spec=None, dataset=SimpleNamespace(check_unchanged=changed))
    with pytest.raises(DataError, match="changed"):
        RayEngine(cluster, request=None).train(job)
