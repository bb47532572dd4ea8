"""Tells whether a source was assembled by this package: whether its plan, assembled again, gives the same bytes."""

from __future__ import annotations

from nngen.assembly.assemble import assemble
from nngen.assembly.plan_toml import plan_of
from nngen.assembly.registries import KINDS
from nngen.errors import NngenError
from nngen.families.catalogue import load_families
from nngen.families.probe import profiles
from nngen.lemur.fetch import cached_wheel
from nngen.lemur.wheel import WheelLemur
from nngen.plan import Plan
from nngen.types import Family, Interface, Shape

_QUOTES = '"""'
_MAX_HEAD = 65_536
_SHAPE = Shape(3, 32, 32)
"""Interfaces do not depend on it; at this one they are usually measured already."""


def assembled_here(source: str) -> bool:
    """Tell whether this package assembled the source from its plan and LEMUR's own families, byte for byte.

    Only the docstring of a foreign source is parsed. A source of older templates, or one whose LEMUR cannot be read,
    counts as foreign.
    """
    end = source.find(_QUOTES, len(_QUOTES), _MAX_HEAD)
    if not source.startswith(_QUOTES) or end < 0:
        return False
    try:
        plan = plan_of(source[: end + len(_QUOTES)])
        return plan is not None and assemble(plan, _experts(plan)).source == source
    except (NngenError, KeyError, ValueError):
        return False


def _experts(plan: Plan) -> list[tuple[Family, Interface]]:
    if plan.kind not in KINDS or not KINDS[plan.kind].families:
        return []
    known = load_families(WheelLemur(cached_wheel()))
    families = [known[name] for name in plan.experts]
    measured = profiles(families, _SHAPE)
    # A family that takes no images is left out; the plan then names more experts than are given, and is refused.
    return [(family, found) for family in families if (found := measured[family.name].interface) is not None]
