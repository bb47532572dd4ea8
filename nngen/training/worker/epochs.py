"""Epochs of a training: steps of the net, then predictions, a report and a checkpoint after each."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nngen.checks.candidate_net import set_mode
from nngen.checks.guard import guard
from nngen.checks.rule import fail
from nngen.datasets.array_files import WORKER_FILES
from nngen.datasets.batches import Batches
from nngen.isolation import Channel
from nngen.seeds import derive
from nngen.training.engine import TRAINING
from nngen.training.frames import FrameKind
from nngen.training.orders import TrainOrder
from nngen.training.state.artifacts import send_tensors
from nngen.training.state.checkpoints import CHECKPOINT, LOGITS
from nngen.training.worker.checkpoint_sender import CheckpointSender
from nngen.training.worker.evaluation import half, predict, send_files
from nngen.training.worker.images import open_images, preparation
from nngen.training.worker.network import build
from nngen.training.worker.numerics import precision
from nngen.types import Outcome

_MAX_EXPERTS = 64  # shares of usage that are sent at most
_MOST_LOGITS = 2**25  # number of validation logits up to which they are kept in a file


def train_epochs(path: Path, order: TrainOrder, channel: Channel, files: list[int]) -> None:
    """Train the net of a file, and send a report, predictions and files after the epochs and at the end.

    Args:
        path: File of the candidate.
        order: Settings of the training.
        channel: Channel for the frames.
        files: Descriptors in the order of the entry point ``train``.

    Raises:
        CheckFailed: If the candidate fails.
    """
    labels, images = open_images(files, order)
    prepare = preparation(order)
    more = files[len(WORKER_FILES) :]
    start = more.pop(0) if order.start else None
    checkpoint = more[-1] if order.done else None
    net = build(path, order, channel, start=start, experts=more[: order.experts], checkpoint=checkpoint)
    if vars(net).get("frozen") is True and not (order.start or order.experts):
        raise fail(
            Outcome.CONTRACT,
            TRAINING,
            "its experts are frozen and have no trained weights: nngen surrogate gates --train hands them over, and"
            " nngen train --from goes on from the weights of a mixture",
        )
    checkpoints = CheckpointSender(channel, CHECKPOINT in order.artifacts)
    # Until here memory is filled, so that a net that forgets to initialise a weight gives the same result in every
    # run; filling each intermediate result of a training would only cost time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    for epoch in range(order.done + 1, order.epochs + 1):
        batches = Batches(
            images["train-images"],
            labels,
            prepare,
            batch=order.batch,
            seed=derive(order.seed, "order", epoch),
            augment=order.augment,
            weights=order.class_weights,
            on_batch=lambda step: _refuse_non_finite(net, step),
        )
        returned = _learn(net, batches, path, order.device)
        channel.send({"event": "epoch", "samples": batches.samples, **_reported(returned), **_history(net)})
        last = epoch == order.epochs
        wanted = last and (order.logits or LOGITS in order.artifacts)
        outputs: list[Tensor] | None = [] if wanted else None
        classes = predict(net, path, order, images["validation-images"], prepare, outputs)
        channel.send_bytes(FrameKind.VALIDATION, classes)
        if outputs and order.logits:
            channel.send_bytes(FrameKind.LOGITS, half(outputs).numpy().astype("<f2").tobytes())
        if outputs and LOGITS in order.artifacts and sum(map(Tensor.numel, outputs)) <= _MOST_LOGITS:
            send_tensors(channel, LOGITS, {"validation": half(outputs)})
        if not last or order.goes_on:
            checkpoints.send(net, needed=last)
    classes = predict(net, path, order, images["test-images"], prepare)
    send_files(net, order, images["test-images"], prepare, channel)
    channel.send_bytes(FrameKind.TEST, classes)


def _learn(net: nn.Module, batches: Batches, path: Path, device: str) -> object:
    set_mode(net, path, training=True)
    with guard(TRAINING, Outcome.CRASHED, path, "learn(train_data) ran"), precision(device):
        return net.learn(batches)  # type: ignore[operator]


@torch.no_grad()
def _refuse_non_finite(net: nn.Module, step: int) -> None:
    """End a training whose loss was not finite: after the step its weights are not finite either.

    Raises:
        CheckFailed: If a weight is not a finite number.
    """
    weights = [weight.detach() for weight in net.parameters() if weight.is_floating_point() or weight.is_complex()]
    if weights and not bool(torch.isfinite(torch.stack([norm.float() for norm in torch._foreach_norm(weights)])).all()):
        message = f"weights are not finite after step {step} of an epoch: lower --lr, or clip the gradient"
        raise fail(Outcome.NON_FINITE, TRAINING, message)


def _reported(returned: object) -> dict[str, float | None]:
    """Read ``(train_accuracy, train_loss)`` where ``learn`` returned it, which LEMUR's older files do not."""
    pair = returned if isinstance(returned, tuple) and len(returned) == 2 else (None, None)
    return {"train_accuracy": _number(pair[0]), "train_loss": _number(pair[1])}


def _history(net: nn.Module) -> dict[str, Any]:
    """Read the gate's diagnostics of the last epoch where a mixture keeps them."""
    try:
        last: Any = net.history[-1]  # type: ignore[index]
        usage = [_number(share) for share in last["usage"]][:_MAX_EXPERTS]
        return {"usage": usage, "entropy": _number(last["entropy"])}
    except Exception:  # the attribute is the candidate's own and may be anything
        return {}


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except Exception:  # the candidate's own value, whose conversion may do anything
        return None
    return number if math.isfinite(number) else None
