"""The imported module keeps the contract: ``Net`` is a module, and every hyperparameter it names has a value."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from torch import nn

from nngen.checks.context import CheckContext
from nngen.checks.guard import border
from nngen.checks.rule import Invalid, refuse
from nngen.checks.rules.sample_nets import net_source
from nngen.text import one_line
from nngen.types import Outcome

__all__ = ["Interface", "check_interface"]

_NET = "import torch.nn as nn\nclass Net(nn.Module): ...\n"


class Interface:
    """Refuses a module whose two names are of the wrong kind, or that needs a value nobody gave."""

    name: ClassVar[str] = "interface"
    VALID: ClassVar[tuple[str, ...]] = (
        net_source(),
        net_source().replace("{'lr', 'momentum'}", "['lr', 'momentum', 'dropout']"),
    )
    INVALID: ClassVar[tuple[Invalid, ...]] = (
        Invalid(source="x = 1\n", message="no class Net", outcome=Outcome.CONTRACT),
        Invalid(source="Net = 3\n", message="Net is no subclass of torch.nn.Module", outcome=Outcome.CONTRACT),
        Invalid(source=_NET, message="supported_hyperparameters", outcome=Outcome.CONTRACT),
        Invalid(
            source=_NET + "def supported_hyperparameters():\n    return 3\n",
            message="names of hyperparameters",
            outcome=Outcome.CONTRACT,
        ),
        Invalid(
            source=_NET + "def supported_hyperparameters():\n    return {'lr', 'patch_size'}\n",
            message="patch_size has no value: give one with --prm patch_size=",
            outcome=Outcome.CONTRACT,
        ),
    )

    def check(self, bench: CheckContext) -> None:
        assert bench.module is not None
        check_interface(bench.module, bench.path, bench.hyperparameters)


def check_interface(module: ModuleType, path: Path, prm: Mapping[str, Any]) -> type[nn.Module]:
    """Return the module's ``Net``.

    Raises:
        CheckFailed: If the module breaks the contract, or ``prm`` lacks a name it supports.
    """
    net = getattr(module, "Net", None)
    if net is None:
        raise _refuse("there is no class Net: add it, a torch.nn.Module")
    if not (isinstance(net, type) and issubclass(net, nn.Module)):
        raise _refuse("Net is no subclass of torch.nn.Module")
    function = getattr(module, "supported_hyperparameters", None)
    if not callable(function):
        raise _refuse("there is no function supported_hyperparameters(): add it, returning a set of names")
    with border(Interface.name, Outcome.CONTRACT, path, "supported_hyperparameters() was called"):
        returned = function()
        names = [name for name in returned if isinstance(name, str)] if hasattr(returned, "__iter__") else None
    if names is None or isinstance(returned, str):
        raise _refuse("supported_hyperparameters() does not return names of hyperparameters: return a set of str")
    for name in sorted(names):
        if name not in prm:
            shown = one_line(name, 60)
            raise _refuse(f"hyperparameter {shown} has no value: give one with --prm {shown}=VALUE")
    return net


def _refuse(message: str) -> Exception:
    return refuse(Outcome.CONTRACT, Interface.name, message)
