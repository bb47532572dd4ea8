"""Values that can be reached from a net, as tensors and JSON, and given back in place.

Tensors, numbers, texts, containers, modules, optimizers and objects made of such are known; functions, classes and the
like do not change, and stay as they were built.
"""

from __future__ import annotations

import enum
import functools
import re
import types
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from nngen.training.state.tensor_file import storable

Json: TypeAlias = Any
"""A JSON value: a plain one stands for itself, any other is a list of its kind and its content."""

_CONSTANT = (
    *(types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, type, functools.partial),
    *(torch.device, torch.dtype, torch.layout, torch.memory_format, torch.jit.ScriptFunction),
    *(enum.Enum, re.Pattern, PurePath, range, slice, frozenset, property, weakref.ReferenceType),
)
"""Types of values that are as the source built them."""

_STATEFUL = (torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler, torch.amp.GradScaler, torch.jit.ScriptModule)
"""Types that tell their own state: ``state_dict`` and ``load_state_dict``."""

_DICTS = (dict, OrderedDict, Counter, defaultdict)
_INNER = frozenset(vars(nn.Module())) - {"training"} | {"_compiled_call_impl"}
"""Attributes of a module that are torch's own: its tensors and parts are captured as such, its hooks are constant."""


class _Plain:
    """A class whose objects have a dictionary and nothing else."""


class UnknownStateError(Exception):
    """A net holds something whose state cannot be captured."""


class StateMismatchError(Exception):
    """A captured state does not fit the net that was built."""


