"""Probe of families: measures in isolated workers what each accepts and costs, once, and stores it by content hash.

This module loads no torch: it reads the cache, and runs ``nngen.families.measure`` in workers for the rest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from nngen.errors import UsageError
from nngen.families import shipped
from nngen.families.hyperparameters import best_hyperparameters, recorded
from nngen.families.profile import NOTES, Answer, Profile, TrainingCost, check_shape, read_interface
from nngen.families.trust import AUTO, check_sandbox, families_level
from nngen.files import cache_dir, load_json, store_json
from nngen.isolation.job import Job, JsonObject
from nngen.isolation.limits import Limits
from nngen.isolation.result import ExitReason, JobResult
from nngen.isolation.runner import JobRunner
from nngen.text import one_line
from nngen.types import Family, Interface, Shape

Progress: TypeAlias = Callable[[int, int], None]
"""Receives (families measured, families to measure)."""

TIME_LIMIT_S = 120.0
"""Limit on the time of one family's probe, in seconds."""

MEMORY_MIB = 6144
"""Limit on the memory of one family's probe, in MiB."""

_MEASURE = "nngen.families.measure"
PRELOAD = ("torch", "torchvision", _MEASURE)  # most families import torchvision: once, not once in each worker
_MAX_JOBS = 8
_log = logging.getLogger(__name__)

# Raised when the probe measures differently, so that older entries of the cache are left alone.
_PROFILE_VERSION = 7
_COST_VERSION = 4


def profiles(
    families: Iterable[Family],
    shape: Shape,
    *,
    classes: int = 10,
    progress: Progress | None = None,
    jobs: int | None = None,
    wanted: str = AUTO,
) -> dict[str, Profile]:
    """Measure families at a shape, or look up earlier measurements.

    Each family is built with LEMUR's best hyperparameters for one image, then run on two, in a worker of its own.
    Results are stored under the source's fingerprint, the shape, the hyperparameters and torch's version; an exceeded
    limit of time or memory is not stored. ``jobs`` families are measured at a time: one for each CPU, at most 8.

    Raises:
        UsageError: If the shape is larger than any network is built for, ``jobs`` is below 1, or a family needs a
            sandbox and there is none.
        NngenError: If no worker can be started.
    """
    check_shape(shape)
    if jobs is not None and jobs < 1:
        raise UsageError(f"{jobs} families cannot be measured at a time: give 1 or more jobs")
    probes = {family.name: Probe(family=family, shape=shape, classes=classes, wanted=wanted) for family in families}
    answers = _answers(probes.values(), jobs, progress)
    return {
        name: Profile(
            name=name,
            fingerprint=probe.family.fingerprint,
            interface=answers[name].interface,
            reason=answers[name].reason,
            parameters={} if (count := answers[name].parameters) is None else {str(shape): count},
            notes=answers[name].notes,
        )
        for name, probe in probes.items()
    }


def usable_families(
    families: Sequence[Family], shape: Shape, *, classes: int = 10, progress: Progress | None = None, wanted: str = AUTO
) -> tuple[dict[str, tuple[Family, Interface]], dict[str, str]]:
    """Separate the families that can be used at a shape from the others; arguments and errors as for ``profiles``.

    Returns:
        The usable families by name, each with the inputs it accepts; and the others, each with the reason.
    """
    measured = profiles(families, shape, classes=classes, progress=progress, wanted=wanted)
    usable, refused = {}, {}
    for family in families:
        profile = measured[family.name]
        if profile.usable and profile.interface is not None:
            usable[family.name] = (family, profile.interface)
            if "seeds" in profile.notes:
                _log.warning("%s: %s", family.name, NOTES["seeds"])
        else:
            refused[family.name] = profile.reason
    return usable, refused


