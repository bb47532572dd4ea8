"""Which device there is, found without loading torch where there is none."""

from __future__ import annotations

from pathlib import Path

from nngen.errors import UsageError

__all__ = ["pick_device"]

_NODES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
"""What a card's driver puts there: NVIDIA's, the same under WSL, AMD's."""


def pick_device(wanted: str = "auto", *, here: bool = True) -> str:
    """Return ``cpu`` or ``cuda``.

    Args:
        wanted: ``auto`` takes CUDA where there is one.
        here: Whether work is done on this machine; where it is not, CUDA is taken at its word.

    Raises:
        UsageError: If the word is unknown, or CUDA was asked for and is not there.
    """
    if wanted not in ("auto", "cpu", "cuda"):
        raise UsageError(f"there is no device {wanted!r}: choose auto, cpu or cuda")
    if wanted == "cpu":
        return "cpu"
    if (wanted == "cuda" and not here) or _cuda_works():
        return "cuda"
    if wanted == "cuda":
        raise UsageError("torch finds no CUDA device here: take --device cpu, or auto")
    return "cpu"


def _cuda_works() -> bool:
    if not any(Path(node).exists() for node in _NODES):
        return False
    import torch

    return torch.cuda.is_available()
