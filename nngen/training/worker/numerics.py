"""Numerical settings of a worker's process: threads, seeds, arithmetic and precision.

Its entry points set them once (``configure``); nets are called with ``precision``, and evaluations have ``own_draws``.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from nngen.seeds import derive


def configure(device: str, threads: int, seed: int) -> None:
    """Set threads, seeds and the arithmetic of this process."""
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    seed_generators(seed)
    if device == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
    else:
        # On a card speed comes before the last digit: TF32, and the fastest algorithm of each convolution.
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True


def seed_generators(seed: int) -> None:
    """Seed every generator that a candidate's code draws from."""
    random.seed(derive(seed, "python"))
    np.random.seed(derive(seed, "numpy"))
    torch.manual_seed(derive(seed, "torch"))


@contextmanager
def own_draws(seed: int) -> Iterator[None]:
    """Draw from other generators in the block: the same numbers in each evaluation, and none of those of training."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        seed_generators(seed)
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])


def on_card(device: str) -> bool:
    """Whether nets run in bfloat16 and channels_last; a rehearsal on the CPU replaces this function."""
    return device != "cpu"


def precision(device: str) -> AbstractContextManager[Any]:
    """Return the context in which nets are called: bfloat16 autocast on a card, nothing on the CPU."""
    # Without its cache: it keeps the weights as they were first cast until it ends, here with the epoch, so that every
    # step but the first would be computed with the weights of the epoch's beginning.
    return torch.autocast(device, torch.bfloat16, cache_enabled=False) if on_card(device) else nullcontext()
