"""Which methods of a family's ``Net`` only train it: a mixture trains all its experts itself."""

from __future__ import annotations

from collections.abc import Collection

import libcst as cst

from nngen.assembly.walk import walk

__all__ = ["training_methods"]

_TRAINS = frozenset({"train_setup", "learn"})

_HOOKS = frozenset(
    """
    forward train eval to apply type float double half bfloat16 cpu cuda parameters named_parameters
    buffers named_buffers children named_children modules named_modules state_dict load_state_dict
    load_from_state_dict save_to_state_dict zero_grad requires_grad_ extra_repr get_extra_state
    set_extra_state get_name register_buffer register_parameter add_module share_memory
    """.split()  # noqa: SIM905  # words read better than a column of quotes
)
"""Methods that torch or a trainer calls, so that a source need not mention them."""


def training_methods(module: cst.Module) -> frozenset[int]:
    """Find ``train_setup`` and ``learn`` of ``Net``, and methods of ``Net`` that only these mention.

    Returns:
        The identities of their nodes. A method that anything else mentions is not among them.
    """
    net = next((node for node in module.body if isinstance(node, cst.ClassDef) and node.name.value == "Net"), None)
    methods = [node for node in net.body.body if isinstance(node, cst.FunctionDef)] if net is not None else []
    dead = {id(node): node for node in methods if node.name.value in _TRAINS}
    if not dead:
        return frozenset()
    outside = _mentioned(module, dead)
    if any(node.name.value in outside for node in dead.values()):
        return frozenset()  # something else trains through them: leave the class as it is
    while True:
        inside = {name for node in dead.values() for name in _mentioned(node, ())}
        more = {
            id(node): node
            for node in methods
            if id(node) not in dead and node.name.value in inside - outside and not _is_hook(node.name.value)
        }
        if not more:
            return frozenset(dead)
        dead |= more
        outside = _mentioned(module, dead)


def _is_hook(name: str) -> bool:
    return name.startswith("__") or name.lstrip("_") in _HOOKS


def _mentioned(root: cst.CSTNode, dead: Collection[int]) -> set[str]:
    """Names of attributes, and strings, which may name one, outside the methods that are left out."""
    names: set[str] = set()
    for node in walk(root, skip=lambda node: id(node) in dead):
        if isinstance(node, cst.Attribute):
            names.add(node.attr.value)
        elif isinstance(node, cst.SimpleString) and isinstance(node.evaluated_value, str):
            names.add(node.evaluated_value)
    return names
