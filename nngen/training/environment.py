"""Choice of the device, and the description of the machine that is stored with each trial."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path

from nngen import __version__
from nngen.errors import UsageError

_NODES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
"""Device files of graphics cards: NVIDIA's, NVIDIA's under WSL, AMD's. Without one of them torch need not be loaded."""


def pick_device(wanted: str = "auto", *, here: bool = True) -> str:
    """Return ``cpu`` or ``cuda``.

    Args:
        wanted: ``cpu``, ``cuda``, or ``auto`` for CUDA where there is a card.
        here: Whether the work is done on this machine; where it is not, CUDA is not looked for.

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


def _cuda_works() -> bool:
    if not any(Path(node).exists() for node in _NODES):
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
