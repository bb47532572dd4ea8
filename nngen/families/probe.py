"""What each family accepts and costs, measured once and kept.

The measuring happens in a process of its own (``probe_worker``), with no GPU in sight; this
module knows what is already kept, starts that process for the rest, and loads no torch itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, Protocol

from nngen.errors import LemurError, UsageError
from nngen.families.hyperparameters import best_hyperparameters
from nngen.files import cache_dir, write_atomically
from nngen.types import Adapter, Family, Interface, Shape

__all__ = ["MEMORY_MIB", "WALL_S", "Profile", "check_shape", "default_jobs", "profiles", "run_tasks"]

WALL_S = 120.0
"""Wall time that one family's probe may take, in seconds."""

MEMORY_MIB = 6144
"""Memory that one family's probe may take, on top of torch itself, in MiB."""

LARGEST_SIDE = 1024
LARGEST_IMAGE = 2**24
"""Most numbers in one image: a batch of two in float32 is then 128 MiB."""

_VERSION = 1
"""Raised when the probe measures differently, so that what older versions kept is left alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What was measured of a family.

    Attributes:
        name: The family's.
        fingerprint: Of the source that was measured.
        interface: The inputs it accepts; None where no input was found that it takes.
        reason: Why it cannot be used at the shape asked for; empty where it can.
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
        """What makes the family usable at ``shape``; None where nothing does."""
        return self.interface.adapter(shape) if self.interface is not None and self.usable else None

    def native(self, shape: Shape) -> bool:
        """Whether the family takes ``shape`` as it is."""
        adapter = self.adapter(shape)
        return adapter is not None and not adapter

    def why(self, shape: Shape) -> str:
        """Why the family cannot be used at ``shape``, or needs an adapter there; empty if neither."""
        if self.interface is None or self.reason or self.native(shape):
            return self.reason
        takes = self.interface
        sides = f"{takes.low} px and more" if takes.high is None else f"{takes.low} to {takes.high} px"
        form = ("square " if takes.square else "") + ("complex " if takes.complex else "")
        return f"takes {form}images of {sides}"


def check_shape(shape: Shape) -> None:
    """Refuse shapes that no network is built for, before anything is allocated.

    Raises:
        UsageError: If a side or the image is too large; the message says what goes.
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
    """Measure families at a shape, or look up what was measured before.

    Each family is built with LEMUR's best hyperparameters for one image, then run on two, in a
    process of its own. What is found is kept under the source's fingerprint, the shape, the
    hyperparameters and torch's version; limits of time and memory are not kept.

    Args:
        families: What to measure.
        shape: The images' shape, as they reach the mixture.
        classes: Of the data set; logits must have this length.
        progress: Called with (families measured, families to measure) as they are done.
        jobs: Families measured at a time; None takes one for each CPU, at most 8.

    Raises:
        UsageError: If the shape is larger than any network is built for, or ``jobs`` is below 1.
        LemurError: If the measuring process itself fails.
    """
    check_shape(shape)
    if jobs is not None and jobs < 1:
        raise UsageError(f"{jobs} families cannot be measured at a time: give 1 or more jobs")
    tasks = [_Task(family=family, shape=shape, classes=classes) for family in families]
    done = {task.family.name: profile for task in tasks if (profile := task.kept()) is not None}
    missing = {task.family.name: task for task in tasks if task.family.name not in done}
    if missing:
        if progress is not None:
            progress(0, len(missing))
        for count, answer in enumerate(run_tasks(missing, jobs or default_jobs()), start=1):
            task = missing[answer["name"]]
            done[task.family.name] = task.keep(answer)
            if progress is not None:
                progress(count, len(missing))
    return {task.family.name: done[task.family.name] for task in tasks}


class Ordered(Protocol):
    """What the worker can be asked to do."""

    def order(self) -> dict[str, Any]:
        """Write the task as the worker reads it."""


@dataclass(frozen=True, kw_only=True)
class _Task:
    """One family at one shape: what to measure and where it is kept.

    The interface depends on the channels alone, so it is kept apart from the proof at a shape.
    """

    family: Family
    shape: Shape
    classes: int

    def kept(self) -> Profile | None:
        proof = _load(self._file(str(self.shape)))
        try:
            return None if proof is None else self._profile(proof)
        except (KeyError, TypeError):
            return None

    def keep(self, answer: Mapping[str, Any]) -> Profile:
        interface = self._file(str(self.shape.channels))
        if answer["interface"] is not None:
            _store(interface, answer["interface"])
        else:  # a limit of time or memory says nothing against what is known
            answer = {**answer, "interface": _load(interface)}
        if answer["lasting"]:
            proof = {key: answer[key] for key in ("interface", "reason", "parameters")}
            _store(self._file(str(self.shape)), proof)
        return self._profile(answer)

    def order(self) -> dict[str, Any]:
        return {
            "name": self.family.name,
            "source": self.family.source,
            "hyperparameters": best_hyperparameters(self.family),
            "classes": self.classes,
            "shape": [self.shape.channels, self.shape.height, self.shape.width],
            "interface": _load(self._file(str(self.shape.channels))),
        }

    def _profile(self, found: Mapping[str, Any]) -> Profile:
        interface, parameters = found["interface"], found["parameters"]
        return Profile(
            name=self.family.name,
            fingerprint=self.family.fingerprint,
            interface=None if interface is None else Interface(**interface),
            reason=found["reason"],
            parameters={} if parameters is None else {str(self.shape): parameters},
        )

    def _file(self, what: str) -> Path:
        torch = ".".join(version("torch").split(".")[:2])
        hyperparameters = json.dumps(best_hyperparameters(self.family))
        key = (_VERSION, torch, self.family.fingerprint, hyperparameters, self.classes, what)
        return cache_dir() / "probes" / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:40]}.json"


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


def default_jobs() -> int:
    """As many families at a time as there are CPUs, at most 8."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, 8)


def run_tasks(tasks: Mapping[str, Ordered], jobs: int) -> Iterator[dict[str, Any]]:
    """Run the worker and yield its answers as they come.

    Raises:
        LemurError: If the measuring process itself fails.
    """
    with tempfile.TemporaryDirectory(prefix="nngen-probe-") as folder, _worker(folder) as (worker, said):
        order = {
            "folder": folder,
            "jobs": jobs,
            "wall_s": WALL_S,
            "memory_mib": MEMORY_MIB,
            "tasks": [task.order() for task in tasks.values()],
        }
        assert worker.stdin is not None and worker.stdout is not None
        with suppress(BrokenPipeError):  # it died: the missing answers tell
            json.dump(order, worker.stdin)
            worker.stdin.close()
        answered = 0
        for line in worker.stdout:
            answered += 1
            yield json.loads(line)
        if worker.wait() != 0 or answered < len(tasks):
            raise LemurError(f"the probe's process ended early (exit {worker.returncode}): {_last_line(said)}")


def _last_line(said: IO[str]) -> str:
    said.seek(0)
    lines = said.read().strip().splitlines()
    return lines[-1][:200] if lines else "it said nothing"


@contextmanager
def _worker(folder: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """Start the worker in a process group of its own, and leave nothing of it behind."""
    # Two families look for a GPU themselves, whatever device they are given: there is none to find.
    hidden = {
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with tempfile.TemporaryFile("w+") as said:
        worker = subprocess.Popen(
            [sys.executable, "-m", "nngen.families.probe_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env={**os.environ, **hidden, "TMPDIR": folder},
            start_new_session=True,
        )
        try:
            yield worker, said
        finally:
            with suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()
