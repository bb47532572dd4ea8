"""``nngen sample``: quartets in the order in which a campaign would take them."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from nngen.space import sampler_help

if TYPE_CHECKING:
    from nngen.space import Quartet

__all__ = ["sample"]


def sample(
    *,
    sampler: Annotated[str, Parameter(help=f"Order of the quartets. {sampler_help()}.")] = "stratified",
    size: int | None = None,
    families: str | None = None,
    include: str | None = None,
    exclude: str | None = None,
    without_near_twins: bool = False,
    pool: int | None = None,
    seed: int = 0,
    skip_known: bool = False,
    exclude_low_yield: bool = False,
    floor: float = 0.25,
    archive: Path | None = None,
    json: bool = False,
) -> None:
    """Draw quartets and print them in order; nothing is assembled or trained.

    The same sampler, families and seed give the same order everywhere, without repeats, and a longer
    draw begins with the shorter one.

    Args:
        sampler: Order of the quartets; help is made from the registry.
        size: How many different quartets; only ``exhaustive`` needs none and takes all.
        families: Names to draw from, separated by commas; all of LEMUR's base families by default.
        include: Families that every quartet is to hold, separated by commas.
        exclude: Families to leave out of the pool, separated by commas.
        without_near_twins: Keep one of each group of families whose sources differ in a few tokens only
            (``nngen families`` names them).
        pool: Draw from this many abstract families instead, named by number from 0.
        seed: Of the draw.
        skip_known: Pass over the quartets that the archive holds, failed ones included.
        exclude_low_yield: Leave out families whose quartets hardly ever train, as the archive shows;
            each is named on stderr with its evidence.
        floor: Least share of exploration of the adaptive sampler.
        archive: The archive's file; NNGEN_ARCHIVE or ./nngen.db by default.
        json: Print a list of lists.

    Examples:
        nngen sample --sampler stratified --size 7 --pool 29 --seed 0 --json
        nngen sample --size 10 --families AirNet,AlexNet,BagNet,DenseNet,ResNet,VGG
        nngen sample --sampler balanced --size 20 --exclude ComplexNet --without-near-twins
        nngen sample --sampler random --size 20 --skip-known --exclude-low-yield
        nngen sample --sampler adaptive --size 20 --floor 0.3
    """
    from nngen.cli.family_options import named, narrowed, plain, pool_of
    from nngen.errors import UsageError
    from nngen.space import Pool, draw, find_sampler
    from nngen.space.pool import EXPERTS

    learns = find_sampler(sampler).choose is not None
    if pool is not None and (skip_known or exclude_low_yield or learns):
        raise UsageError("--pool draws abstract families: the archive knows nothing of them")
    names: tuple[str, ...] = pool_of(families, pool)
    if pool is not None and (include or exclude or without_near_twins):
        raise UsageError("--pool draws abstract families: there is none to include, to exclude, or with a twin")
    names = narrowed(names, exclude, without_near_twins=without_near_twins)
    held_by_all = named(include, "--include") if include is not None else ()
    if learns and held_by_all:
        raise UsageError(f"{sampler} chooses whole quartets by results: --include goes with the other samplers")
    if size is None:
        if sampler != "exhaustive":
            raise UsageError("--size is missing: how many quartets to draw")
        size = Pool.of(set(names) - set(held_by_all), EXPERTS - len(held_by_all)).space
    if exclude_low_yield:
        names = _worthwhile(names, archive)
    if learns:
        quartets = _chosen(sampler, names, size, seed, floor, archive)
    else:
        quartets = draw(sampler, names, size, seed, known=_known(archive) if skip_known else (), include=held_by_all)
    if json:
        lines = ",\n  ".join(json_module.dumps(plain(quartet, pool), ensure_ascii=False) for quartet in quartets)
        sys.stdout.write(f"[\n  {lines}\n]\n")
    else:
        sys.stdout.writelines(f"{', '.join(map(str, plain(quartet, pool)))}\n" for quartet in quartets)


def _chosen(
    sampler: str, names: tuple[str, ...], size: int, seed: int, floor: float, archive: Path | None
) -> tuple[Quartet, ...]:
    """Ask with what the archive tells; what it holds is never asked for again."""
    from nngen.analysis.effects import effects, scores_of
    from nngen.analysis.observations import observe, refuse_mixture
    from nngen.archive import Archive, default_path
    from nngen.space import Pool, find_sampler

    with Archive.open(archive or default_path(), readonly=True) as store:
        trials, held = store.trials(), store.quartets().keys()
    refuse_mixture(trials)
    chooser = find_sampler(sampler).choose
    assert chooser is not None
    scores = scores_of(effects(observe(trials), names))
    choices = chooser(Pool.of(names), size, seed, scores, known=held, min_explore=floor)
    explored = sum(choice.explored for choice in choices)
    print(f"nngen: {explored:,} of {len(choices):,} quartets are explored, the others chosen", file=sys.stderr)
    return tuple(choice.quartet for choice in choices)


def _known(archive: Path | None) -> Collection[Quartet]:
    from nngen.archive import Archive, default_path

    with Archive.open(archive or default_path(), readonly=True) as store:
        return store.quartets().keys()


def _worthwhile(names: tuple[str, ...], archive: Path | None) -> tuple[str, ...]:
    """Leave out the low-yield families, saying why on stderr."""
    from nngen.analysis.low_yield import low_yield
    from nngen.analysis.observations import observe
    from nngen.archive import Archive, default_path

    with Archive.open(archive or default_path(), readonly=True) as store:
        found = low_yield(observe(store.trials()), names)
    for row in found.excluded:
        print(f"nngen: left out {row.reason}", file=sys.stderr)
    if found.note:
        print(f"nngen: {found.note}", file=sys.stderr)
    return found.kept
