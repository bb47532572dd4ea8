"""Energy of a training where the device counts it: NVML's counter before and after.

The counter belongs to the card: trainings that share a card at the same time each get the energy of
all of them. It needs ``nvidia-ml-py`` and a card of Volta's generation or later.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

_JOULE_PER_COUNT = 1e-3


@dataclass(slots=True)
class Energy:
    """Energy of a block in joules; None while it runs, and where no device counts it."""

    joules: float | None = None


@contextmanager
def energy_meter(device: str) -> Iterator[Energy]:
    """Measure the energy of the block on CUDA's first card."""
    energy = Energy()
    with ExitStack() as stack:
        count = _counter(stack) if device == "cuda" else lambda: None
        before = count()
        try:
            yield energy
        finally:
            after = count()
            if before is not None and after is not None:
                energy.joules = (after - before) * _JOULE_PER_COUNT


def _counter(stack: ExitStack) -> Callable[[], int | None]:
    """Open NVML until the stack is closed; return a reader of the counter of CUDA's first card."""
    try:
        nvml: Any = import_module("pynvml")
    except ImportError:
        return lambda: None
    # NVML counts all cards of the machine; CUDA's first is the first that this variable names.
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip() or "0"
    try:
        nvml.nvmlInit()
        stack.callback(nvml.nvmlShutdown)
        card = nvml.nvmlDeviceGetHandleByIndex(int(first)) if first.isdigit() else nvml.nvmlDeviceGetHandleByUUID(first)
    except nvml.NVMLError:
        return lambda: None

    def read() -> int | None:
        with suppress(nvml.NVMLError):
            return int(nvml.nvmlDeviceGetTotalEnergyConsumption(card))
        return None

    return read
