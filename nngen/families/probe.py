"""Probe of families: measures in isolated workers what each accepts and costs, once, and stores it by content hash.

This module loads no torch: it reads the cache, and runs ``nngen.families.measure`` in workers for the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nngen.errors import UsageError
from nngen.families.hyperparameters import best_hyperparameters
from nngen.files import cache_dir, write_atomically
from nngen.isolation.job import Job, JsonObject
from nngen.isolation.limits import Limits
from nngen.isolation.result import ExitReason, JobResult
from nngen.isolation.runner import JobRunner
from nngen.types import Adapter, Family, Interface, Shape

TIME_LIMIT_S = 120.0
"""Limit on the time of one family's probe, in seconds."""

MEMORY_MIB = 6144
"""Limit on the memory of one family's probe, in MiB."""

LARGEST_SIDE = 1024
LARGEST_IMAGE = 2**24
"""Most numbers in one image: a batch of two in float32 is then 128 MiB."""

_MEASURE = "nngen.families.measure"
_PRELOAD = ("torch", "torchvision", _MEASURE)  # most families import torchvision: once, not once in each worker
_MAX_JOBS = 8

# Raised when the probe measures differently, so that older entries of the cache are left alone.
_PROFILE_VERSION = 1
_COST_VERSION = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The measured properties of a family.

    Attributes:
        fingerprint: SHA-256 of the source that was measured.
        interface: The inputs that the family accepts; None if no input was found that it accepts.
        reason: Why the family cannot be used at the shape asked for; empty if it can.
        parameters: Trainable parameters by shape, as ``{"3x32x32": 11181642}``.
    """

    name: str
    fingerprint: str
    interface: Interface | None
    reason: str = ""
    parameters: Mapping[str, int] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        return self.interface is not None and not self.reason

    def adapter(self, shape: Shape) -> Adapter | None:
        """Return the adapter behind which the family is usable at ``shape``; None if it is not."""
        return self.interface.adapter(shape) if self.interface is not None and self.usable else None

    def native(self, shape: Shape) -> bool:
        """Return whether the family accepts ``shape`` without an adapter."""
        adapter = self.adapter(shape)
        return adapter is not None and not adapter

    def why(self, shape: Shape) -> str:
        """Return why the family cannot be used at ``shape``, or needs an adapter there; empty if neither."""
        if self.interface is None or self.reason or self.native(shape):
            return self.reason
        accepts = self.interface
        form = ("square " if accepts.square else "") + ("complex " if accepts.complex else "")
        return f"takes {form}images of {accepts.sides}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCost:
    """Cost of training a family at one shape, on one CPU thread in float32.

    Attributes:
        weights_mib: Memory of its parameters and buffers, in MiB.
        image_mib: Memory kept for the backward pass by each image of a batch, in MiB.
        image_s: Seconds per image, forward and backward.
        step_s: Further seconds per step.
    """

    weights_mib: float
    image_mib: float
    image_s: float
    step_s: float


def check_shape(shape: Shape) -> None:
    """Refuse shapes that no network is built for, before anything is allocated.

    Raises:
        UsageError: If a side or the image is too large; the message names the limit.
    """
    if max(shape.height, shape.width) > LARGEST_SIDE:
        raise UsageError(f"no family takes {shape}: sides go up to {LARGEST_SIDE} px")
    if shape.channels * shape.height * shape.width > LARGEST_IMAGE:
        raise UsageError(f"no family takes {shape}: an image may hold up to {LARGEST_IMAGE:,} numbers")


def profiles(
    families: Iterable[Family],
    shape: Shape,
    *,
    classes: int = 10,
    progress: Callable[[int, int], None] | None = None,
    jobs: int | None = None,
) -> dict[str, Profile]:
    """Measure families at a shape, or look up earlier measurements.

    Each family is built with LEMUR's best hyperparameters for one image, then run on two, in a worker of its own.
    Results are stored under the source's fingerprint, the shape, the hyperparameters and torch's version; an exceeded
    limit of time or memory is not stored.

    Args:
        families: The families to measure.
        shape: Shape of the images as they reach the mixture.
        classes: Number of classes: the length of the logits.
        progress: Called with (families measured, families to measure) after each.
        jobs: Families measured at the same time; None takes one for each CPU, at most 8.

    Raises:
        UsageError: If the shape is larger than any network is built for, or ``jobs`` is below 1.
        NngenError: If no worker can be started.
    """
    check_shape(shape)
    if jobs is not None and jobs < 1:
        raise UsageError(f"{jobs} families cannot be measured at a time: give 1 or more jobs")
    probes = {family.name: _Probe(family=family, shape=shape, classes=classes) for family in families}
    found = {name: profile for name, probe in probes.items() if (profile := probe.stored_profile()) is not None}
    missing = [probe for name, probe in probes.items() if name not in found]
    if missing and progress is not None:
        progress(0, len(missing))
    for count, (probe, answer) in enumerate(_run(missing, jobs), start=1):
        found[probe.family.name] = probe.store_profile(answer)
        if progress is not None:
            progress(count, len(missing))
    return {name: found[name] for name in probes}


def usable_families(
    families: Sequence[Family],
    shape: Shape,
    *,
    classes: int = 10,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, tuple[Family, Interface]], dict[str, str]]:
    """Separate the families that can be used at a shape from the others; arguments and errors as for ``profiles``.

    Returns:
        The usable families by name, each with the inputs it accepts; and the others, each with the reason.
    """
    measured = profiles(families, shape, classes=classes, progress=progress)
    usable, refused = {}, {}
    for family in families:
        profile = measured[family.name]
        if profile.usable and profile.interface is not None:
            usable[family.name] = (family, profile.interface)
        else:
            refused[family.name] = profile.reason
    return usable, refused


def training_costs(
    families: Iterable[tuple[Family, Interface]], shape: Shape, *, classes: int = 10, jobs: int | None = None
) -> dict[str, TrainingCost]:
    """Measure what training families at a shape costs, or look up earlier measurements.

    Args:
        families: Families, each with the inputs it accepts.
        shape: Shape of the images as they reach the mixture; each family is measured behind its adapter.
        classes: Number of classes.
        jobs: Families measured at the same time; None takes one for each CPU, at most 8.

    Returns:
        Costs by name; a family that cannot be measured here is left out.

    Raises:
        NngenError: If no worker can be started.
    """
    probes = {
        family.name: _Probe(family=family, shape=shape, classes=classes, cost_behind=interface)
        for family, interface in families
    }
    found = {name: cost for name, probe in probes.items() if (cost := probe.stored_cost()) is not None}
    for probe, answer in _run([probe for name, probe in probes.items() if name not in found], jobs):
        if answer["cost"] is not None:
            found[probe.family.name] = probe.store_cost(answer["cost"])
    return {name: found[name] for name in probes if name in found}


@dataclass(frozen=True, kw_only=True)
class _Probe:
    """One measurement of one family at one shape, and its entries in the cache.

    The interface depends on the channels alone, so it is stored apart from the result at a shape.
    """

    family: Family
    shape: Shape
    classes: int
    cost_behind: Interface | None = None

    def job(self) -> Job:
        known = asdict(self.cost_behind) if self.cost_behind else _load(self._profile_file(self.shape.channels))
        arguments = {
            "hyperparameters": best_hyperparameters(self.family),
            "classes": self.classes,
            "shape": str(self.shape),
            "interface": known,
            "cost": self.cost_behind is not None,
        }
        limits = Limits(time_limit_s=TIME_LIMIT_S, memory_mib=MEMORY_MIB)
        return Job(entry_point=f"{_MEASURE}:measure", arguments=arguments, source=self.family.source, limits=limits)

    def answer(self, messages: Sequence[JsonObject], result: JobResult) -> dict[str, Any]:
        """Return what the worker sent, with ``lasting``: false for what a larger or quieter machine could do."""
        if messages and not messages[-1]["memory"]:
            return {**messages[-1], "lasting": True}
        smaller = f" at {self.shape}: choose a smaller shape"
        if messages or result.reason is ExitReason.MEMORY:
            reason = f"needs more than {MEMORY_MIB:,} MiB{smaller}"
        elif result.reason is ExitReason.TIME:
            reason = f"took longer than {TIME_LIMIT_S:g} s{smaller}"
        else:
            reason = result.describe()
        return {"interface": None, "parameters": None, "cost": None, "reason": reason, "lasting": False}

    def stored_profile(self) -> Profile | None:
        stored = _load(self._profile_file(self.shape))
        try:
            return None if stored is None else self._profile(stored)
        except (KeyError, TypeError):
            return None

    def store_profile(self, answer: Mapping[str, Any]) -> Profile:
        interface = self._profile_file(self.shape.channels)
        if answer["interface"] is not None:
            _store(interface, answer["interface"])
        else:  # a limit of time or memory does not contradict what is known
            answer = {**answer, "interface": _load(interface)}
        if answer["lasting"]:
            _store(self._profile_file(self.shape), {key: answer[key] for key in ("interface", "reason", "parameters")})
        return self._profile(answer)

    def stored_cost(self) -> TrainingCost | None:
        stored = _load(self._cost_file())
        try:
            return None if stored is None else TrainingCost(**stored)
        except TypeError:
            return None

    def store_cost(self, cost: Mapping[str, float]) -> TrainingCost:
        _store(self._cost_file(), cost)
        return TrainingCost(**cost)

    def _profile(self, answer: Mapping[str, Any]) -> Profile:
        interface = answer["interface"]
        count = answer["parameters"]
        return Profile(
            name=self.family.name,
            fingerprint=self.family.fingerprint,
            interface=None if interface is None else Interface(**interface),
            reason=answer["reason"],
            parameters={} if count is None else {str(self.shape): count},
        )

    def _profile_file(self, subject: object) -> Path:
        torch = ".".join(version("torch").split(".")[:2])
        prm = json.dumps(best_hyperparameters(self.family))
        return _file("probes", _PROFILE_VERSION, torch, self.family.fingerprint, prm, self.classes, str(subject))

    def _cost_file(self) -> Path:
        prm = best_hyperparameters(self.family)
        key = (_COST_VERSION, version("torch"), self.family.fingerprint, prm, self.classes, str(self.shape))
        return _file("weights", *key)


def _file(folder: str, *key: object) -> Path:
    return cache_dir() / folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:40]}.json"


def _load(file: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _store(file: Path, value: Mapping[str, Any]) -> None:
    # A cache that cannot be written only costs the time.
    with suppress(OSError):
        write_atomically(file, json.dumps(dict(value)).encode())


def _run(probes: Sequence[_Probe], jobs: int | None) -> Iterator[tuple[_Probe, dict[str, Any]]]:
    """Run probes in workers and yield each with its answer as it ends.

    Raises:
        NngenError: If no worker can be started.
    """
    if not probes:
        return
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(jobs or min(cpus, _MAX_JOBS)) as pool, JobRunner(preload=_PRELOAD) as runner:
        futures = {pool.submit(runner.collect, probe.job()): probe for probe in probes}
        try:
            for future in as_completed(futures):
                yield futures[future], futures[future].answer(*future.result())
        finally:
            # Before the runner ends the running jobs: none may begin after that.
            pool.shutdown(wait=False, cancel_futures=True)
