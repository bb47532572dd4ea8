"""Isolation level of a source: whether its plan, assembled again from pinned families, gives the same bytes."""

from __future__ import annotations

from functools import cache

from nngen.assembly.assemble import Assembler
from nngen.assembly.plan_toml import plan_of
from nngen.assembly.plan_validation import check_plan
from nngen.assembly.registries import KINDS
from nngen.errors import NngenError
from nngen.families.catalogue import load_families
from nngen.families.probe import profiles
from nngen.families.trust import AUTO, LevelChoice, families_level, is_pinned
from nngen.isolation import Isolation
from nngen.lemur.fetch import cached_wheel
from nngen.lemur.wheel import WheelLemur
from nngen.plan import Plan
from nngen.types import Family, Shape

_QUOTES = '"""'
_MAX_HEAD = 65_536
_SHAPE = Shape(3, 32, 32)  # interfaces do not depend on it; at this one they are usually measured already

_ASSEMBLER = Assembler()
"""Shared by all sources: a campaign of given candidates asks twice for each, and families take most of the time."""


def source_level(source: str, wanted: str = AUTO) -> LevelChoice:
    """Return the isolation level of a source that comes from a file, an archive or a reply.

    Of the source only the docstring is parsed, and nothing else that is known of it counts.

    Returns:
        ``process`` if nngen assembles the same bytes from families of the pinned LEMUR wheel; otherwise ``sandbox``,
        or what the user asked for.

    Raises:
        UsageError: If ``wanted`` is not a level.
    """
    if wanted != AUTO:
        return families_level((), wanted)
    try:
        reason = _why_foreign(source)
    except NngenError as error:
        reason = f"its plan cannot be assembled here ({error})"
    if reason:
        return LevelChoice(Isolation.SANDBOX, reason)
    return LevelChoice(Isolation.PROCESS, "assembled by nngen from families of the pinned LEMUR wheel")


def stated_plan(source: str) -> Plan | None:
    """Return the plan that a source says it was assembled from, which may be untrue; None for one that says none.

    Raises:
        PlanError: If what it says is not a plan.
    """
    end = source.find(_QUOTES, len(_QUOTES), _MAX_HEAD)
    head = source[: end + len(_QUOTES)] if source.startswith(_QUOTES) else ""
    return plan_of(head)


def _why_foreign(source: str) -> str:
    """Return the reason why a source is not trusted; empty for one that is assembled here to the same bytes."""
    plan = stated_plan(source)
    if plan is None:
        return "not assembled by nngen"
    check_plan(plan)
    experts = []
    if KINDS[plan.kind].families:
        if foreign := [name for name in plan.experts if name not in _pinned_families()]:
            return f"family {foreign[0]} is not from the pinned LEMUR wheel"
        measured = profiles([_pinned_families()[name] for name in dict.fromkeys(plan.experts)], _SHAPE)
        for name in plan.experts:
            if (interface := measured[name].interface) is None:
                return f"family {name} cannot be measured here"
            experts.append((_pinned_families()[name], interface))
    same = _ASSEMBLER.assemble(plan, experts).source == source
    return "" if same else "not what its plan assembles to here (edited, or of an older template)"


@cache
def _pinned_families() -> dict[str, Family]:
    # The families are cached between runs, so that each is compared with its hash although the wheel is verified.
    found = load_families(WheelLemur(cached_wheel()))
    return {name: family for name, family in found.items() if is_pinned(family.source)}
