"""The probe's own process: loads torch once, then forks a child for each family.

Run as ``python -m nngen.families.probe_worker``. One JSON object comes on stdin:

    {"folder": ..., "jobs": ..., "wall_s": ..., "memory_mib": ..., "tasks": [
        {"name", "source", "hyperparameters", "classes", "shape": [C, H, W], "interface": {...} | null}]}

and one line of JSON goes out for each task, as it ends:

    {"name", "interface": {...} | null, "parameters": N | null, "reason": "", "lasting": true}

A task with ``"weigh": true`` is weighed instead of proven: its answer has ``"weight"`` as ``measure.weigh`` gives it.

``lasting`` is false for what another machine, or a quieter one, could do: time, memory, a crash.
"""

from __future__ import annotations

import json
import os
import resource
import selectors
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

from nngen.families.measure import Subject, Unfit, load_net, measure_interface, prove, weigh
from nngen.types import Interface, Shape

__all__ = ["main"]

_POLL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class _Child:
    task: dict[str, Any]
    pid: int
    pipe: int
    deadline: float


def main() -> None:
    """Probe every family that stdin names."""
    order = json.load(sys.stdin)
    # Families may print: stdout is kept for the answers, and children get none.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    torch.set_num_threads(1)
    import torchvision  # noqa: F401  # most families import it: once here, not once in each child

    waiting = list(reversed(order["tasks"]))
    children: dict[int, _Child] = {}
    parent = os.getppid()
    with selectors.DefaultSelector() as selector:
        while waiting or children:
            while waiting and len(children) < order["jobs"]:
                child = _fork(waiting.pop(), order)
                children[child.pipe] = child
                selector.register(child.pipe, selectors.EVENT_READ)
            ready = {key.fd for key, _ in selector.select(timeout=_POLL_S)}
            late = {pipe for pipe, child in children.items() if time.monotonic() > child.deadline}
            if os.getppid() != parent:
                ready, late, waiting = set(), set(children), []
            for pipe in ready | late:
                selector.unregister(pipe)
                answer = _collect(children.pop(pipe), order, late=pipe not in ready)
                answers.write(json.dumps(answer) + "\n")
                answers.flush()


def _fork(task: dict[str, Any], order: dict[str, Any]) -> _Child:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _child(task, order, write)
    os.close(write)
    return _Child(task=task, pid=pid, pipe=read, deadline=time.monotonic() + order["wall_s"])


def _child(task: dict[str, Any], order: dict[str, Any], write: int) -> NoReturn:
    """Probe one family and leave without the parent's clean-up."""
    try:
        _limit(order["memory_mib"])
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        answer = _probe(task, Path(order["folder"]))
    except MemoryError:
        answer = _failure(f"needs more than {order['memory_mib']:,} MiB{_at(task)}", lasting=False)
    # The border between LEMUR's code and ours: whatever comes up becomes a reason, never a hang;
    # a family that calls exit must not unwind into the parent's loop.
    except (Exception, SystemExit) as error:
        answer = _failure(f"the probe failed: {type(error).__name__}: {error}"[:200], lasting=False)
    with os.fdopen(write, "w") as pipe:
        pipe.write(json.dumps(answer))
    os._exit(0)


def _probe(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    file = folder / f"{task['name']}.py"
    file.write_text(task["source"])
    shape = Shape(*task["shape"])
    known = task["interface"]
    interface = None if known is None else Interface(**known)
    answer = _failure("", lasting=True)
    try:
        subject = Subject(
            net=load_net(file),
            hyperparameters=task["hyperparameters"],
            channels=shape.channels,
            classes=task["classes"],
        )
        interface = interface or measure_interface(subject)
        answer["interface"] = {name: getattr(interface, name) for name in interface.__slots__}
        if task.get("weigh"):
            answer["weight"] = weigh(subject, interface, shape)
            return answer
        answer["parameters"] = prove(subject, interface, shape)
    except Unfit as unfit:
        answer["reason"] = str(unfit)
    return answer


def _failure(reason: str, *, lasting: bool) -> dict[str, Any]:
    return {"interface": None, "parameters": None, "reason": reason, "lasting": lasting}


def _at(task: dict[str, Any]) -> str:
    return f" at {Shape(*task['shape'])}: choose a smaller shape"


def _limit(memory_mib: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    status = Path("/proc/self/status")
    if status.exists():
        # What torch itself holds is counted too: the limit is on what comes on top.
        held_kib = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmData"))
        limit = held_kib * 1024 + memory_mib * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _collect(child: _Child, order: dict[str, Any], *, late: bool) -> dict[str, Any]:
    if late:
        os.kill(child.pid, signal.SIGKILL)
        answer = _failure(f"took longer than {order['wall_s']:g} s{_at(child.task)}", lasting=False)
        os.close(child.pipe)
        os.waitpid(child.pid, 0)
    else:
        with os.fdopen(child.pipe) as pipe:
            said = pipe.read()
        _, status = os.waitpid(child.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        answer = json.loads(said) if said else _failure(f"its process died (exit {code})", lasting=False)
    return {"name": child.task["name"], **answer}


if __name__ == "__main__":
    main()
