"""Measures one family: which inputs it takes, and that it works at a given one.

This module imports torch and runs LEMUR's code: only the probe's worker imports it.

A try builds the family and runs it forward, in evaluation and in training mode. Tries that look for a
border run on the meta device, which computes shapes and no numbers. What they find is then proven
for real, backward pass included, at the border and at the shape that was asked for.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nngen.types import Adapter, Interface, Shape

__all__ = ["BATCH", "Subject", "Unfit", "load_net", "measure_interface", "prove", "weigh"]

BATCH = 2
"""Images per try; the family itself is built for one (docs/design/0002-in-shape-batch.md)."""

_FEW, _MORE, _WIDE = 2, 4, 16
"""Images of the batches whose difference is the cost of one image: in memory, and in time where memory allows."""

_WIDE_MIB = 1024
_RUNS = 3

_SIDES = (64, 32, 128, 256, 384)
_LARGE = {"meta": 512, "cpu": 256}


class Unfit(Exception):  # noqa: N818  # it is a finding, not a failure of this program
    """The family does not work so; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A family, ready to be built."""

    net: Callable[..., nn.Module]
    hyperparameters: Mapping[str, Any]
    channels: int
    classes: int


def load_net(file: Path) -> Callable[..., nn.Module]:
    """Import a family's file as a module, so that torch.jit finds its source, and return its ``Net``.

    Raises:
        Unfit: If it cannot be imported or has no ``Net``.
    """
    name = f"nngen_family_{file.stem.replace('-', '_')}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise Unfit(f"{file.name} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a family's module level raises is a finding about it
        raise Unfit(_reason(error)) from error
    net: Callable[..., nn.Module] | None = getattr(module, "Net", None)
    if net is None:
        raise Unfit("the source defines no class Net")
    return net


def measure_interface(subject: Subject) -> Interface:
    """Find the smallest and the largest side, and whether the input must be square or complex.

    Raises:
        Unfit: If no side that is tried works; the message is the one a real try gave.
    """
    reasons: list[str] = []
    for is_complex in (False, True):
        for device in ("meta", "cpu"):
            search = _Search(subject=subject, device=device, complex=is_complex)
            for side in _SIDES:
                if search.works(side, side):
                    return _interface(search, side)
                if device == "cpu":
                    reasons.append(f"at {side}x{side}: {search.reason}")
    raise Unfit(f"works at none of {', '.join(str(side) for side in _SIDES)} px; {reasons[0]}")


def prove(subject: Subject, interface: Interface, shape: Shape) -> int:
    """Run the family for real at ``shape``, behind its adapter: both modes, one backward pass.

    Returns:
        The number of its trainable parameters.

    Raises:
        Unfit: If it fails, its logits are not finite, or no parameter receives a gradient.
    """
    return _prove(subject, interface.adapter(shape), shape)


def weigh(subject: Subject, interface: Interface, shape: Shape) -> dict[str, float]:
    """Measure what training costs: the memory of the weights, and memory and time of one image more in a batch.

    Counted is what autograd keeps for the backward pass, each storage once and no weights. All of it is held at the end
    of a forward pass, whatever the allocator does.

    Returns:
        ``weights_mib`` of parameters and buffers; ``image_mib`` kept per image; ``image_s`` for forward and backward of
        an image, and ``step_s`` for what a step takes besides.

    Raises:
        Unfit: If the family fails.
    """
    torch.manual_seed(0)
    adapter = interface.adapter(shape)
    height, width = adapter.size or (shape.height, shape.width)
    net = _build(subject, "cpu", height, width).train()
    own = [*net.parameters(), *net.buffers()]
    few, more = (_step(subject, net, own, (count, height, width), adapter) for count in (_FEW, _MORE))
    image_mib = max(0.0, more[0] - few[0]) / (_MORE - _FEW) / 2**20
    # Of a small net, two images more cost less time than the clock is sure of.
    most = _WIDE if image_mib * _WIDE <= _WIDE_MIB else _MORE
    seconds = more[1] if most == _MORE else _step(subject, net, own, (most, height, width), adapter)[1]
    image_s = max(0.0, seconds - few[1]) / (most - _FEW)
    return {
        "weights_mib": sum(tensor.untyped_storage().nbytes() for tensor in own) / 2**20,
        "image_mib": image_mib,
        "image_s": image_s,
        "step_s": max(0.0, few[1] - _FEW * image_s),
    }


def _step(
    subject: Subject, net: nn.Module, own: list[Tensor], size: tuple[int, int, int], adapter: Adapter
) -> tuple[int, float]:
    """Run forward and backward; return the bytes kept in between, and the seconds of the quickest run."""
    count, height, width = size
    images = torch.rand(count, subject.channels, height, width)
    images = images.to(torch.complex64) if adapter.complex else images
    weights = {tensor.untyped_storage().data_ptr() for tensor in own}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    seconds = []
    for _ in range(_RUNS):
        kept.clear()
        begin = time.perf_counter()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = _logits(net, images, subject.classes)
        try:
            torch.autograd.backward(F.cross_entropy(logits, torch.arange(count) % subject.classes))
        except Exception as error:  # the family's own code, as everywhere here
            raise Unfit(f"backward pass: {_reason(error)}") from error
        seconds.append(time.perf_counter() - begin)
    return sum(kept.values()), min(seconds)


@dataclass(kw_only=True)
class _Search:
    """Tries sides on one device and remembers what came out."""

    subject: Subject
    device: str
    complex: bool
    reason: str = ""
    _seen: dict[tuple[int, int], bool] = field(default_factory=dict)

    def works(self, height: int, width: int) -> bool:
        if (height, width) not in self._seen:
            try:
                _try(self.subject, self.device, height, width, is_complex=self.complex)
                self._seen[height, width] = True
            except Unfit as unfit:
                self.reason = str(unfit)
                self._seen[height, width] = False
        return self._seen[height, width]


def _interface(search: _Search, side: int) -> Interface:
    """Bisect from a side that works to both borders, prove the lower one, then try unequal sides."""
    low = 1 if search.works(1, 1) else _border(search, works=side, fails=1)
    if search.device == "meta" and not _really(search, low):
        # Meta tensors promise more than real ones hold: look again with real ones.
        return _interface(_Search(subject=search.subject, device="cpu", complex=search.complex), side)
    large = max(side, _LARGE[search.device])
    high = None if search.works(large, large) else _border(search, works=side, fails=large)
    first = max(low, min(side, 64))
    second = first + 32 if high is None else min(first + 32, high)
    square = not (search.works(first, second) and search.works(second, first))
    return Interface(low=low, high=high, square=square, complex=search.complex)


def _border(search: _Search, *, works: int, fails: int) -> int:
    while abs(works - fails) > 1:
        middle = (works + fails) // 2
        if search.works(middle, middle):
            works = middle
        else:
            fails = middle
    return works


def _really(search: _Search, side: int) -> bool:
    shape = Shape(search.subject.channels, side, side)
    try:
        _prove(search.subject, Adapter(complex=search.complex), shape)
    except Unfit:
        return False
    return True


def _try(subject: Subject, device: str, height: int, width: int, *, is_complex: bool) -> None:
    with torch.device(device), torch.no_grad():
        net = _build(subject, device, height, width)
        images = torch.zeros(BATCH, subject.channels, height, width)
        images = images.to(torch.complex64) if is_complex else images
        for mode in (False, True):
            _logits(net.train(mode), images, subject.classes)


def _prove(subject: Subject, adapter: Adapter, shape: Shape) -> int:
    torch.manual_seed(0)
    height, width = adapter.size or (shape.height, shape.width)
    net = _build(subject, "cpu", height, width)
    images = torch.rand(BATCH, subject.channels, shape.height, shape.width)
    if adapter.size is not None:
        images = F.interpolate(images, size=adapter.size, mode="bilinear", align_corners=False)
    if adapter.complex:
        images = images.to(torch.complex64)
    with torch.no_grad():
        _finite(_logits(net.eval(), images, subject.classes), "evaluation")
    logits = _finite(_logits(net.train(), images, subject.classes), "training")
    try:
        torch.autograd.backward(F.cross_entropy(logits, torch.arange(BATCH) % subject.classes))
    except Exception as error:
        raise Unfit(f"backward pass: {_reason(error)}") from error
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    if not any(p.grad is not None and bool(p.grad.count_nonzero()) for p in trainable):
        raise Unfit("no parameter received a gradient")
    return sum(parameter.numel() for parameter in trainable)


def _build(subject: Subject, device: str, height: int, width: int) -> nn.Module:
    hyperparameters = {**subject.hyperparameters, "batch": BATCH, "epoch": 1, "transform": f"norm_{height}"}
    try:
        return subject.net(
            (1, subject.channels, height, width), (subject.classes,), hyperparameters, torch.device(device)
        )
    except Exception as error:
        raise Unfit(_reason(error)) from error


def _logits(net: nn.Module, images: Tensor, classes: int) -> Tensor:
    """Run the family; auxiliary outputs follow the logits in a tuple."""
    try:
        out = net(images)
    except Exception as error:
        raise Unfit(_reason(error)) from error
    logits = out[0] if isinstance(out, tuple | list) and out else out
    if not isinstance(logits, Tensor):
        raise Unfit(f"forward returns {type(logits).__name__}, not logits")
    if tuple(logits.shape) != (len(images), classes):
        raise Unfit(f"forward returns {tuple(logits.shape)}, not {(len(images), classes)}")
    return logits


def _finite(logits: Tensor, mode: str) -> Tensor:
    if not bool(torch.isfinite(logits).all()):
        raise Unfit(f"logits are not finite in {mode} mode")
    return logits


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        raise MemoryError from error
    first = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {first}"[:200].rstrip(": ")
