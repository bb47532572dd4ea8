"""What a trial ran on: kept with it, so that it can be repeated."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path

from nngen import __version__

__all__ = ["describe"]


def describe(versions: Mapping[str, str], *, device: str, threads: int) -> dict[str, str]:
    """Describe the machine and the software.

    Args:
        versions: Of Python, torch, ..., as the worker has them.
        device: ``cpu``, or the name of the card.
        threads: CPU threads of the worker.
    """
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
