"""The memory format channels_last, in which nets run on a graphics card.

In channels_last the channels of a pixel are adjacent in memory, which is the fastest format for convolutions on a card.
Some nets do not run in it, such as those that call ``view`` on a feature map. They keep contiguous weights and inputs;
in a mixture each expert is treated by itself.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nngen.checks.candidate_net import logits, set_mode
from nngen.checks.guard import guard
from nngen.checks.rule import CheckFailed
from nngen.types import Outcome

WHOLE = ""
"""Name of the net itself among its parts, as in ``nn.Module.get_submodule``."""

_NEAR = 0.02
"""Largest accepted difference between logits in the two formats, relative to the largest logit (rounding, TF32)."""


def takes_channels_last(net: nn.Module, images: Tensor, path: Path, classes: int) -> bool:
    """Return whether a net gives the same logits in channels_last as in contiguous format, and trains in it.

    The net is not used afterwards: it keeps gradients and statistics of this trial. The batch has two images at least.

    Raises:
        CheckFailed: If the net fails in contiguous format, or memory does not suffice.
    """
    expected = _evaluate(net, images, path, classes)
    _format(net)
    images = images.contiguous(memory_format=torch.channels_last)
    try:
        found = _evaluate(net, images, path, classes)
        set_mode(net, path, training=True)
        outputs = logits(net, images, path, classes=classes, auxiliary=True)
        with guard("card", Outcome.CRASHED, path, "the backward pass ran in channels_last"):
            loss = F.cross_entropy(outputs, torch.arange(len(outputs), device=outputs.device) % classes)
            torch.autograd.backward(loss)
    except CheckFailed as failure:
        if failure.verdict.outcome is Outcome.MEMORY:
            raise
        return False
    return bool((found - expected).abs().max() <= _NEAR * expected.abs().max())


def _evaluate(net: nn.Module, images: Tensor, path: Path, classes: int) -> Tensor:
    torch.manual_seed(0)  # some nets draw in evaluation too
    set_mode(net, path, training=False)
    with torch.no_grad():
        return logits(net, images, path, classes=classes, auxiliary=True)


def contiguous_parts(net: nn.Module, images: Tensor, path: Path, classes: int) -> tuple[str, ...]:
    """Return the names of the parts that do not take channels_last: experts of a mixture, or ``WHOLE``.

    Arguments and errors are those of ``takes_channels_last``.
    """
    experts, adapters = getattr(net, "experts", None), getattr(net, "adapters", None)
    if not isinstance(experts, nn.ModuleList) or not isinstance(adapters, nn.ModuleList):
        return () if takes_channels_last(net, images, path, classes) else (WHOLE,)
    found = []
    for place, (expert, adapter) in enumerate(zip(experts, adapters, strict=False)):
        with guard("card", Outcome.CRASHED, path, f"the adapter of expert {place} ran"):
            adapted = adapter(images)
        if not takes_channels_last(expert, adapted, path, classes):
            found.append(f"experts.{place}")
    return tuple(found)


def use_channels_last(net: nn.Module, contiguous: Collection[str] = ()) -> None:
    """Give a net's weights the format channels_last; ``contiguous`` names the parts that keep weights and inputs."""
    _format(net)
    for name in contiguous:
        part = net.get_submodule(name)
        nn.Module.to(part, memory_format=torch.contiguous_format)
        part.register_forward_pre_hook(_contiguous_inputs)


def _format(net: nn.Module) -> None:
    # By hand: a net may have a method to(device) of its own, and nn.Module.to refuses one with a weight of five axes.
    for tensor in chain(net.parameters(), net.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)


def _contiguous_inputs(_part: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.contiguous() if isinstance(value, Tensor) else value for value in inputs)
