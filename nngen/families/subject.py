"""A family that a worker has imported: builds its network as a mixture does, and runs it behind its adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nngen.checks.candidate_net import logits
from nngen.checks.guard import guard
from nngen.checks.prm import LEMUR_BATCH
from nngen.types import Adapter, Outcome, Shape

BATCH = 2
"""Images per try; the family itself is built for one (docs/design/0002-in-shape-batch.md)."""

RULE = "probe"
"""The rule that verdicts on a family name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyUnderTest:
    """A family that has been imported."""

    path: Path  # its file, whose lines verdicts name
    net: Callable[..., nn.Module]  # its class ``Net``, or a function with the same arguments
    hyperparameters: Mapping[str, Any]  # values for the names that it supports
    channels: int  # channels of the images
    classes: int  # length of the logits

    def build(self, height: int, width: int, device: str = "cpu") -> nn.Module:
        """Build the network with the ``prm`` of a mixture's expert: the trial's values, then its own."""
        prm = {"batch": BATCH, "epoch": 1, "transform": f"norm_{height}", **self.hyperparameters}
        in_shape = (LEMUR_BATCH, self.channels, height, width)
        with guard(RULE, Outcome.CRASHED, self.path, f"Net was built for {height}x{width}"):
            net = self.net(in_shape, (self.classes,), prm, torch.device(device))
        return net  # noqa: RET504 - mypy cannot tell that the block raises or ends

    def logits(self, net: nn.Module, images: Tensor) -> Tensor:
        """Run the network; of a tuple, the first entry holds the logits."""
        return logits(net, images, self.path, classes=self.classes, auxiliary=True)

    def backward(self, outputs: Tensor) -> None:
        """Run the backward pass of a loss."""
        with guard(RULE, Outcome.CRASHED, self.path, "the backward pass ran"):
            torch.autograd.backward(F.cross_entropy(outputs, torch.arange(len(outputs)) % self.classes))


def adapted(images: Tensor, adapter: Adapter) -> Tensor:
    """Bring images, ``(B, C, H, W)``, to the size and type that the adapter states."""
    if adapter.size is not None:
        images = F.interpolate(images, size=adapter.size, mode="bilinear", align_corners=False)
    return images.to(torch.complex64) if adapter.complex else images


def adapted_sides(adapter: Adapter, shape: Shape) -> tuple[int, int]:
    """Return height and width of the images behind the adapter."""
    return adapter.size or (shape.height, shape.width)
