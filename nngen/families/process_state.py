"""Finds what a family's code replaced in torch and in Python's modules, which every other code of the process uses."""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from functools import partial, partialmethod
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch.nn.modules import module as hooks

_ROOTS = frozenset(
    "torch torchvision numpy builtins math random functools itertools operator collections copy".split()  # noqa: SIM905
)
"""Packages and modules whose attributes are compared."""

_TORCH = f"{Path(torch.__file__).parent}{os.sep}"
_MISSING = object()


class ProcessState:
    """Attributes of the loaded modules and of their classes at one moment."""

    def __init__(self) -> None:
        self._attributes = {id(owner): (owner, dict(vars(owner))) for owner in _owners()}
        self._behaviour = _behaviour()

    def changes(self) -> tuple[str, ...]:
        """List what is another object than before, by its dotted name, with the settings that cannot be put back."""
        found = [
            f"{_name(owner)}.{name}" for owner, before in self._attributes.values() for name in _replaced(owner, before)
        ]
        now = _behaviour()
        found += [name for name, value in self._behaviour.items() if now[name] != value]
        return tuple(dict.fromkeys(found))


def _owners() -> Iterator[Any]:
    """Yield the modules, and the classes that they define."""
    seen: set[int] = set()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in _ROOTS or not hasattr(module, "__dict__"):
            continue
        yield module
        for value in list(vars(module).values()):
            # Not isinstance(): some of torch's deprecated names warn when they are asked for their class.
            if issubclass(type(value), type) and id(value) not in seen and _of_the_roots(value):
                seen.add(id(value))
                yield value


def _replaced(owner: Any, before: Mapping[str, Any]) -> Iterator[str]:
    now = vars(owner)
    private = any(part.startswith("_") for part in _name(owner).split("."))
    for name, old in before.items():
        new = now.get(name, _MISSING)
        if new is old or (name.startswith("_") and (not callable(old) or _of_the_roots(new))):
            continue  # torch fills its own private names when they are first used
        if private and not callable(old):
            continue  # and the names of its private modules
        if _wrapped_by_torch(new, old):
            continue
        if type(old) is type(new) is int:
            continue  # counters, as that of all hooks
        yield name
    # Submodules and functions of torch itself become attributes when they are first imported.
    for name in sorted(now.keys() - before.keys()):
        if not _of_torch(name, now[name]) and (callable(now[name]) or not private):
            yield name


def _wrapped_by_torch(new: object, old: object) -> bool:
    """Whether torch wrapped a function of its own, as ``torch.compile`` does with ``manual_seed`` on first use."""
    code = getattr(new, "__code__", None)
    return (
        callable(new)
        and inspect.unwrap(new, stop=lambda inner: inner is old) is old
        and str(getattr(code, "co_filename", "")).startswith(_TORCH)
    )


def _of_torch(name: str, value: object) -> bool:
    if isinstance(value, ModuleType) or name.startswith("__"):
        return True
    return _of_the_roots(value) if callable(value) else name.startswith("_")


def _of_the_roots(value: object) -> bool:
    """Whether a function or a class was defined by one of the packages that are compared."""
    if isinstance(value, partial | partialmethod):
        return False  # of a function of theirs, perhaps, with other arguments
    module = getattr(value, "__module__", None)
    return not isinstance(module, str) or module.partition(".")[0] in _ROOTS


def _name(owner: Any) -> str:
    return f"{owner.__module__}.{owner.__qualname__}" if isinstance(owner, type) else str(owner.__name__)


def _behaviour() -> dict[str, object]:
    """Read what no function sets back: hooks of all modules, denormal numbers, autocast."""
    smallest = torch.full((), 1e-310, dtype=torch.float64)
    names = [name for name, value in vars(hooks).items() if name.startswith("_global") and isinstance(value, dict)]
    return {
        "torch.set_flush_denormal": bool(smallest * 1.0 == 0),
        "warnings.filters": sum(entry[0] == "error" for entry in warnings.filters),
        "torch.autocast": torch.is_autocast_enabled("cpu"),
        "the hooks of all modules": tuple(len(getattr(hooks, name)) for name in names),
    }
