"""Evaluation of a net: predictions of images, their logits, and the files that a trained net hands over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nngen.checks.candidate_net import logits, set_mode
from nngen.checks.guard import guard
from nngen.checks.rule import fail
from nngen.datasets.batches import Preparation
from nngen.datasets.stored_images import StoredImages
from nngen.isolation import Channel
from nngen.seeds import derive
from nngen.training.engine import TRAINING
from nngen.training.orders import EVAL_FACTOR, TrainOrder
from nngen.training.state.artifacts import send_artifacts
from nngen.training.worker.images import in_order
from nngen.training.worker.numerics import own_draws, precision
from nngen.types import Outcome

_EXAMPLES = 4  # images of the example of a graph
_HALF_MAX = 65_504.0  # largest float16


@torch.no_grad()
def predict(
    net: nn.Module,
    path: Path,
    order: TrainOrder,
    images: Tensor | StoredImages,
    prepare: Preparation,
    outputs_kept: list[Tensor] | None = None,
) -> bytes:
    """Return the class of each image as little-endian uint16; the logits are added to a list.

    Raises:
        CheckFailed: If the net fails, or a logit is not a finite number.
    """
    # Without a backward pass more images fit than in training.
    size = order.batch * EVAL_FACTOR
    classes: list[npt.NDArray[Any]] = []
    with own_draws(derive(order.seed, "evaluation")):
        set_mode(net, path, training=False)
        for part in in_order(images, size):
            with precision(order.device):
                outputs = logits(net, prepare(part), path, classes=order.classes)
            with guard(TRAINING, Outcome.CRASHED, path, "predictions were made"):
                finite = bool(torch.isfinite(outputs).all())
                classes.append(outputs.argmax(1).cpu().numpy().astype("<u2"))
            if outputs_kept is not None:
                outputs_kept.append(outputs.float().cpu())
            if not finite:
                raise fail(Outcome.NON_FINITE, TRAINING, "predictions are not finite: lower --lr, or clip the gradient")
    return np.concatenate(classes).tobytes()


def half(outputs: list[Tensor]) -> Tensor:
    """Join logits as float16."""
    return torch.cat(outputs).clamp(-_HALF_MAX, _HALF_MAX).half()


def send_files(
    net: nn.Module, order: TrainOrder, images: Tensor | StoredImages, prepare: Preparation, channel: Channel
) -> None:
    """Send the files that the order asks for; the first images are the example of a graph."""
    if order.artifacts:
        example = prepare(next(in_order(images, _EXAMPLES)))
        send_artifacts(net, order.artifacts, example, order.metadata, channel)
