"""Every seed is derived by hashing, so that no draw depends on the order of work."""

from __future__ import annotations

import hashlib


def derive(run_seed: int, *path: str | int) -> int:
    """Derive a seed from the run's seed and the place where it is used.

    Args:
        run_seed: What the user typed as ``--seed``.
        path: The stage, the candidate's id, the epoch, ... in order.

    Returns:
        An integer in [0, 2**32), the same on every machine.
    """
    text = "\x1f".join(str(part) for part in (run_seed, *path))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
