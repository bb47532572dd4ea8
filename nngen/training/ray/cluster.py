"""Connection to a running Ray cluster: what its nodes offer, and whether they can run this driver's trials."""

from __future__ import annotations

import logging
import os
import platform
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

import ray
from ray.exceptions import GetTimeoutError, NodeDiedError, RayError, RayTaskError, TaskUnschedulableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nngen import __version__
from nngen.errors import NngenError, UsageError

_MIB = 2**20
_MOST_THREADS = 16
_REACH_S = 10.0
_LOOK_S = 2.0
_LOST_S = 20.0
_PROBE_S = 120.0
_MAX_REASON = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Resources that Ray reserves for one trial."""

    cpus: int  # number of cores, one for each thread of the worker
    gpus: float = 0.0  # share of a card below 1, or a number of whole cards
    memory_mib: int  # memory in MiB, the worker's limit

    def __post_init__(self) -> None:
        if self.gpus < 0 or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise UsageError(f"a trial takes a share of a card up to 1, or whole cards, not {self.gpus:g}")

    def options(self) -> dict[str, Any]:
        """Return the request as Ray's options."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "memory": self.memory_mib * _MIB}

    def __str__(self) -> str:
        return _offer(self.cpus, self.gpus, self.memory_mib)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine of the cluster and all its resources, in use or not."""

    id: str  # Ray's id of the node, in hex
    host: str  # name of the node
    cpus: float
    gpus: float
    memory_mib: int

    def room(self, request: Request) -> int:
        """Return how many trials fit at once."""
        room = min(self.cpus // request.cpus, self.memory_mib // request.memory_mib)
        if request.gpus:
            # A share never spans two cards.
            cards = self.gpus // request.gpus if request.gpus > 1 else self.gpus // 1 * (1 // request.gpus)
            room = min(room, cards)
        return int(room)

    def __str__(self) -> str:
        return f"{self.host} ({_offer(self.cpus, self.gpus, self.memory_mib)})"


class Cluster:
    """A cluster that this process has joined; leaving the ``with`` block leaves it.

    Attributes:
        lost: Whether its head has gone; nothing in it can be reached then.
    """

    def __init__(self, *, joined: bool) -> None:
        self._joined = joined
        host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
        self._head = (host.strip("[]"), int(port))
        self._lock = threading.Lock()
        self._looked = self._seen = time.monotonic()
        self.lost = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster, unless this process was in it before ``connect``."""
        if self._joined and not self.lost:
            self._joined = False
            ray.shutdown()

    def require_head(self, *, fresh: bool = False) -> bool:
        """Return whether the head took connections when it was asked last: now if ``fresh``, else within two seconds.

        Raises:
            NngenError: If it has taken none for 20 s: Ray would end this process after a minute, with what it runs.
        """
        with self._lock:
            now = time.monotonic()
            if fresh or now - self._looked > _LOOK_S:
                self._looked = now
                with suppress(OSError):
                    socket.create_connection(self._head, timeout=_LOOK_S).close()
                    self._seen = now
            if self._looked - self._seen > _LOST_S:
                self.lost = True
                raise NngenError(
                    f"the head of the Ray cluster at {':'.join(map(str, self._head))} has not answered for"
                    f" {_LOST_S:.0f} s: finished trials are stored; start the cluster and run the same command again"
                )
            return self._looked == self._seen

    def nodes(self) -> tuple[Node, ...]:
        """List the nodes that are alive."""
        return tuple(
            Node(
                id=entry["NodeID"],
                host=entry["NodeManagerHostname"],
                cpus=entry["Resources"].get("CPU", 0.0),
                gpus=entry["Resources"].get("GPU", 0.0),
                memory_mib=int(entry["Resources"].get("memory", 0) // _MIB),
            )
            for entry in ray.nodes()
            if entry["Alive"]
        )

    def machine(self, share: float = 1.0) -> dict[str, Any]:
        """Suggest a device and threads for trials that each get ``share`` of a card, as fields of ``CampaignSpec``.

        Raises:
            UsageError: If no node offers a CPU.
        """
        nodes = [node for node in self.nodes() if node.cpus >= 1]
        if not nodes:
            raise UsageError("no node of the Ray cluster offers a CPU: start nodes with ray start --num-cpus")
        with_cards = [node for node in nodes if node.gpus >= 1]
        # Trials that share a node's cards share its cores alike; the weakest node decides.
        cores = [node.cpus / max(1.0, node.gpus / share) for node in with_cards] or [node.cpus for node in nodes]
        threads = max(1, min(_MOST_THREADS, int(min(cores))))
        return {"device": "cuda" if with_cards else "cpu", "threads": threads}

    def require(self, request: Request) -> None:
        """Check that the cluster has room for a trial, and this version of nngen wherever there is room.

        Raises:
            UsageError: If no node is large enough.
            NngenError: If nngen or Python differs on a node, or a node does not answer. One that is lost while it is
                asked counts no longer; all of them may not be.
        """
        nodes = self.nodes()
        fitting = [node for node in nodes if node.room(request)]
        if not fitting:
            offers = "; ".join(str(node) for node in nodes) or "none"
            raise UsageError(
                f"no node of the Ray cluster has room for a trial with {request}: lower --threads or --memory-mib,"
                f" or add a node (there are: {offers})"
            )
        _same_everywhere(fitting)


def connect(address: str = "auto") -> Cluster:
    """Join a cluster that runs.

    Args:
        address: ``auto`` for the one on this machine (or in ``RAY_ADDRESS``), or ``HOST:PORT`` of its head.

    Raises:
        UsageError: If there is none at the address, or its Ray or Python is not this one.
    """
    if ray.is_initialized():
        return Cluster(joined=False)
    if address.startswith("ray://"):
        raise UsageError(
            f"{address} is an address for Ray's client: run nngen on a node of the cluster with --address auto"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _reach(address)
    try:
        with _signals_kept():
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        text = reason_of(error)
        if address == "auto" and isinstance(error, ConnectionError):
            text = "none runs on this machine: ray start --head starts one, or give --address HOST:PORT"
        raise UsageError(f"the Ray cluster at {address} cannot be joined: {text}") from error
    return Cluster(joined=True)


def difference(host: str, nngen: str | None, python: str) -> str | None:
    """Return what keeps a node from running this driver's trials, by its versions; None if nothing does."""
    if python.split(".")[:2] != platform.python_version().split(".")[:2]:
        return f"node {host} has Python {python}, the driver {platform.python_version()}: install the same on both"
    if nngen is None:
        return f"node {host} has no nngen: install nngen {__version__} with its extra ray there"
    if nngen != __version__:
        return f"node {host} has nngen {nngen}, the driver {__version__}: install the same on both"
    return None


def reason_of(error: BaseException) -> str:
    """Return the informative part of Ray's error in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("The actor died because")]
    return (causes[-1] if causes else " ".join(lines))[:_MAX_REASON] or type(error).__name__


def local_error(error: BaseException) -> NngenError | None:
    """Return the error that the local engine raised in an actor; None where ``error`` is another."""
    return error.cause if isinstance(error, RayTaskError) and isinstance(error.cause, NngenError) else None


def _same_everywhere(nodes: Sequence[Node]) -> None:
    def versions() -> tuple[str | None, str]:
        # A local function travels as code: nngen may be missing on the node.
        import platform

        try:
            from nngen import __version__ as version
        except ImportError:
            return None, platform.python_version()
        return version, platform.python_version()

    probe = ray.remote(versions)
    asked = []
    # All are asked before the first answer is awaited: a slow node costs its time once.
    for node in nodes:
        place = NodeAffinitySchedulingStrategy(node.id, soft=False)
        asked.append(probe.options(num_cpus=0, max_retries=0, scheduling_strategy=place).remote())
    faults: list[str | None] = []
    for node, answer in zip(nodes, asked, strict=True):
        try:
            found = ray.get(answer, timeout=_PROBE_S)
        except (NodeDiedError, TaskUnschedulableError):
            # Ray lists a lost node as alive until it has missed enough heartbeats.
            continue
        except GetTimeoutError:
            faults.append(f"node {node.host} did not answer for {_PROBE_S:.0f} s")
        except RayError as error:
            faults.append(f"node {node.host} cannot run anything: {reason_of(error)}")
        else:
            faults.append(difference(node.host, *found))
    if named := dict.fromkeys(fault for fault in faults if fault is not None):
        raise NngenError("; ".join(named))
    if not faults:
        raise NngenError(f"the Ray cluster lost {', '.join(node.host for node in nodes)} just now: try again")


def _offer(cpus: float, gpus: float, memory_mib: int) -> str:
    parts = [f"{cpus:g} CPU{'' if cpus == 1 else 's'}"]
    if gpus:
        parts.append(f"{gpus:g} GPU{'s' if gpus > 1 else ''}")
    return ", ".join([*parts, f"{memory_mib:,} MiB"])


def _reach(address: str) -> None:
    """Try to connect first: Ray itself tries for a minute."""
    host, colon, port = address.rpartition(":")
    if not colon:
        if address != "auto":
            raise UsageError(f"{address!r} is not an address: write auto or HOST:PORT")
        return
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise UsageError(f"no Ray cluster answers at {address}: {error}") from error


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep this process's handler of SIGTERM, which Ray replaces by its own."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
