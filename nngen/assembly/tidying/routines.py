"""Functions of a module as its calls see them, and the shapes that calls have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import libcst as cst

from nngen.assembly.walk import walk

__all__ = [
    "PYTORCH",
    "Routine",
    "Site",
    "as_routine",
    "is_partial",
    "is_super",
    "methods",
    "only_keywords",
    "parameters",
    "spelled_words",
    "target_names",
]

PYTORCH = frozenset(
    """
    T_destination _apply _call_impl _compiled_call_impl _get_backward_hooks _get_backward_pre_hooks _get_name
    _load_from_state_dict _maybe_warn_non_full_backward_hook _named_members _register_load_state_dict_pre_hook
    _register_state_dict_hook _replicate_for_data_parallel _save_to_state_dict _slow_forward _version
    _wrapped_call_impl add_module apply bfloat16 buffers call_super_init children compile cpu cuda double dump_patches
    eval extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half ipu load_state_dict
    modules mtia named_buffers named_children named_modules named_parameters parameters register_backward_hook
    register_buffer register_forward_hook register_forward_pre_hook register_full_backward_hook
    register_full_backward_pre_hook register_load_state_dict_post_hook register_load_state_dict_pre_hook
    register_module register_parameter register_state_dict_post_hook register_state_dict_pre_hook requires_grad_
    set_extra_state set_submodule share_memory state_dict to to_empty train type xpu zero_grad
    """.split()  # noqa: SIM905
)
"""What ``nn.Module`` has, and may call itself where a family has it too."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Routine:
    """A function, method, or class's ``__init__``.

    Attributes:
        node: Its definition.
        params: What its calls pass, by position.
        closed: Whether nothing but the module's own calls can call it.
    """

    node: cst.FunctionDef
    params: tuple[str, ...]
    closed: bool


@dataclass(slots=True, kw_only=True, eq=False)
class Site:
    """A call.

    Attributes:
        node: The call, or ``functools.partial`` with what it binds.
        args: Its arguments, without the routine that a ``partial`` begins with.
        reached: What it may reach; ``open`` where that may be something else too.
    """

    node: cst.Call
    args: Sequence[cst.Arg]
    reached: set[Routine] = field(default_factory=set)
    open: bool = False


def as_routine(node: cst.FunctionDef, *, bound: bool, closed: bool) -> Routine:
    """Read a function; with ``bound``, its calls do not pass its first parameter."""
    params = node.params
    plain = not params.posonly_params and not isinstance(params.star_arg, cst.Param) and params.star_kwarg is None
    names = tuple(item.name.value for item in params.params)
    return Routine(node=node, params=names[1:] if bound else names, closed=closed and plain)


def parameters(routine: Routine) -> set[str]:
    """Return the names of what a call may pass, and what a method calls its object."""
    params = routine.node.params
    return {item.name.value for item in (*params.posonly_params, *params.params, *params.kwonly_params)}


def methods(kind: cst.ClassDef) -> Iterator[cst.FunctionDef]:
    """Yield the functions that stand right in a class."""
    yield from (item for item in kind.body.body if isinstance(item, cst.FunctionDef))


def spelled_words(module: cst.Module) -> set[str]:
    """Return the words of strings, but for docstrings and what ``torch.fx.wrap`` is told."""
    words: set[str] = set()
    for node in walk(module, skip=_is_said):
        if isinstance(node, cst.SimpleString | cst.FormattedStringText):
            words |= set(re.findall(r"\w+", node.value))
    return words


def _is_said(node: cst.CSTNode) -> bool:
    match node:
        case cst.Expr(value=cst.SimpleString()) | cst.Annotation():
            return True
        case cst.Call(func=cst.Attribute(value=cst.Attribute(attr=cst.Name("fx")), attr=cst.Name("wrap"))):
            return True
    return False


def is_super(node: cst.CSTNode) -> bool:
    """Tell whether it is a call of ``super``."""
    return isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value == "super"


def is_partial(node: cst.Call) -> bool:
    """Tell whether it is ``functools.partial`` of something."""
    match node:
        case cst.Call(
            func=cst.Name("partial") | cst.Attribute(value=cst.Name("functools"), attr=cst.Name("partial")),
            args=[cst.Arg(keyword=None, star=""), *_],
        ):
            return True
    return False


def only_keywords(args: Sequence[cst.Arg]) -> bool:
    """Tell whether no argument is passed by place or by stars."""
    return all(arg.keyword is not None for arg in args)


def target_names(target: cst.CSTNode) -> Iterator[str]:
    """Yield the variables and attributes that an assignment sets."""
    match target:
        case cst.Name(name) | cst.Attribute(attr=cst.Name(name)):
            yield name
        case cst.Tuple(elements=elements) | cst.List(elements=elements):
            for element in elements:
                yield from target_names(element.value)
