"""``Net(in_shape, out_shape, prm, device)`` builds, and ``train_setup(prm)`` runs; neither writes into ``prm``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import nn

from nngen.checks.context import CheckContext
from nngen.checks.guard import border
from nngen.checks.prm import LEMUR_BATCH, changed_keys
from nngen.checks.rule import Invalid, refuse
from nngen.checks.rules.interface import check_interface
from nngen.checks.rules.sample_nets import net_source
from nngen.text import one_line
from nngen.types import Outcome, Shape

__all__ = ["Build", "build_net", "set_up"]


class Build:
    """Refuses a net that cannot be built or set up, or that changes the caller's ``prm``."""

    name: ClassVar[str] = "build"
    VALID: ClassVar[tuple[str, ...]] = (net_source(), net_source(init="prm.get('x', 1)"))
    INVALID: ClassVar[tuple[Invalid, ...]] = (
        Invalid(
            source=net_source(init="raise ValueError('too small')"),
            message="ValueError: too small",
            outcome=Outcome.CRASHED,
            line=11,
        ),
        Invalid(source=net_source(init="prm['width']"), message="KeyError: 'width'", outcome=Outcome.CRASHED, line=11),
        Invalid(
            source=net_source(init="prm['width'] = 3"), message="Net.__init__ changed prm", outcome=Outcome.CONTRACT
        ),
        Invalid(
            source=net_source(setup="prm.setdefault('decay', 0.1)"),
            message="train_setup changed prm: decay",
            outcome=Outcome.CONTRACT,
        ),
        Invalid(source=net_source(setup="prm['lr'] = 0.5"), message="changed prm: lr", outcome=Outcome.CONTRACT),
        Invalid(source=net_source(setup="self.missing"), message="AttributeError", outcome=Outcome.CRASHED, line=17),
        Invalid(
            source=net_source(init="self.requires_grad_(False)"),
            message="no trainable parameter",
            outcome=Outcome.NO_GRADIENT,
        ),
    )

    def check(self, bench: CheckContext) -> None:
        assert bench.module is not None
        prm = dict(bench.hyperparameters)
        net = build_net(
            bench.module, bench.path, shape=bench.shape, classes=bench.classes, prm=prm, device=bench.device
        )
        _unchanged(bench.hyperparameters, prm, "Net.__init__")
        set_up(net, bench.path, prm)
        _unchanged(bench.hyperparameters, prm, "Net.train_setup")
        bench.net = net


def build_net(
    module: ModuleType, path: Path, *, shape: Shape, classes: int, prm: Mapping[str, Any], device: torch.device
) -> nn.Module:
    """Build the module's ``Net`` and move it to ``device``.

    Raises:
        CheckFailed: If the contract is broken or building raises.
    """
    net_class = check_interface(module, path, prm)
    in_shape = (LEMUR_BATCH, shape.channels, shape.height, shape.width)
    with border(Build.name, Outcome.CRASHED, path, f"Net({in_shape}, ({classes},), prm, device) was built"):
        net = net_class(in_shape, (classes,), prm, device)
        net.to(device)
        trainable = any(parameter.requires_grad for parameter in net.parameters())
    if not trainable:
        raise refuse(Outcome.NO_GRADIENT, Build.name, "Net has no trainable parameter")
    return net


def set_up(net: nn.Module, path: Path, prm: Mapping[str, Any]) -> None:
    """Call ``train_setup``.

    Raises:
        CheckFailed: If it raises.
    """
    with border(Build.name, Outcome.CRASHED, path, "Net.train_setup(prm) ran"):
        net.train_setup(prm)  # type: ignore[operator]


def _unchanged(before: Mapping[str, Any], after: Mapping[str, Any], who: str) -> None:
    keys = changed_keys(before, after)
    if keys:
        names = one_line(", ".join(keys[:5]), 100)
        message = f"{who} changed prm: {names}; LEMUR records prm as it is then, so work on a copy, dict(prm)"
        raise refuse(Outcome.CONTRACT, Build.name, message)
