"""Which machines a campaign runs on: this one, or those of a Ray cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nngen.campaign import CampaignInputs, CampaignSpec
    from nngen.training import LocalEngine
    from nngen.training.ray import Cluster, RayEngine

__all__ = ["join", "open_engine", "suggest"]

_ENGINES = ("local", "ray")
_MOST_THREADS = 16


@contextmanager
def join(engine: str, address: str | None, gpu_share: float | None) -> Iterator[Cluster | None]:
    """Join the cluster that is asked for; None stands for this machine alone.

    Raises:
        UsageError: If the words do not fit together, or no cluster can be joined.
        MissingExtraError: If Ray is asked for and not installed.
    """
    from nngen.errors import MissingExtraError, UsageError

    if engine not in _ENGINES:
        raise UsageError(f"there is no engine {engine!r}: choose {' or '.join(_ENGINES)}")
    if engine == "local":
        for flag, value in (("--address", address), ("--gpu-share", gpu_share)):
            if value is not None:
                raise UsageError(f"{flag} is for --engine ray")
        yield None
        return
    if gpu_share is not None and gpu_share <= 0:
        raise UsageError(f"--gpu-share must be above 0, not {gpu_share:g}")
    try:
        from nngen.training.ray import connect
    except ImportError as error:
        raise MissingExtraError("ray", "ray") from error
    # Ray tells of lost nodes on stdout, where results alone belong.
    with redirect_stdout(sys.stderr), connect(address or "auto") as cluster:
        yield cluster


def suggest(cluster: Cluster | None, workers: int | None, gpu_share: float | None) -> dict[str, Any]:
    """Suggest a device and threads where nothing was typed."""
    import os

    from nngen.training.device import pick_device

    if cluster is not None:
        return cluster.machine(gpu_share or 1.0)
    cores = len(os.sched_getaffinity(0))
    return {"device": pick_device("auto"), "threads": max(1, min(cores // (workers or 1), _MOST_THREADS))}


def open_engine(
    cluster: Cluster | None,
    spec: CampaignSpec,
    bench: CampaignInputs,
    workers: int | None,
    gpu_share: float | None,
    *,
    compiled: bool = False,
) -> LocalEngine | RayEngine:
    """Open the engine that a campaign's trials fit into; it predicts what they will take.

    Raises:
        NngenError: If they fit nowhere, or a node is not fit for them.
    """
    from nngen.training.memory_model import predictor

    predict = predictor(bench.families, classes=bench.classes)
    if cluster is None:
        from nngen.training import LocalEngine

        return LocalEngine(slots=workers or 1, predict=predict, compiled=compiled)
    from nngen.training.ray import RayEngine, Request

    share = 0.0 if spec.device == "cpu" else gpu_share or 1.0
    request = Request(cpus=spec.threads, gpus=share, memory_mib=spec.memory_mib)
    return RayEngine(cluster, request, slots=workers, predict=predict, compiled=compiled)
