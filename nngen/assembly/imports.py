"""Imports as values: which may be shared by all experts, and how they are written out.

A name is shared where every family means the same by it: the table below. Every other import is
bound to a name with the family's prefix.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass

from nngen.assembly.naming import Style, style_of

__all__ = ["ALLOWED", "Import", "write_imports"]

ALLOWED = frozenset({"numpy", "torch", "torchvision"})
"""What a mixture may import besides the standard library."""

_WIDTH = 120


@dataclass(frozen=True, slots=True, order=True)
class Import:
    """One bound name.

    Attributes:
        module: What is imported, or imported from.
        name: What ``from module import`` names; None for ``import module``.
        alias: What follows ``as``; None without one.
    """

    module: str
    name: str | None = None
    alias: str | None = None

    @property
    def bound(self) -> str:
        """The name it binds."""
        return self.alias or self.name or self.root

    @property
    def root(self) -> str:
        """The top-level package."""
        return self.module.partition(".")[0]

    @property
    def target(self) -> str:
        """The dotted name of what is bound."""
        if self.name is not None:
            return f"{self.module}.{self.name}"
        return self.module if self.alias else self.root

    @property
    def style(self) -> Style:
        style = Style.FUNCTION if self.name is None else style_of(self.bound)
        # ``MLP`` is a class more likely than a constant; ``BN_MOMENTUM`` is not.
        return Style.CLASS if style is Style.CONSTANT and "_" not in self.bound else style

    @property
    def shared(self) -> bool:
        """Whether every family that binds this name means the same by it."""
        if self.name is None and self.alias in (None, self.module):
            return True  # ``import math`` binds math to math, whoever writes it
        item = _SHARED.get(self.bound)
        return item is not None and item.target == self.target

    def renamed(self, alias: str) -> Import:
        """Bind the same thing to another name."""
        return Import(self.module, self.name, alias)

    def canonical(self) -> Import:
        """Write a shared import in the one way that all experts write it."""
        return _SHARED.get(self.bound, self)


_FROM = {
    "abc": "ABC abstractmethod",
    "collections": "OrderedDict defaultdict deque namedtuple",
    "dataclasses": "dataclass field",
    "enum": "Enum",
    "functools": "lru_cache partial reduce wraps",
    "itertools": "chain product repeat",
    "torch": "Tensor nn optim",
    "torch.nn": "Parameter init",
    "torchvision.models._utils": "_make_divisible",
    "torchvision.ops.misc": "Conv2dNormActivation Permute SqueezeExcitation",
    "torchvision.ops.stochastic_depth": "StochasticDepth",
    "typing": "Any Callable ClassVar Dict Generic Iterable Iterator List Literal Mapping NamedTuple Optional "
    "Protocol Sequence Set Tuple Type TypeVar Union cast",
}
_SHARED = {
    **{name: Import(module, name) for module, names in _FROM.items() for name in names.split()},
    "F": Import("torch.nn", "functional", "F"),
    "np": Import("numpy", None, "np"),
}


def write_imports(items: Iterable[Import]) -> str:
    """Write imports as sorted lines: the standard library, then the rest.

    One package's lines stand together; names from one module share a line.
    """
    blocks: dict[bool, list[tuple[tuple[str, bool, str], str]]] = {False: [], True: []}
    named: dict[str, list[Import]] = {}
    for item in sorted(set(items), key=lambda item: (item.module, item.name or "", item.alias or "")):
        if item.name is not None:
            named.setdefault(item.module, []).append(item)
        else:
            text = f"import {item.module}" + (f" as {item.alias}" if item.alias not in (None, item.module) else "")
            blocks[_third_party(item.root)].append(((item.root.lower(), False, text), text))
    for module, members in named.items():
        root = members[0].root
        blocks[_third_party(root)].append(((root.lower(), True, module), _from_line(module, members)))
    return "\n\n".join("\n".join(text for _, text in sorted(block)) for block in blocks.values() if block)


def _third_party(root: str) -> bool:
    return root not in sys.stdlib_module_names


def _from_line(module: str, members: list[Import]) -> str:
    names = [
        f"{item.name} as {item.alias}" if item.alias not in (None, item.name) else f"{item.name}" for item in members
    ]
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= _WIDTH:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")"
