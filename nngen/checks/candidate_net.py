"""Calls into a candidate's net, for the dynamic rules and for training: import, build, set up, forward.

Whatever the candidate raises becomes the verdict of the rule that is named after the step.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nngen.checks.guard import guard
from nngen.checks.prm import LEMUR_BATCH
from nngen.checks.rule import CheckFailed, fail
from nngen.text import one_line
from nngen.types import Outcome, Shape

_LAZY_BATCH = 2


def load_module(path: Path, name: str = "candidate") -> ModuleType:
    """Import a file as a module called ``name``.

    Raises:
        CheckFailed: If it does not parse (``syntax``) or raises (``import``).
    """
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Pickle, dataclasses and torch.jit look the module up by its name.
    sys.modules[name] = module
    with guard("import", Outcome.IMPORT, path, "the file was imported"):
        spec.loader.exec_module(module)
    return module


def net_class(module: ModuleType) -> type[nn.Module]:
    """Return the module's ``Net``.

    Raises:
        CheckFailed: If it is missing, or is not a module's class.
    """
    net = getattr(module, "Net", None)
    if net is None:
        raise _broken("class Net is missing: add it, a torch.nn.Module")
    if not (isinstance(net, type) and issubclass(net, nn.Module)):
        raise _broken("Net is not a subclass of torch.nn.Module")
    return net


def hyperparameter_names(module: ModuleType, path: Path) -> list[str]:
    """Call ``supported_hyperparameters`` and return the names.

    Raises:
        CheckFailed: If it is missing, raises, or returns anything but a collection of names.
    """
    function = getattr(module, "supported_hyperparameters", None)
    if not callable(function):
        raise _broken("supported_hyperparameters() is missing: add it, returning a set of names")
    with guard("interface", Outcome.CONTRACT, path, "supported_hyperparameters() was called"):
        returned = function()
        names = [name for name in returned if isinstance(name, str)] if hasattr(returned, "__iter__") else None
    if names is None or isinstance(returned, str):
        raise _broken("supported_hyperparameters() does not return names of hyperparameters: return a set of str")
    return names


def check_interface(module: ModuleType, path: Path, prm: Mapping[str, Any]) -> type[nn.Module]:
    """Return the module's ``Net``.

    Raises:
        CheckFailed: If the module breaks the contract, or ``prm`` lacks a name it supports.
    """
    net = net_class(module)
    for name in sorted(hyperparameter_names(module, path)):
        if name not in prm:
            shown = one_line(name, 60)
            raise _broken(f"hyperparameter {shown} has no value: give one with --prm {shown}=VALUE")
    return net


def _broken(message: str) -> CheckFailed:
    return fail(Outcome.CONTRACT, "interface", message)


def build_net(
    module: ModuleType, path: Path, *, shape: Shape, classes: int, prm: Mapping[str, Any], device: torch.device
) -> nn.Module:
    """Build the module's ``Net`` and move it to ``device``.

    Raises:
        CheckFailed: If the contract is broken or building raises.
    """
    kind = check_interface(module, path, prm)
    in_shape = (LEMUR_BATCH, shape.channels, shape.height, shape.width)
    with guard("build", Outcome.CRASHED, path, f"Net({in_shape}, ({classes},), prm, device) was built"):
        net = kind(in_shape, (classes,), prm, device)
        _restore_parameters(net)
        net.to(device)
    materialise(net, torch.zeros((_LAZY_BATCH, *in_shape[1:]), device=device), path)
    with guard("build", Outcome.CRASHED, path, "its parameters were counted"):
        trainable = any(parameter.requires_grad for parameter in net.parameters())
    if not trainable:
        raise fail(Outcome.NO_GRADIENT, "build", "Net has no trainable parameter")
    return net


def materialise(net: nn.Module, images: Tensor, path: Path) -> None:
    """Give lazy layers their weights, which torch does in the first forward pass; other nets are not run.

    Raises:
        CheckFailed: If ``forward`` raises.
    """
    if any(map(is_lazy, (*net.parameters(), *net.buffers()))):
        with guard("build", Outcome.SHAPE, path, "forward ran once, for the lazy layers"), torch.no_grad():
            net.eval()  # it may return nothing
            net(images)


def _restore_parameters(net: nn.Module) -> None:
    """Register parameters that the constructor moved to another device: ``self.scale = nn.Parameter(x).to(device)``.

    On the CPU that is the parameter itself. On a card it is a plain tensor, which no optimizer would change.
    """
    for module in net.modules():
        for name, value in [*vars(module).items()]:
            if isinstance(value, Tensor) and _is_moved_parameter(value):
                delattr(module, name)
                module.register_parameter(name, nn.Parameter(value.detach()))


def _is_moved_parameter(value: Tensor) -> bool:
    step = value.grad_fn
    if step is None or step.name() != "ToCopyBackward0":
        return False
    leaf = getattr(step.next_functions[0][0], "variable", None)
    return isinstance(leaf, nn.Parameter) and leaf.device != value.device


def set_up(net: nn.Module, path: Path, prm: Mapping[str, Any]) -> None:
    """Call ``train_setup``.

    Raises:
        CheckFailed: If it raises.
    """
    with guard("build", Outcome.CRASHED, path, "Net.train_setup(prm) ran"):
        net.train_setup(prm)  # type: ignore[operator]


def set_mode(net: nn.Module, path: Path, *, training: bool) -> None:
    """Switch a net to training or to evaluation; a method ``train`` of its own may raise, and return anything.

    Raises:
        CheckFailed: If it raises.
    """
    with guard("shape", Outcome.CRASHED, path, f"its mode was set to {'training' if training else 'evaluation'}"):
        if training:
            net.train()
        else:
            net.eval()


def logits(net: nn.Module, images: Tensor, path: Path, *, classes: int, auxiliary: bool = False) -> Tensor:
    """Call the net on ``(B, C, H, W)`` images and return its output, ``(B, classes)``.

    With ``auxiliary`` it may return a tuple, of which the first entry is the logits.

    Raises:
        CheckFailed: If ``forward`` raises, or returns anything else.
    """
    size = len(images)
    mode = "train" if net.training else "eval"
    with guard("shape", Outcome.SHAPE, path, f"forward ran in {mode} mode on a batch of {size}"):
        outputs = net(images)
        if auxiliary and isinstance(outputs, tuple) and outputs:
            outputs = outputs[0]
        # Still inside: the output may be an object of the candidate's own class.
        is_tensor = isinstance(outputs, Tensor)
        shape = tuple(int(side) for side in outputs.shape) if is_tensor else ()
    if not is_tensor:
        message = f"forward returned {type(outputs).__name__} in {mode} mode; return a tensor ({size}, {classes})"
        raise fail(Outcome.SHAPE, "shape", message)
    if shape != (size, classes):
        message = f"forward returned {shape} in {mode} mode on a batch of {size}; return ({size}, {classes})"
        raise fail(Outcome.SHAPE, "shape", message)
    assert isinstance(outputs, Tensor)
    return outputs
