"""Entry points of the worker: the rules of a check, and the epochs of a training.

The process has the train split with its labels, and of the other splits the images alone. It sends predictions; their
accuracy is computed in the process that launched it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from nngen.checks.context import CheckContext
from nngen.checks.dynamic import dynamic_check
from nngen.checks.guard import guard
from nngen.checks.rule import CheckFailed
from nngen.checks.static import static_check
from nngen.datasets.stored_images import StoredImages
from nngen.isolation import Channel, JsonObject
from nngen.isolation.job import SOURCE_FILE
from nngen.training.engine import TRAINING
from nngen.training.frames import IMPORTED, NONCE, FrameKind, last_line
from nngen.training.orders import CheckOrder, TrainOrder
from nngen.training.state.net_state import load_weights
from nngen.training.state.tensor_file import TensorFile
from nngen.training.worker import evaluation
from nngen.training.worker.epochs import train_epochs
from nngen.training.worker.images import fitting, preparation
from nngen.training.worker.network import build
from nngen.training.worker.numerics import configure, precision
from nngen.types import Outcome


def check(arguments: JsonObject, channel: Channel, files: list[int]) -> None:
    """Check the source in the current folder by the ``CheckOrder`` in ``arguments``, and send the verdict.

    Args:
        arguments: The order, as JSON.
        channel: Channel for the frames that ``CheckScorer`` expects.
        files: A pipe; the question comes through it once the candidate is imported.
    """
    order = CheckOrder.from_json(arguments)
    configure(order.device, order.threads, seed=0)
    path = Path.cwd() / SOURCE_FILE
    with _failures_sent(channel, path):
        verdict = static_check(path.read_text(encoding="utf-8"))
        if verdict.valid:
            with precision(order.device):
                verdict = dynamic_check(
                    path,
                    shape=order.shape,
                    classes=order.classes,
                    hyperparameters=order.hyperparameters,
                    device=order.device,
                    imported=lambda: channel.send({"event": IMPORTED}),
                    ask=lambda: os.read(files[0], NONCE),
                    answer=lambda context: _answer(context, channel),
                )
        if not verdict.valid:
            raise CheckFailed(verdict)


def _answer(context: CheckContext, channel: Channel) -> None:
    """Send what the rules found on batches drawn by the question; it says that the candidate is valid."""
    assert context.drawn is not None
    outputs = context.drawn.float().cpu().numpy().astype("<f4").tobytes()
    channel.send_bytes(FrameKind.PROOF, b"".join([context.question, *context.digests, outputs]))


def train(arguments: JsonObject, channel: Channel, files: list[int]) -> None:
    """Train the source in the current folder by the ``TrainOrder`` in ``arguments``.

    Args:
        arguments: The order, as JSON.
        channel: Channel for the frames that ``TrialScorer`` expects: after each epoch a report and predictions.
        files: Descriptors of ``WORKER_FILES``; then those of weights to start from, of each expert's weights, and of
            a checkpoint to go on from, where there are such.
    """
    order = TrainOrder.from_json(arguments)
    configure(order.device, order.threads, order.seed)
    path = Path.cwd() / SOURCE_FILE
    with _failures_sent(channel, path):
        train_epochs(path, order, channel, files)


def predict(arguments: JsonObject, channel: Channel, files: list[int]) -> None:
    """Predict images with the source in the current folder, by the ``TrainOrder`` in ``arguments``.

    Args:
        arguments: The order that the net was trained by, as JSON, with the files that are asked for now.
        channel: Channel for these files and then one frame of logits, or the verdict on what failed.
        files: Descriptors of the images and of the weights.
    """
    order = TrainOrder.from_json(arguments)
    configure(order.device, order.threads, order.seed)
    path = Path.cwd() / SOURCE_FILE
    images, weights = files
    with _failures_sent(channel, path), os.fdopen(weights, "rb") as file:
        net = build(path, order, channel)
        with guard(TRAINING, Outcome.CRASHED, path, "the weights were loaded"):
            load_weights(net, TensorFile(file), order.shape)
        outputs: list[Tensor] = []
        (shown,) = fitting([StoredImages(images, torch.device(order.device))], order)
        prepare = preparation(order)
        evaluation.predict(net, path, order, shown, prepare, outputs)
        evaluation.send_files(net, order, shown, prepare, channel)
        channel.send_bytes(FrameKind.OUTPUTS, torch.cat(outputs).numpy().astype("<f4").tobytes())


def describe_cards(_arguments: JsonObject, channel: Channel, _files: list[int]) -> None:
    """Send name and memory in MiB of each graphics card."""
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        channel.send({"name": properties.name, "mib": properties.total_memory / 2**20})


@contextmanager
def _failures_sent(channel: Channel, path: Path) -> Iterator[None]:
    """Send the verdict of a check that fails in the block."""
    # Read first: the candidate may remove its file.
    last = last_line(path.read_text(encoding="utf-8", errors="replace"))
    try:
        yield
    except CheckFailed as failure:
        # A traceback may name any line, where the candidate renamed its code.
        line = failure.verdict.line
        line = line if line is not None and 1 <= line <= last else None
        channel.send({"event": "verdict", **asdict(replace(failure.verdict, line=line))})
