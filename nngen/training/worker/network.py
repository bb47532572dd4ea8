"""Network of a training: built from its file, with the weights of other trainings or the state of a checkpoint.

Trainings and predictions build it in the same way, so that what its file draws at random is the same in both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import nn

from nngen.checks.candidate_net import build_net, load_module, set_up
from nngen.checks.card import contiguous_parts, use_channels_last
from nngen.checks.prm import make_prm
from nngen.checks.rule import fail
from nngen.isolation import Channel
from nngen.seeds import derive
from nngen.text import one_line
from nngen.training.engine import RESTORE, TRAINING
from nngen.training.orders import TrainOrder
from nngen.training.state.net_state import place_experts, restore, take_over
from nngen.training.state.net_values import StateMismatchError
from nngen.training.state.tensor_file import TensorFile
from nngen.training.worker import numerics
from nngen.types import Outcome, Shape

_TRIED = 2  # images that show which parts run in channels_last


def build(
    path: Path,
    order: TrainOrder,
    channel: Channel,
    *,
    start: int | None = None,
    experts: Sequence[int] = (),
    checkpoint: int | None = None,
) -> nn.Module:
    """Build the net and set it up, perhaps with the weights of other trainings, or restored from a checkpoint.

    The number of its parameters is sent when it is ready.

    Args:
        path: File of the candidate.
        order: Settings of the training.
        channel: Channel for that message.
        start: Descriptor of weights to start from.
        experts: Descriptors of the weights of each expert of a mixture.
        checkpoint: Descriptor of the state to go on from.

    Raises:
        CheckFailed: If the file or its net fails, or a file does not fit it.
    """
    device = torch.device(order.device)
    prm = make_prm(order.hyperparameters, shape=order.shape, augment=order.augment)
    module = load_module(path)

    def make() -> nn.Module:
        return build_net(module, path, shape=order.shape, classes=order.classes, prm=dict(prm), device=device)

    contiguous: tuple[str, ...] = ()
    if numerics.on_card(order.device):
        contiguous = _contiguous_parts(make, path, order)
        module = load_module(path)  # anew: a file may build its network only once
    # What the file seeds or draws when it is imported would be the same in every replicate.
    numerics.seed_generators(order.seed)
    with numerics.precision(order.device):
        net = make()
        if numerics.on_card(order.device):
            use_channels_last(net, contiguous)
        started = _take_weights(net, order.shape, start, experts)
        set_up(net, path, dict(prm))
    if torch.initial_seed() != derive(order.seed, "torch"):
        numerics.seed_generators(derive(order.seed, "training"))  # the file seeded torch when the net was built
    if checkpoint is not None:
        with os.fdopen(checkpoint, "rb") as file:
            try:
                stored = TensorFile(file)
                restore(net, stored, json.loads(stored.metadata["state"]))
            except (ValueError, LookupError, RecursionError, StateMismatchError) as error:
                raise fail(Outcome.CRASHED, RESTORE, f"its state cannot be restored: {error}") from None
    if order.compiled:
        _compile(net)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    channel.send({"event": "ready", "parameters": parameters, "started": started})
    return net


def _contiguous_parts(make: Callable[[], nn.Module], path: Path, order: TrainOrder) -> tuple[str, ...]:
    """Find the parts that do not run in channels_last, on a net that is built for this alone."""
    shape = order.shape
    # The search for the fastest algorithms would take longer than the rest, for images that never come again.
    with torch.backends.cudnn.flags(benchmark=False):
        net = make()
        images = torch.rand(_TRIED, shape.channels, shape.height, shape.width, device=order.device)
        return contiguous_parts(net, images, path, order.classes)


def _take_weights(net: nn.Module, shape: Shape, start: int | None, experts: Sequence[int]) -> str:
    """Give the net the weights of other trainings; return in words which."""
    started = ""
    if start is not None:
        with os.fdopen(start, "rb") as file:
            try:
                started = take_over(net, TensorFile(file))
            except (ValueError, RuntimeError) as error:
                raise fail(Outcome.CRASHED, TRAINING, f"the weights to start from: {error}") from None
    if experts:
        with ExitStack() as stack:
            opened = [stack.enter_context(os.fdopen(number, "rb")) for number in experts]
            try:
                place_experts(net, [TensorFile(file) for file in opened], shape)
            except (ValueError, RuntimeError) as error:
                message = f"the weights of the experts do not fit: {one_line(str(error))}"
                raise fail(Outcome.CRASHED, TRAINING, message) from None
        started = f"{len(experts)} experts trained alone"
    return started


def _compile(net: nn.Module) -> None:
    """Compile each expert of a mixture, which calls them itself, or a net that is not a mixture."""
    import torch._inductor.config

    # Precompiled headers are larger than the limit on the size of files (``RLIMIT_FSIZE``).
    torch._inductor.config.cpp_cache_precompile_headers = False
    experts = getattr(net, "experts", None)
    for part in experts if isinstance(experts, nn.ModuleList) else [net]:
        part.compile()
