"""Energy of a training where the device counts it: NVML's counter before and after.

The counter belongs to the card: trainings that share a card at the same time each get the energy of
all of them. It needs ``nvidia-ml-py`` and a card of Volta's generation or later.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any, Self

_JOULE_PER_COUNT = 1e-3


class EnergyMeter:
    """Measures the energy of a ``with`` block in joules; ``joules`` is None where no device counts it."""

    def __init__(self, device: str) -> None:
        self.joules: float | None = None
        self._device = device
        self._nvml: Any = None
        self._card: Any = None
        self._before: int | None = None

    def __enter__(self) -> Self:
        if self._device == "cuda":
            self._nvml, self._card = _open()
        self._before = self._count()
        return self

    def __exit__(self, *_: object) -> None:
        after = self._count()
        if after is not None and self._before is not None:
            self.joules = (after - self._before) * _JOULE_PER_COUNT
        if self._nvml is not None:
            self._nvml.nvmlShutdown()
            self._nvml = None

    def _count(self) -> int | None:
        if self._nvml is None:
            return None
        try:
            return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._card))
        except self._nvml.NVMLError:
            return None


def _open() -> tuple[Any, Any]:
    """Open NVML and the card that is CUDA's first; ``(None, None)`` where there is none."""
    try:
        pynvml = import_module("pynvml")
    except ImportError:
        return None, None
    # NVML counts all cards of the machine; CUDA's first is the first that this variable names.
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip() or "0"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None, None
    try:
        by_number = first.isdigit()
        card = pynvml.nvmlDeviceGetHandleByIndex(int(first)) if by_number else pynvml.nvmlDeviceGetHandleByUUID(first)
    except pynvml.NVMLError:
        pynvml.nvmlShutdown()
        return None, None
    return pynvml, card
