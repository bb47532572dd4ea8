"""The machine of a trial: choice of its device, a description to store, and the energy that a card counts."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from nngen import __version__
from nngen.errors import UsageError
from nngen.training.cards import visible_cards

_NODES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
"""Device files of graphics cards: NVIDIA's, NVIDIA's under WSL, AMD's. Without one of them torch need not be loaded."""

_JOULE_PER_COUNT = 1e-3


def pick_device(wanted: str = "auto", *, here: bool = True) -> str:
    """Return ``cpu`` or ``cuda``: the one wanted, or for ``auto`` CUDA where this machine has a card.

    Raises:
        UsageError: If the name is unknown, or CUDA was asked for and no card is found.
    """
    if wanted not in ("auto", "cpu", "cuda"):
        raise UsageError(f"unknown device {wanted!r}: choose auto, cpu or cuda")
    if wanted == "cpu":
        return "cpu"
    if (wanted == "cuda" and not here) or _cuda_works():
        return "cuda"
    if wanted == "cuda":
        raise UsageError("torch finds no CUDA device here: use --device cpu or auto")
    return "cpu"


def has_card() -> bool:
    """Return whether the system has a graphics card, whatever torch can do with it."""
    return any(Path(node).exists() for node in _NODES)


def _cuda_works() -> bool:
    if not has_card():
        return False
    import torch

    return torch.cuda.is_available()


def describe(versions: Mapping[str, str], *, device: str, threads: int) -> dict[str, str]:
    """Describe the machine and the software; ``device`` is ``cpu`` or the name of the graphics card."""
    return {
        "nngen": __version__,
        **versions,
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": str(os.cpu_count()),
        "device": device,
        "threads": str(threads),
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@dataclass(slots=True)
class Energy:
    """Energy of a block in joules; None while it runs, and where no device counts it."""

    joules: float | None = None


@contextmanager
def energy_meter(device: str, card: str = "") -> Iterator[Energy]:
    """Measure the energy of the block on a card, by its ``Card.visible`` or the first one, by NVML's counter.

    It needs ``nvidia-ml-py`` and a card of Volta's generation or later. The counter belongs to the card: trainings that
    share a card at the same time each get the energy of all of them.
    """
    energy = Energy()
    with ExitStack() as stack:
        count = _counter(stack, card) if device == "cuda" else lambda: None
        before = count()
        try:
            yield energy
        finally:
            after = count()
            if before is not None and after is not None:
                energy.joules = (after - before) * _JOULE_PER_COUNT


def _counter(stack: ExitStack, card: str) -> Callable[[], int | None]:
    """Open NVML until the stack is closed; return a reader of the counter of a card, or CUDA's first one."""
    try:
        nvml: Any = import_module("pynvml")
    except ImportError:
        return lambda: None
    # NVML counts all cards of the machine; CUDA's first is the first that this variable names.
    first = card or visible_cards(1)[0]
    try:
        nvml.nvmlInit()
        stack.callback(nvml.nvmlShutdown)
        found = nvml.nvmlDeviceGetHandleByIndex if first.isdigit() else nvml.nvmlDeviceGetHandleByUUID
        handle = found(int(first) if first.isdigit() else first)
    except nvml.NVMLError:
        return lambda: None

    def read() -> int | None:
        with suppress(nvml.NVMLError):
            return int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        return None

    return read
