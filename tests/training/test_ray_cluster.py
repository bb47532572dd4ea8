"""Nodes of a Ray cluster: the room of a request, threads for trials, and versions that must be the driver's."""

from __future__ import annotations

import platform
import sys
from typing import Any

import pytest
from fake_cluster import FakeRay, entry, node_id

pytest.importorskip("ray", reason="ray is not installed: pip install '.[ray]'")

from ray.exceptions import GetTimeoutError, NodeDiedError, RayError, RayTaskError, TaskUnschedulableError

from nngen import __version__
from nngen.errors import DataError, NngenError, UsageError
from nngen.training.ray import cluster as module
from nngen.training.ray.cluster import Cluster, Node, Request, difference, local_error, reason_of

PYTHON = platform.python_version()
GIB = 2**30


@pytest.mark.parametrize(
    ("request_", "options", "text"),
    [
        (Request(cpus=1, memory_mib=100), (1, 0.0, 104_857_600), "1 CPU, 100 MiB"),
        (Request(cpus=2, gpus=0.5, memory_mib=3000), (2, 0.5, 3_145_728_000), "2 CPUs, 0.5 GPU, 3,000 MiB"),
        (Request(cpus=2, gpus=1, memory_mib=1), (2, 1, 1_048_576), "2 CPUs, 1 GPU, 1 MiB"),
        (Request(cpus=3, gpus=2, memory_mib=1), (3, 2, 1_048_576), "3 CPUs, 2 GPUs, 1 MiB"),
    ],
)
def test_a_request_is_told_to_ray_and_to_the_user(request_: Request, options: tuple[float, ...], text: str) -> None:
    assert request_.options() == dict(zip(("num_cpus", "num_gpus", "memory"), options, strict=True))
    assert str(request_) == text


@pytest.mark.parametrize("gpus", [-1.0, -0.5, 1.5, 2.25])
def test_a_share_of_several_cards_is_refused(gpus: float) -> None:
    with pytest.raises(UsageError, match=f"^a trial takes a share of a card up to 1, or whole cards, not {gpus:g}$"):
        Request(cpus=1, gpus=gpus, memory_mib=1)


@pytest.mark.parametrize(
    ("cpus", "gpus", "memory_mib", "room"),
    [
        (2, 0, 1000, 4),
        (3, 0, 1000, 2),
        (2, 0, 4000, 2),
        (9, 0, 100, 0),
        (1, 0, 10_001, 0),
        (1, 0.5, 100, 4),
        (1, 0.4, 100, 4),  # a card has room for two, and what is left of two cards is none
        (1, 1, 100, 2),
        (1, 2, 100, 1),
        (1, 3, 100, 0),
        (8, 0.5, 100, 1),
    ],
)
def test_room_is_what_is_scarcest_on_a_node(cpus: int, gpus: float, memory_mib: int, room: int) -> None:
    node = Node(id="", host="a", cpus=8, gpus=2, memory_mib=10_000)
    found = node.room(Request(cpus=cpus, gpus=gpus, memory_mib=memory_mib))
    assert (found, type(found)) == (room, int)
    assert str(node) == "a (8 CPUs, 2 GPUs, 10,000 MiB)"


@pytest.mark.parametrize(("share", "room"), [(0.5, 4), (0.25, 8), (1, 2), (2, 1)])
def test_a_part_of_a_card_has_no_room(share: float, room: int) -> None:
    node = Node(id="", host="a", cpus=99, gpus=2.75, memory_mib=10_000)
    assert node.room(Request(cpus=1, gpus=share, memory_mib=1)) == room


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch):
    def begin(*entries: dict[str, Any], **arguments: Any) -> FakeRay:
        ray = FakeRay(*entries, **arguments)
        monkeypatch.setattr(module, "ray", ray)
        return ray

    return begin


def test_nodes_that_live_are_listed_with_their_resources(play) -> None:
    play(entry("a", CPU=4.0, GPU=2.0, memory=3 * GIB + 5), entry("gone", alive=False, CPU=9.0), entry("b"))
    assert Cluster(joined=True).nodes() == (
        Node(id=node_id("a"), host="a", cpus=4.0, gpus=2.0, memory_mib=3072),
        Node(id=node_id("b"), host="b", cpus=0.0, gpus=0.0, memory_mib=0),
    )


@pytest.mark.parametrize(
    ("entries", "share", "device", "threads"),
    [
        ([("a", 8.0, 0.0), ("b", 6.5, 0.0), ("head", 0.5, 0.0)], 1.0, "cpu", 6),
        ([("a", 1.0, 0.0)], 1.0, "cpu", 1),
        ([("a", 64.0, 0.0)], 1.0, "cpu", 16),
        ([("a", 16.0, 2.0), ("b", 2.0, 0.0)], 1.0, "cuda", 8),
        ([("a", 16.0, 2.0)], 0.5, "cuda", 4),
        ([("a", 9.0, 1.0), ("b", 12.0, 2.0)], 1.0, "cuda", 6),
        ([("a", 7.0, 1.0)], 2.0, "cuda", 7),
        ([("a", 2.0, 4.0)], 1.0, "cuda", 1),
        ([("a", 3.0, 0.5)], 1.0, "cpu", 3),
    ],
)
def test_a_device_and_threads_follow_from_the_weakest_node(entries, share, device, threads, play) -> None:
    play(*(entry(host, CPU=cpus, GPU=gpus) for host, cpus, gpus in entries))
    assert Cluster(joined=True).machine(share) == {"device": device, "threads": threads}
    if share == 1.0:
        assert Cluster(joined=True).machine() == {"device": device, "threads": threads}


