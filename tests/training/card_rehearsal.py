"""A graphics card rehearsed on the CPU: memory format channels_last, bfloat16 autocast, fake CUDA tensors."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from nngen.checks.candidate_net import build_net, load_module, logits
from nngen.checks.card import contiguous_parts, use_channels_last
from nngen.checks.prm import make_prm
from nngen.checks.rule import CheckFailed
from nngen.datasets.array_files import WORKER_FILES
from nngen.families.hyperparameters import best_hyperparameters
from nngen.training import TrainJob
from nngen.training.frames import FrameKind
from nngen.training.orders import TrainOrder
from nngen.training.worker import numerics
from nngen.training.worker.epochs import train_epochs
from nngen.types import Family, Interface, Shape

PASSES = "passes"
SIZES = {"AlexNet": 63, "InceptionV3-1": 75, "InceptionV3-2": 299}
"""Smallest sides of the families of LEMUR that do not take 32 px, as the probe measures them."""

CLASSES = 10


@dataclass
class Sent:
    """Channel of a worker that keeps what was sent."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    bodies: dict[int, bytes] = field(default_factory=dict)

    def send(self, message: dict[str, Any]) -> None:
        self.messages.append(message)

    def send_bytes(self, kind: int, body: bytes) -> None:
        self.bodies[kind] = body


def interface_of(name: str) -> Interface:
    """Return what a family of LEMUR takes, as far as it matters at 32 px, without the probe."""
    high = 32 if name.startswith("BayesianNet") else None
    return Interface(low=SIZES.get(name, 32), high=high, complex=name == "ComplexNet")


@contextmanager
def card_settings() -> Iterator[None]:
    """Let the worker's functions treat the CPU as a card: bfloat16 and channels_last."""
    filled = torch.utils.deterministic.fill_uninitialized_memory
    with mock.patch.object(numerics, "on_card", lambda _: True):
        yield
    torch.utils.deterministic.fill_uninitialized_memory = filled


def train_with_card_settings(job: TrainJob, images: int, folder: Path, *, half: bool = True) -> Sent:
    """Train in this process as the worker does on a card, on the first images of each split; not ``half`` as on a CPU.

    Raises:
        CheckFailed: If the candidate fails.
    """
    path = folder / "candidate.py"
    path.write_text(job.candidate.source)
    arrays = {part: getattr(job.dataset, part.replace("-", "_"))[:images] for part in WORKER_FILES}
    for part, array in arrays.items():
        np.save(folder / f"{part}.npy", array)
    files = [os.open(folder / f"{part}.npy", os.O_RDONLY) for part in WORKER_FILES]
    sent = Sent()
    with card_settings() if half else mock.patch.object(numerics, "on_card", lambda _: False):
        numerics.seed_generators(job.spec.seed)
        train_epochs(path, TrainOrder.of(job), sent, files)  # type: ignore[arg-type]
    assert len(sent.bodies[FrameKind.TEST]) == 2 * len(arrays["test-images"])
    return sent


@contextmanager
def fake_card() -> Iterator[None]:
    """Let torch find a CUDA device, whose tensors have shapes and strides and no values; the CPU's stay real."""
    answers = {"is_available": True, "device_count": 1, "current_device": 0, "is_bf16_supported": True}
    with ExitStack() as stack:
        # Otherwise the mode starts CUDA's driver, once torch finds the device.
        stack.enter_context(mock.patch.object(FakeTensorMode, "avoid_device_init", True))
        stack.enter_context(mock.patch.object(nn.Module, "_apply", _apply))
        for name, answer in answers.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, lambda *_, answer=answer, **__: answer))
        stack.enter_context(_Card())
        yield


class _Card(TorchFunctionMode):
    """Runs calls that name a CUDA device on fake tensors; what they return carries the mode with it."""

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = (*args, *(kwargs or {}).values())
        moves = getattr(func, "__name__", "") == "cuda" or any(
            isinstance(value, str | torch.device) and str(value).startswith("cuda") for value in named
        )
        if func is F.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        if not moves:
            return func(*args, **(kwargs or {}))
        # Fake tensors are made of plain tensors and parameters alone.
        args = [_plain(value) for value in args]
        with self.fake:
            return func(*args, **(kwargs or {}))