def training_costs(
    families: Iterable[tuple[Family, Interface]],
    shape: Shape,
    *,
    classes: int = 10,
    jobs: int | None = None,
    wanted: str = AUTO,
    progress: Progress | None = None,
) -> dict[str, TrainingCost]:
    """Measure what training families behind their adapters costs, or look up earlier measurements; see ``profiles``.

    Returns:
        Costs by name; a family that cannot be measured here is left out.

    Raises:
        UsageError: If a family needs a sandbox and there is none.
        NngenError: If no worker can be started.
    """
    probes = [
        Probe(family=one, shape=shape, classes=classes, wanted=wanted, cost_behind=inputs) for one, inputs in families
    ]
    return {name: answer.cost for name, answer in _answers(probes, jobs, progress).items() if answer.cost is not None}


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One measurement of one family at one shape: of what training costs, if ``cost_behind`` states its inputs."""

    family: Family
    shape: Shape
    classes: int
    wanted: str
    cost_behind: Interface | None = None

    def job(self) -> Job:
        # The interface does not depend on the sides: a family measured at another shape is only confirmed at this one.
        known = self.cost_behind or self._known_interface()
        arguments = {
            "recorded": recorded(self.family),
            "classes": self.classes,
            "shape": str(self.shape),
            "interface": known and asdict(known),
            "cost": self.cost_behind is not None,
        }
        return Job(
            entry_point=f"{_MEASURE}:measure",
            arguments=arguments,
            source=self.family.source,
            limits=Limits(time_limit_s=TIME_LIMIT_S, memory_mib=MEMORY_MIB),
            isolation=families_level([self.family], self.wanted).level,
        )

    def answer(self, messages: Sequence[JsonObject], result: JobResult) -> Answer:
        smaller = f" at {self.shape}: choose a smaller shape"
        if result.reason is ExitReason.MEMORY:
            return Answer(reason=f"needs more than {MEMORY_MIB:,} MiB{smaller}", lasting=False)
        if result.reason is ExitReason.TIME:
            return Answer(reason=f"took longer than {TIME_LIMIT_S:g} s{smaller}", lasting=False)
        if not messages:
            return Answer(reason=one_line(result.describe()), lasting=False)
        # The worker ran the family, so its message may be the family's own.
        try:
            answer = Answer.read(messages[-1])
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            return Answer(reason=f"the worker sent no measurement: {one_line(str(error), 100)}", lasting=False)
        if messages[-1].get("memory"):
            return Answer(reason=f"needs more than {MEMORY_MIB:,} MiB{smaller}", lasting=False)
        return answer

    def stored(self) -> Answer | None:
        value = load_json(self._file())
        if value is None and self.cost_behind is None:
            value = shipped.profile(*self._shipped_key, self.classes, self.shape)
        empty = {"interface": None, "parameters": None, "cost": None, "reason": "", "notes": ()}
        try:
            return Answer.read(empty | ({"cost": value} if self.cost_behind else value)) if value else None
        except (AttributeError, LookupError, TypeError, ValueError):
            return None

    def store(self, answer: Answer) -> Answer:
        """Store an answer; return it, with the interface that is known already where this run found none."""
        if self.cost_behind is not None:
            if answer.cost is not None:
                store_json(self._file(), asdict(answer.cost))
            return answer
        if answer.interface is not None:
            store_json(self._interface_file(), asdict(answer.interface))
        else:  # a limit of time or memory does not contradict what is known
            answer = replace(answer, interface=self._known_interface())
        if answer.lasting:
            plain = asdict(answer)
            store_json(self._file(), {key: plain[key] for key in ("interface", "reason", "parameters", "notes")})
        return answer

    def _known_interface(self) -> Interface | None:
        try:
            known = load_json(self._interface_file())
            return read_interface(known or shipped.same_channels(*self._shipped_key, self.shape.channels))
        except (AttributeError, LookupError, TypeError, ValueError):
            return None

    @property
    def _shipped_key(self) -> tuple[tuple[int, str], str, Mapping[str, Any]]:
        return versions(), self.family.fingerprint, best_hyperparameters(self.family)

    def _file(self) -> Path:
        if self.cost_behind is None:
            return self._profile_file(self.shape)
        prm = best_hyperparameters(self.family)
        key = (_COST_VERSION, version("torch"), self.family.fingerprint, prm, self.classes, str(self.shape))
        return _cache_file("weights", *key)

    def _interface_file(self) -> Path:
        """The interface depends on the channels alone, so it is stored apart from the result at a shape."""
        return self._profile_file(self.shape.channels)

    def _profile_file(self, subject: object) -> Path:
        prm = json.dumps(best_hyperparameters(self.family))
        return _cache_file("probes", *versions(), self.family.fingerprint, prm, self.classes, str(subject))


def versions() -> tuple[int, str]:
    """Return the versions that a profile holds for: of the measurement, and of torch without its patch release."""
    # Another patch release of torch runs the same operations.
    return _PROFILE_VERSION, ".".join(version("torch").split(".")[:2])


def _cache_file(folder: str, *key: object) -> Path:
    return cache_dir() / folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:40]}.json"


def _answers(probes: Iterable[Probe], jobs: int | None, progress: Progress | None = None) -> dict[str, Answer]:
    """Look up the answers of probes, by family, and run those that are missing in workers."""
    # Before any worker starts: where all is known, neither torch is loaded nor a sandbox needed.
    found = {probe.family.name: probe.stored() for probe in probes}
    missing = [probe for probe in probes if found[probe.family.name] is None]
    report = progress or (lambda _done, _total: None)
    if missing:
        for probe in missing:  # before the first of them runs
            check_sandbox(families_level([probe.family], probe.wanted))
        report(0, len(missing))
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        with ThreadPoolExecutor(jobs or min(cpus, _MAX_JOBS)) as pool, JobRunner(preload=PRELOAD) as runner:
            futures = {pool.submit(runner.collect, probe.job()): probe for probe in missing}
            try:
                for count, future in enumerate(as_completed(futures), start=1):
                    probe = futures[future]
                    found[probe.family.name] = probe.store(probe.answer(*future.result()))
                    report(count, len(missing))
            finally:
                # Before the runner ends the running jobs: none may begin after that.
                pool.shutdown(wait=False, cancel_futures=True)
    return {name: answer for name, answer in found.items() if answer is not None}
