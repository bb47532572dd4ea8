"""``nngen sample``: quartets in the order in which a campaign takes them."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Annotated

from cyclopts import Parameter

from nngen.analysis.effects import effects, scores_of
from nngen.analysis.observations import low_yield, observe, refuse_mixture, with_results
from nngen.cli.options import SHAPE, ArchiveOptions, Count, Flag, Names, PoolSize, ShareOption
from nngen.cli.options.family import FamilyOptions, abstract_pool
from nngen.cli.output import emit, note, say, to_json
from nngen.cli.progress import progress_bar
from nngen.errors import UsageError
from nngen.families.catalogue import VARIABLE, choose
from nngen.families.probe import usable_families
from nngen.families.profile import check_shape
from nngen.space import Pool, Quartet, draw, find_sampler, sampler_help
from nngen.space.pool import EXPERTS
from nngen.types import Shape


def sample(
    *,
    sampler: Annotated[str, Parameter(help=f"Order of the quartets. {sampler_help()}.")] = "stratified",
    size: Count | None = None,
    selection: FamilyOptions = FamilyOptions(),
    include: Names = None,
    pool: PoolSize | None = None,
    seed: int = 0,
    shape: Annotated[Shape | None, SHAPE] = None,
    skip_known: Flag = False,
    exclude_low_yield: Flag = False,
    min_explore: ShareOption = 0.25,
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Draw quartets of families and print them in order; nothing is assembled or trained.

    The same sampler, families and seed give the same order on every machine, without repeats, and a longer
    draw begins with the shorter one.

    Args:
        size: Number of different quartets; only exhaustive needs none and takes all.
        include: Families in every quartet, separated by commas.
        pool: Draw from this many abstract families instead, named by number from 0.
        seed: Seed of the draw.
        shape: Images that families must be usable for, as channels, height and width. Without it, families are
            measured only where some are not LEMUR's: at 3x32x32.
        skip_known: Skip the quartets that the archive holds, failed ones included.
        exclude_low_yield: Leave out families whose quartets hardly ever train, by the trials in the archive;
            each is named on stderr with its evidence.
        min_explore: Least share of exploration of the adaptive sampler.

    Examples:
        nngen sample --sampler stratified --size 7 --pool 29 --seed 0 --json
        nngen sample --size 10 --families AirNet,AlexNet,BagNet,DenseNet,ResNet,VGG
        nngen sample --sampler balanced --size 20 --exclude ComplexNet --without-near-twins
        nngen sample --sampler random --size 20 --skip-known --exclude-low-yield
        nngen sample --sampler adaptive --size 20 --min-explore 0.3
    """
    learns = find_sampler(sampler).choose is not None
    if pool is not None and selection.families is not None:
        raise UsageError("--families and --pool are two ways to say the same: give one of them")
    if pool is not None and (skip_known or exclude_low_yield or learns):
        raise UsageError("--pool draws abstract families, which no archive holds")
    if pool is not None and (include or selection.narrowed):
        raise UsageError("--pool draws abstract families: none can be included or excluded, and none has a near-twin")
    names = _usable(selection, shape) if pool is None else abstract_pool(pool)
    if learns and include:
        raise UsageError(f"{sampler} chooses whole quartets by results: --include goes with the other samplers")
    if size is None:
        if sampler != "exhaustive":
            raise UsageError("--size is missing: how many quartets to draw")
        size = Pool.of(set(names) - set(include or ()), EXPERTS - len(include or ())).space
    if exclude_low_yield:
        names = _without_low_yield(names, output)
    if learns:
        quartets = _chosen(sampler, names, size, seed, min_explore, output)
    else:
        known: Collection[Quartet] = ()
        if skip_known:
            with output.read() as store:
                known = tuple(store.quartets())
        quartets = draw(sampler, names, size, seed, known=known, include=include or ())
    # Abstract families are the numbers they stand for.
    rows = [[int(name) for name in quartet] if pool is not None else list(quartet) for quartet in quartets]
    if output.json:
        lines = ",\n  ".join(to_json(row, None) for row in rows)
        emit(f"[\n  {lines}\n]\n")
    else:
        say("\n".join(", ".join(map(str, row)) for row in rows), limit=None)


def _usable(selection: FamilyOptions, shape: Shape | None) -> tuple[str, ...]:
    """Return the names of the pool; families that cannot be experts are left out, and named on stderr."""
    names = selection.pool()
    if shape is None and not selection.families_from and not os.environ.get(VARIABLE):
        return names
    shape = shape or Shape(3, 32, 32)
    check_shape(shape)
    with progress_bar(f"probing at {shape}") as report:
        _, refused = usable_families(choose(selection.load(), names), shape, progress=report)
    for name, reason in refused.items():
        note(f"{name} is left out: {reason}")
    return tuple(name for name in names if name not in refused)


def _chosen(
    sampler: str, names: tuple[str, ...], size: int, seed: int, min_explore: float, output: ArchiveOptions
) -> tuple[Quartet, ...]:
    """Choose quartets by the effects in the archive; those that it holds are not chosen again."""
    with output.read() as store:
        trials, campaigns, known = store.lines(), store.campaigns(), store.quartets().keys()
    refuse_mixture(with_results(campaigns, trials))
    scores = scores_of(effects(observe(trials), names))
    chooser = find_sampler(sampler).choose
    assert chooser is not None
    choices = chooser(Pool.of(names), size, seed, scores, known=known, min_explore=min_explore)
    explored = sum(choice.explored for choice in choices)
    note(f"{explored:,} of {len(choices):,} quartets are explored, the others chosen")
    return tuple(choice.quartet for choice in choices)


def _without_low_yield(names: tuple[str, ...], output: ArchiveOptions) -> tuple[str, ...]:
    """Leave out the low-yield families, with their evidence on stderr."""
    with output.read() as store:
        found = low_yield(observe(store.lines()), names)
    for row in found.excluded:
        note(f"left out {row.reason}")
    if found.note:
        note(found.note)
    return found.kept