class ValueWriter:
    """Turns values into JSON; objects that are met again become references, so that what is shared stays shared."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._met: dict[int, tuple[int, object]] = {}

    def write(self, value: object, place: str) -> Json:
        if isinstance(value, _CONSTANT):
            return ["same"]
        if isinstance(value, np.generic):
            return ["scalar", value.dtype.str, self.write(value.item(), place)]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, complex):
            return ["complex", value.real, value.imag]
        if isinstance(value, bytes):
            return ["bytes", value.hex()]
        if isinstance(value, tuple):
            return ["tuple", [self.write(item, f"{place}[{index}]") for index, item in enumerate(value)]]
        if id(value) in self._met:
            return ["ref", self._met[id(value)][0]]
        # The object is kept, so that its address is not given to another one meanwhile.
        number = len(self._met)
        self._met[id(value)] = (number, value)
        return [*self._content(value, place), number]

    def _content(self, value: object, place: str) -> list[Json]:
        if isinstance(value, Tensor):
            return ["tensor", self._tensor(value, place), value.is_leaf and value.requires_grad]
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            return ["array", self._tensor(torch.from_numpy(np.ascontiguousarray(value)), place)]
        if isinstance(value, torch.Generator):
            return ["generator", self._tensor(value.get_state(), place), str(value.device)]
        if type(value) in (list, deque, set):
            assert isinstance(value, list | deque | set)
            items = [self.write(item, f"{place}[{index}]") for index, item in enumerate(value)]
            return [type(value).__name__, items]
        if type(value) in _DICTS:
            assert isinstance(value, dict)
            # A list of pairs: keys need not be texts.
            pairs = [[self.write(key, place), self.write(item, f"{place}.{key}")] for key, item in value.items()]
            return [type(value).__name__, pairs]
        if isinstance(value, _STATEFUL):
            return ["stateful", self.write(value.state_dict(), place)]
        if isinstance(value, nn.Module):
            own = [self._attributes(vars(value)[part], place) for part in ("_parameters", "_buffers", "_modules")]
            others = {name: item for name, item in vars(value).items() if name not in _INNER}
            return ["module", *own, self._attributes(others, place)]
        # All that it holds is in its dictionary: types of C, and those with slots, have more.
        if hasattr(value, "__dict__") and type(value).__basicsize__ == _Plain.__basicsize__:
            return ["object", type(value).__qualname__, self._attributes(vars(value), place)]
        raise UnknownStateError(f"{place.lstrip('.')} is a {type(value).__qualname__}, whose state cannot be stored")

    def _attributes(self, values: Mapping[str, object], place: str) -> dict[str, Json]:
        return {name: self.write(value, f"{place}.{name}") for name, value in values.items()}

    def _tensor(self, tensor: Tensor, place: str) -> str:
        if not storable(tensor):
            kind = f"tensor of {tensor.dtype} and {tensor.layout}"
            raise UnknownStateError(f"{place.lstrip('.')} is a {kind}, which cannot be stored")
        name = place.lstrip(".")
        while name in self.tensors:
            name += "'"
        self.tensors[name] = tensor
        return name


class ValueReader:
    """Gives objects the values that ``ValueWriter`` wrote, in place wherever there is an object of the same kind."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._made: dict[int, Any] = {}

    def read(self, saved: Json, now: Any) -> Any:
        """Return a value; ``now`` is what the net that was built has in its place, or None."""
        if not isinstance(saved, list):
            return saved
        kind, *content = saved
        if kind == "same":
            if now is None:
                raise StateMismatchError("a function or a class is put into the net while the net trains")
            return now
        if kind == "ref":
            return self._made[content[0]]
        if kind == "scalar":
            return np.dtype(content[0]).type(self.read(content[1], None))
        if kind == "complex":
            return complex(*content)
        if kind == "bytes":
            return bytes.fromhex(content[0])
        if kind == "tuple":
            items = self._items(content[0], now if isinstance(now, tuple) else ())
            return type(now)(*items) if hasattr(now, "_fields") else tuple(items)
        return getattr(self, f"_{kind.lower()}")(*content, now)

    def _items(self, saved: list[Json], now: Any) -> list[Any]:
        there = list(now) if len(now) == len(saved) else [None] * len(saved)
        return [self.read(item, present) for item, present in zip(saved, there, strict=True)]

    def _tensor(self, name: str, grad: bool, number: int, now: Any) -> Tensor:
        value = self._tensors[name]
        if isinstance(now, Tensor) and now.shape == value.shape and now.dtype == value.dtype:
            # In place: the optimizer and other modules may hold it too.
            now.data.copy_(value)
            result = now.requires_grad_(grad) if now.is_leaf else now
        elif isinstance(now, nn.Parameter):
            raise StateMismatchError(f"{name} is {tuple(value.shape)} and not {tuple(now.shape)}")
        else:
            result = (value.to(now.device) if isinstance(now, Tensor) else value).requires_grad_(grad)
        self._made[number] = result
        return result

    def _array(self, name: str, number: int, _: Any) -> Any:
        self._made[number] = value = self._tensors[name].numpy()
        return value

    def _generator(self, name: str, device: str, number: int, now: Any) -> torch.Generator:
        result = now if isinstance(now, torch.Generator) else torch.Generator(device)
        result.set_state(self._tensors[name])
        self._made[number] = result
        return result

    def _list(self, saved: list[Json], number: int, now: Any) -> list[Any]:
        result = self._made[number] = now if isinstance(now, list) else []
        result[:] = self._items(saved, result)
        return result

    def _deque(self, saved: list[Json], number: int, now: Any) -> deque[Any]:
        result = self._made[number] = now if isinstance(now, deque) else deque()
        items = self._items(saved, result)
        result.clear()
        result.extend(items)
        return result

    def _set(self, saved: list[Json], number: int, now: Any) -> set[Any]:
        result = self._made[number] = now if isinstance(now, set) else set()
        result.clear()
        result.update(self._items(saved, ()))
        return result

    def _dict(self, saved: list[Json], number: int, now: Any, kind: type = dict) -> dict[Any, Any]:
        result: dict[Any, Any] = now if type(now) in _DICTS else kind()
        self._made[number] = result
        pairs = [(self.read(key, None), item) for key, item in saved]
        values = {key: self.read(item, result.get(key)) for key, item in pairs}
        result.clear()
        result.update(values)
        return result

    _ordereddict = functools.partialmethod(_dict, kind=OrderedDict)
    _counter = functools.partialmethod(_dict, kind=Counter)
    _defaultdict = functools.partialmethod(_dict, kind=defaultdict)

    def _stateful(self, saved: Json, number: int, now: Any) -> Any:
        if not isinstance(now, _STATEFUL):
            raise StateMismatchError("an optimizer or a schedule is made while the net trains")
        self._made[number] = now
        now.load_state_dict(self.read(saved, now.state_dict()))
        return now

    def _module(
        self,
        parameters: dict[str, Json],
        buffers: dict[str, Json],
        modules: dict[str, Json],
        others: dict[str, Json],
        number: int,
        now: Any,
    ) -> nn.Module:
        if not isinstance(now, nn.Module):
            raise StateMismatchError("a part of the net is made while it trains")
        self._made[number] = now
        for part, saved in (("_parameters", parameters), ("_modules", modules)):
            if vars(now)[part].keys() != saved.keys():
                raise StateMismatchError(f"a {type(now).__name__} has other parts than when it was stored")
        for part, saved in (("_parameters", parameters), ("_buffers", buffers), ("_modules", modules)):
            self._attributes(vars(now)[part], saved)
        self._attributes(vars(now), others, keep=_INNER)
        return now

    def _object(self, kind: str, saved: dict[str, Json], number: int, now: Any) -> Any:
        if type(now).__qualname__ != kind:
            raise StateMismatchError(f"an object of class {kind} is made while the net trains")
        self._made[number] = now
        self._attributes(vars(now), saved)
        return now

    def _attributes(self, now: dict[str, Any], saved: dict[str, Json], keep: frozenset[str] = frozenset()) -> None:
        for name in [name for name in now if name not in saved and name not in keep]:
            del now[name]
        for name, value in saved.items():
            now[name] = self.read(value, now.get(name))
