"""``forward`` returns ``(B, classes)`` in train and in eval mode, whatever the batch."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from nngen.checks.context import BATCH, CheckContext
from nngen.checks.guard import border
from nngen.checks.rule import Invalid, refuse
from nngen.checks.rules.sample_nets import net_source
from nngen.types import Outcome

__all__ = ["OutputShape", "logits"]


class OutputShape:
    """Refuses a net whose output is no tensor ``(B, classes)``; the second batch has another size."""

    name: ClassVar[str] = "shape"
    VALID: ClassVar[tuple[str, ...]] = (net_source(), net_source(forward="return self.head(x) * 2"))
    INVALID: ClassVar[tuple[Invalid, ...]] = (
        Invalid(source=net_source(forward="return self.head(x)[:, :-1]"), message="(4, 9)", outcome=Outcome.SHAPE),
        Invalid(source=net_source(forward="return [self.head(x)]"), message="list", outcome=Outcome.SHAPE),
        Invalid(
            source=net_source(forward="return self.head(x).view(4, 10)"),
            message="batch of 3",
            outcome=Outcome.SHAPE,
            line=28,
        ),
        Invalid(
            source=net_source(forward="return self.head(x) if self.training else self.head(x).T"),
            message="eval mode",
            outcome=Outcome.SHAPE,
        ),
        Invalid(
            source=net_source(forward="return self.head(x[:, :, 1:])"),
            message="RuntimeError: mat1 and mat2",
            outcome=Outcome.SHAPE,
            line=28,
        ),
    )

    def check(self, bench: CheckContext) -> None:
        assert bench.net is not None
        bench.net.train()
        bench.outputs = logits(bench.net, bench.images("train"), bench.path, classes=bench.classes)
        bench.net.eval()
        with torch.no_grad():
            logits(bench.net, bench.images("eval", BATCH - 1), bench.path, classes=bench.classes)


def logits(net: nn.Module, images: Tensor, path: Path, *, classes: int) -> Tensor:
    """Call the net on ``(B, C, H, W)`` images and return its output, ``(B, classes)``.

    Raises:
        CheckFailed: If ``forward`` raises, or returns anything else.
    """
    size = len(images)
    mode = "train" if net.training else "eval"
    with border(OutputShape.name, Outcome.SHAPE, path, f"forward ran in {mode} mode on a batch of {size}"):
        outputs = net(images)
        tensor = isinstance(outputs, Tensor)
        shape = tuple(int(side) for side in outputs.shape) if tensor else ()
    if not tensor:
        message = f"forward returned {type(outputs).__name__} in {mode} mode; return a tensor ({size}, {classes})"
        raise refuse(Outcome.SHAPE, OutputShape.name, message)
    if shape != (size, classes):
        message = f"forward returned {shape} in {mode} mode on a batch of {size}; return ({size}, {classes})"
        raise refuse(Outcome.SHAPE, OutputShape.name, message)
    assert isinstance(outputs, Tensor)
    return outputs
