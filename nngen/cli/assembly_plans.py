"""What ``nngen assemble`` assembles: a plan, the families it may name, and the quartets that are drawn of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from nngen.cli.progress import progress_bar

if TYPE_CHECKING:
    from nngen.assembly.assemble import Assembler
    from nngen.plan import Plan
    from nngen.types import Family, Interface, Shape

    Usable = Mapping[str, tuple[Family, Interface]]

__all__ = ["check_count", "model_plan", "plans_of", "usable_families"]


def check_count(names: Sequence[str], experts: int) -> None:
    """Refuse another number of experts than was asked for: a name forgotten is more likely than a wish."""
    from nngen.errors import PlanError

    if len(names) != experts:
        raise PlanError(
            f"a mixture takes {experts} families, not {len(names)}: {', '.join(names)}; "
            "for another number say --experts N"
        )


def model_plan(plan: str | None, *, allow_repeats: bool, experts: Sequence[str] | None) -> Plan:
    """Read the plan, or take the default one; what the flags say comes first."""
    from dataclasses import replace

    from nngen.assembly.plan_toml import read_plan
    from nngen.assembly.presets import preset, preset_names
    from nngen.plan import Plan

    if plan is None:
        model = Plan(experts=())
    elif plan in preset_names() and not Path(plan).exists():
        model = preset(plan)
    else:
        model = read_plan(Path(plan))
    model = replace(model, repeats=True) if allow_repeats else model
    return model if experts is None else replace(model, experts=tuple(experts))


def usable_families(
    model: Plan,
    names: Sequence[str] | None,
    families_from: Sequence[str],
    shape: Shape,
    assembler: Assembler,
    *,
    sampler: str | None,
    size: int | None,
    seed: int,
) -> dict[str, tuple[Family, Interface]]:
    """Find the usable families among those that the plans may name, before the folder is touched."""
    from nngen.assembly.plan_validation import KINDS
    from nngen.errors import PlanError
    from nngen.families.catalogue import choose, load_families
    from nngen.lemur.source import open_lemur
    from nngen.space.samplers import draw

    kind = KINDS.get(model.kind)
    if sampler is None and kind is not None and not kind.families:
        return {}  # the kind brings its own experts
    if sampler is not None and kind is not None and kind.only is not None:
        raise PlanError(f"the experts of kind {model.kind} are {kind.only}: there is nothing to draw")
    known = load_families(open_lemur(), families_from)
    if sampler is None:
        return _usable(choose(known, dict.fromkeys(model.experts)), shape, assembler, named=True)
    chosen = choose(known, known if names is None else names)
    if size is not None and sampler != "exhaustive":
        draw(sampler, [family.name for family in chosen], size, seed)  # refuses before anything slow is done
    return _usable(chosen, shape, assembler, named=names is not None)


def _usable(
    families: Sequence[Family], shape: Shape, assembler: Assembler, *, named: bool
) -> dict[str, tuple[Family, Interface]]:
    """Find what each family accepts; refuse those that cannot be used if they were named, else leave them out."""
    from nngen.errors import AssemblyError, FamilyError
    from nngen.families.probe import profiles

    readable = []
    for family in families:
        try:
            assembler.expert(family)
            readable.append(family)
        except AssemblyError as error:
            if named:
                raise
            print(f"nngen: {error}; it is left out", file=sys.stderr)
    with progress_bar(f"probing at {shape}") as report:
        measured = profiles(readable, shape, progress=report)
    pool: dict[str, tuple[Family, Interface]] = {}
    for family in readable:
        profile = measured[family.name]
        if profile.usable and profile.interface is not None:
            pool[family.name] = (family, profile.interface)
        elif named:
            raise FamilyError(f"{family.name} cannot be used at {shape}: {profile.reason}")
        else:
            print(f"nngen: {family.name} is left out: {profile.reason}", file=sys.stderr)
    return pool


def plans_of(
    model: Plan, pool: Sequence[str], *, sampler: str | None, size: int | None, seed: int
) -> tuple[Iterator[Plan], int]:
    """Give the plans in their order, one at a time, and how many there are."""
    from dataclasses import replace

    from nngen.assembly.assemble import check_plan
    from nngen.space.pool import Pool
    from nngen.space.samplers import Lexicographic, check_size, draw

    if sampler is None:
        return iter([model]), 1
    space = Pool.of(pool)
    check_plan(replace(model, experts=space.quartet(0)))
    if sampler == "exhaustive":
        count = space.space if size is None else size
        check_size(space, count)
        stream = (quartet for _, quartet in islice(Lexicographic(space).stream(), count))
        return (replace(model, experts=quartet) for quartet in stream), count
    quartets = draw(sampler, list(pool), size or 0, seed)
    return (replace(model, experts=quartet) for quartet in quartets), len(quartets)