def test_a_cluster_without_cores_is_refused(play) -> None:
    play(entry("a", CPU=0.5))
    with pytest.raises(UsageError, match=r"^no node of the Ray cluster offers a CPU: start nodes"):
        Cluster(joined=True).machine()


@pytest.mark.parametrize(
    ("entries", "offers"),
    [
        ((entry("a", CPU=2.0, memory=GIB), entry("b", CPU=1.0, memory=4 * GIB)), "a (2 CPUs, 1,024 MiB); b (1 CPU, 4,"),
        ((), "none)"),
    ],
)
def test_a_trial_that_fits_nowhere_is_refused_with_what_there_is(entries, offers, play) -> None:
    ray = play(*entries)
    with pytest.raises(UsageError) as caught:
        Cluster(joined=True).require(Request(cpus=2, memory_mib=2000))
    assert str(caught.value).startswith(
        "no node of the Ray cluster has room for a trial with 2 CPUs, 2,000 MiB: lower --threads or --memory-mib, or"
        f" add a node (there are: {offers}"
    )
    assert ray.calls == []


REQUEST = Request(cpus=2, memory_mib=1000)
NODES = tuple(entry(host, CPU=2.0, memory=GIB) for host in ("a", "b"))


def test_each_node_with_room_is_asked_for_its_versions(play) -> None:
    ray = play(*NODES, entry("small", CPU=1.0, memory=GIB))
    Cluster(joined=True).require(REQUEST)
    assert ray.calls == [("ask", (node_id("a"), False, 0, 0)), ("ask", (node_id("b"), False, 0, 0))]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"a": ("0.0", PYTHON)}, f"node a has nngen 0.0, the driver {__version__}: install the same on both"),
        ({"a": (None, PYTHON)}, f"node a has no nngen: install nngen {__version__} with its extra ray there"),
        ({"b": GetTimeoutError()}, "node b did not answer for 120 s"),
        ({"b": RayError("no\nspace")}, "node b cannot run anything: no space"),
        (
            {"a": GetTimeoutError(), "b": RayError("full")},
            "node a did not answer for 120 s; node b cannot run anything: full",
        ),
        ({"a": NodeDiedError("x"), "b": RayError("full")}, "node b cannot run anything: full"),
        ({"a": NodeDiedError("x"), "b": TaskUnschedulableError("x")}, "the Ray cluster lost a, b just now: try again"),
    ],
)
def test_nodes_that_cannot_run_this_drivers_trials_are_named(answers, message, play) -> None:
    play(*NODES, answers=answers)
    with pytest.raises(NngenError) as caught:
        Cluster(joined=True).require(REQUEST)
    assert str(caught.value) == message


def test_a_node_that_is_lost_meanwhile_counts_no_longer(play) -> None:
    play(*NODES, answers={"a": NodeDiedError("x")})
    Cluster(joined=True).require(REQUEST)


def test_a_node_without_nngen_says_so(play, monkeypatch: pytest.MonkeyPatch) -> None:
    play(*NODES)
    monkeypatch.setitem(sys.modules, "nngen", None)
    with pytest.raises(NngenError, match=r"^node a has no nngen: install .*; node b has no nngen: install "):
        Cluster(joined=True).require(REQUEST)


def test_versions_are_compared_up_to_the_minor_number_of_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.python_version", lambda: "3.11.7")
    assert difference("a", __version__, "3.11.2") is None
    both = "install the same on both"
    assert difference("a", __version__, "3.12.7") == f"node a has Python 3.12.7, the driver 3.11.7: {both}"
    assert difference("a", None, "2.11.7") == f"node a has Python 2.11.7, the driver 3.11.7: {both}"
    assert difference("a", "0.0", "3.11.7") == f"node a has nngen 0.0, the driver {__version__}: {both}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("  one \n\n two  ", "one two"),
        ("Ray:\nThe actor died because of x\nThe actor died because of y \nmore", "The actor died because of y"),
        ("x" * 400, "x" * 300),
        (" \n ", "ValueError"),
    ],
)
def test_the_reason_of_an_error_is_one_line(text: str, reason: str) -> None:
    assert reason_of(ValueError(text)) == reason


def test_an_error_of_the_local_engine_is_known_behind_rays() -> None:
    own = DataError("no image")
    assert local_error(RayTaskError("train", "Traceback", own)) is own
    assert local_error(RayTaskError("train", "Traceback", ValueError("x"))) is None
    assert local_error(own) is None