def _batch_norm(
    x: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Stand in for ``F.batch_norm``, which asks the driver for cuDNN."""
    return torch.native_batch_norm(x, weight, bias, mean, variance, training, momentum, eps)[0]


def _plain(value: Any) -> Any:
    known = not isinstance(value, Tensor) or type(value) in (Tensor, nn.Parameter, FakeTensor)
    return value if known else value.as_subclass(Tensor)


def _apply(net: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """Stand in for ``nn.Module._apply``, which does not convert fake parameters a second time."""
    for module in net.modules() if recurse else [net]:
        for name, parameter in module._parameters.items():
            if parameter is not None:
                with torch.no_grad():
                    module._parameters[name] = nn.Parameter(change(parameter), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else change(buffer)
    return net


@dataclass(frozen=True)
class Rehearsal:
    """What a family does on a card, as far as the CPU shows it; ``PASSES`` or what differs."""

    channels_last: str
    bfloat16: str
    cuda: str


def rehearse(family: Family, interface: Interface, shape: Shape) -> Rehearsal:
    """Put a family through channels_last, bfloat16 autocast and fake CUDA tensors, in both modes and backward.

    Its experts' remedies are those of the worker: contiguous format where it does not run in channels_last, and float32
    for complex images. The family's code runs in this process.
    """
    size = interface.adapter(shape).size or (shape.height, shape.width)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "family.py"
        path.write_text(family.source, encoding="utf-8")
        subject = _Subject(path, family, Shape(shape.channels, *size), interface.complex)
        return Rehearsal(
            channels_last=_outcome(subject.in_channels_last),
            bfloat16=_outcome(subject.in_bfloat16),
            cuda=_outcome(subject.on_fake_card),
        )


def _outcome(step: Callable[[], str]) -> str:
    try:
        return step()
    except CheckFailed as failure:
        return failure.verdict.message


@dataclass(frozen=True)
class _Subject:
    path: Path
    family: Family
    shape: Shape
    complex: bool

    def build(self, device: str = "cpu") -> nn.Module:
        torch.manual_seed(0)
        prm = make_prm(best_hyperparameters(self.family), shape=self.shape)
        module = load_module(self.path, "family")
        return build_net(
            module, self.path, shape=self.shape, classes=CLASSES, prm=dict(prm), device=torch.device(device)
        )

    def images(self, device: str = "cpu") -> Tensor:
        images = torch.rand(2, self.shape.channels, self.shape.height, self.shape.width, device=device)
        return images.to(torch.complex64) if self.complex else images

    def run(self, net: nn.Module, images: Tensor) -> Tensor:
        """Call the net in both modes; return the logits of training mode."""
        with torch.no_grad():
            logits(net.eval(), images, self.path, classes=CLASSES, auxiliary=True)
        return logits(net.train(), images, self.path, classes=CLASSES, auxiliary=True)

    def in_channels_last(self) -> str:
        contiguous = contiguous_parts(self.build(), self.images(), self.path, CLASSES)
        net = self.build()
        use_channels_last(net, contiguous)
        self.run(net, self.images().contiguous(memory_format=torch.channels_last)).float().sum().backward()
        return "passes, contiguous" if contiguous else PASSES

    def in_bfloat16(self) -> str:
        net = self.build()
        with card_settings(), numerics.precision("cpu"), torch.autocast("cpu", enabled=not self.complex):
            outputs = self.run(net, self.images())
        outputs.float().sum().backward()
        finite = bool(torch.isfinite(outputs).all())
        return (f"{PASSES}, float32" if self.complex else PASSES) if finite else "logits are not finite"

    def on_fake_card(self) -> str:
        names = [(name, tuple(value.shape)) for name, value in self.build().named_parameters()]
        with fake_card(), card_settings(), numerics.precision("cuda"):
            net = self.build("cuda")
            found = [(name, tuple(value.shape)) for name, value in net.named_parameters()]
            strangers = [
                name for name, value in (*net.named_parameters(), *net.named_buffers()) if value.device.type != "cuda"
            ]
            with torch.autocast("cuda", enabled=not self.complex):
                outputs = self.run(net, self.images("cuda"))
        if found != names:
            return f"parameters differ: {sorted(set(found) ^ set(names))}"
        if strangers or outputs.device.type != "cuda":
            return f"mixed devices: {strangers or outputs.device}"
        return PASSES
