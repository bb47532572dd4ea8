"""Scores of networks before any training and without data: SWAP, synflow, and the norm of the gradient.

Images are standard normal noise and labels are drawn at random, by one seed. ``measure`` runs in a worker, in which
families run, so this module imports nothing that a sandbox lacks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nngen.checks.candidate_net import build_net, load_module
from nngen.checks.prm import make_prm
from nngen.checks.rule import CheckFailed
from nngen.isolation import Channel, JsonObject
from nngen.isolation.job import SOURCE_FILE
from nngen.text import one_line
from nngen.types import Shape

_IMAGES = 32

_ACTIVATIONS = {
    getattr(torch.ops.aten, name).default
    for name in ("relu", "leaky_relu", "hardtanh", "elu", "silu", "gelu", "mish", "hardswish")
} | {getattr(torch.ops.aten, name).default for name in ("relu_", "leaky_relu_", "hardtanh_", "elu_", "silu_", "gelu_")}
"""Activations whose sign is that of their input, as torch calls them."""


class _Patterns(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects, for each activation of a forward pass, the samples for which it is positive, as the bits of a number.

    Attributes:
        found: Numbers that occurred.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _ACTIVATIONS and not result.is_complex():
            bits = (result.flatten(1) > 0).long()  # (N, V)
            codes = (bits << torch.arange(len(bits))[:, None]).sum(0)
            self.found.update(codes.unique().tolist())
        return result


@torch.no_grad()
def swap(net: nn.Module, images: Tensor) -> int:
    """Count the distinct patterns of activations over samples (SWAP-Score; Peng et al. 2024, 2403.04161).

    Args:
        net: The network.
        images: Samples, ``(N, C, H, W)``, at most 63.
    """
    net.eval()
    with _Patterns() as patterns:
        net(images)
    return len(patterns.found)


def gradient_norm(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the Euclidean norm of the gradient of the cross-entropy (Abdelfattah et al. 2021, 2101.08134)."""
    net.train()
    net.zero_grad()
    F.cross_entropy(_logits(net(images)), labels).backward()  # type: ignore[no-untyped-call]
    squares = [
        parameter.grad.abs().double().square().sum() for parameter in net.parameters() if parameter.grad is not None
    ]
    return math.sqrt(float(torch.stack(squares).sum()))


def synflow(net: nn.Module, shape: tuple[int, ...]) -> float:
    """Return the logarithm to base 10 of the synaptic flow (Tanaka et al. 2020, 2006.05467).

    ``sum(theta * dR / dtheta)``, where ``R`` is the sum of the outputs for an image of ones and the weights ``theta``
    are their absolute values. The network is changed; its normalisations stay as in prediction.

    Args:
        net: The network.
        shape: Shape of an image, without the batch.
    """
    net.eval()
    net.double()  # the flow of a deep network is beyond the range of float32
    net.zero_grad()
    with torch.no_grad():
        for value in net.state_dict().values():
            if value.is_floating_point() or value.is_complex():
                value.copy_(value.abs())
    output = net(torch.ones(1, *shape, dtype=torch.float64))
    _logits(output).sum().backward()  # type: ignore[no-untyped-call]
    flows = [
        (parameter.detach() * parameter.grad).abs().sum()
        for parameter in net.parameters()
        if parameter.grad is not None
    ]
    return float(torch.stack(flows).sum().log10())


def _logits(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    logits = output[0] if isinstance(output, tuple) else output
    return logits.abs() if logits.is_complex() else logits


def measure(arguments: JsonObject, channel: Channel, _files: list[int]) -> None:
    """Send the scores of the family in the current folder's file, a plan of kind ``single``; a worker's entry point.

    Args:
        arguments: ``shape``, ``classes`` and ``hyperparameters``.
        channel: Channel for one message, ``UNTRAINED`` by name; without what cannot be computed, with the reason.
    """
    shape, classes = Shape.parse(arguments["shape"]), int(arguments["classes"])
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images = torch.randn(_IMAGES, shape.channels, shape.height, shape.width)
    labels = torch.randint(classes, (_IMAGES,))
    path = Path.cwd() / SOURCE_FILE
    found: dict[str, Any] = {}
    try:
        prm = make_prm(arguments["hyperparameters"], shape=shape)
        net = build_net(load_module(path), path, shape=shape, classes=classes, prm=prm, device=torch.device("cpu"))
        expert, adapted = net.expert, net.adapter(images)  # type: ignore[operator]
        own = tuple(adapted.shape[1:])
        steps: dict[str, Callable[[], float]] = {
            "swap": lambda: swap(expert, adapted),  # type: ignore[arg-type]
            "gradient_norm": lambda: gradient_norm(expert, adapted, labels),  # type: ignore[arg-type]
            "synflow": lambda: synflow(expert, own),  # type: ignore[arg-type]
        }
        for name, step in steps.items():
            try:
                value = float(step())
                found[name] = value if math.isfinite(value) else None
            except Exception as error:  # the family's code may raise anything
                found[f"{name} failed"] = one_line(f"{type(error).__name__}: {error}", 200)
    except CheckFailed as failure:
        found["failed"] = failure.verdict.message
    channel.send(found)
