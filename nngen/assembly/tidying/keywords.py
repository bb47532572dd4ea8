"""Arguments by keyword where there are many: what stands behind the fifth is named at every call.

Only for functions whose every call is seen (``calls``), and only where all that a call may reach agree on the names.
"""

# ruff: noqa: N802 -- libcst calls its visitors' methods by the names of its node classes

from __future__ import annotations

from collections.abc import Mapping, Sequence

import libcst as cst

from nngen.assembly.tidying.calls import Flow
from nngen.assembly.tidying.routines import Routine, Site

__all__ = ["name_arguments"]

_LIMIT = 5
"""What a reader can still count: pylint's own limit."""


def name_arguments(module: cst.Module) -> cst.Module:
    """Make parameters behind the fifth keyword-only, and name them in the calls; the program is the same."""
    flow = Flow(module)
    agreed = {item for item in flow.known if len(item.params) > _LIMIT}
    agreed -= {item for site in flow.sites if not _agree(site) for item in site.reached}
    calls = {
        id(site.node): (len(site.node.args) - len(site.args), next(iter(site.reached)).params)
        for site in flow.sites
        if site.reached & agreed and _by_place(site) > _LIMIT
    }
    routines = {id(item.node): len(item.node.params.params) - len(item.params) + _LIMIT for item in agreed}
    return module.visit(_Named(routines, calls)) if routines else module


def _by_place(site: Site) -> int:
    return sum(arg.keyword is None for arg in site.args)


def _agree(site: Site) -> bool:
    """Whether all that a call may reach have one name for each argument behind the limit."""
    count = _by_place(site)
    if count <= _LIMIT:
        return True
    names = {_behind(item, count) for item in site.reached}
    return not site.open and len(names) == 1 and all(len(item.params) >= count for item in site.reached)


def _behind(routine: Routine, count: int) -> tuple[str, ...]:
    return routine.params[_LIMIT:count]


class _Named(cst.CSTTransformer):
    """Puts a star into definitions and names into calls."""

    def __init__(self, routines: Mapping[int, int], calls: Mapping[int, tuple[int, Sequence[str]]]) -> None:
        super().__init__()
        self._routines, self._calls = routines, calls

    def leave_FunctionDef(self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef) -> cst.FunctionDef:
        place = self._routines.get(id(original_node))
        if place is None:
            return updated_node
        params = updated_node.params
        before = params.params[place - 1]
        # The star stands as its neighbours do: on a line of its own where they do.
        comma = before.comma if isinstance(before.comma, cst.Comma) else cst.Comma(cst.SimpleWhitespace(""))
        changed = params.with_changes(
            params=params.params[:place],
            star_arg=cst.ParamStar(comma=comma),
            kwonly_params=[*params.params[place:], *params.kwonly_params],
        )
        return updated_node.with_changes(params=changed)

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.Call:
        if id(original_node) not in self._calls:
            return updated_node
        skipped, names = self._calls[id(original_node)]
        equal = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
        args = [
            arg.with_changes(keyword=cst.Name(names[place - skipped]), equal=equal)
            if place - skipped >= _LIMIT and arg.keyword is None
            else arg
            for place, arg in enumerate(updated_node.args)
        ]
        return updated_node.with_changes(args=args)
