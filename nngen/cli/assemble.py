"""``nngen assemble``: mixtures as self-contained PyTorch files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from nngen.cli.output import print_json, print_table
from nngen.cli.progress import progress_bar

if TYPE_CHECKING:
    from nngen.assembly.assemble import Assembler
    from nngen.types import Candidate, Family, Interface, Plan, Shape

    Usable = Mapping[str, tuple[Family, Interface]]

__all__ = ["assemble"]

_TAR = ".tar.zst"


def assemble(
    *,
    out: Path,
    families: str | None = None,
    families_from: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    plan: str | None = None,
    experts: int | None = None,
    allow_repeats: Annotated[bool, Parameter(negative="")] = False,
    size: int | None = None,
    sampler: str = "stratified",
    seed: int = 0,
    shape: str = "3x32x32",
    archive: Path | None = None,
    json: bool = False,
) -> None:
    """Write mixtures of families as self-contained PyTorch files in LEMUR's contract.

    Each is one file, ``<id>.py``, that needs torch, torchvision and numpy only, and takes images of any
    size: what each family accepts is written into it. Files that are there already are left alone.

    Args:
        out: Folder to write into, made if it is missing; with ``--sampler exhaustive`` also one file,
            ``NAME.tar.zst``.
        families: Names, separated by commas. Without ``--size``, the experts in their order; otherwise
            the families to draw from (all of them by default).
        families_from: A folder of files in LEMUR's contract, or a Python entry point, whose families join
            LEMUR's; may be given several times.
        plan: A plan as a TOML file, or a preset (``nngen plans ls``): kind, gate, losses, recipe, and the
            experts where ``--families`` and ``--size`` name none.
        experts: How many families make the mixture named by ``--families``; four unless a plan says otherwise.
        allow_repeats: Let a family take part more than once.
        size: How many different quartets to draw.
        sampler: How they are drawn: ``stratified`` uses every family equally often, ``balanced`` pairs and triples
            too, ``random`` takes any quartet equally often, ``lexicographic`` goes through the alphabet;
            ``exhaustive`` takes all there are, in constant memory, and goes on where it stopped.
        seed: Of the draw.
        shape: Images that families must be usable for, as channels, height and width.
        archive: Leave out what this archive has.
        json: Print the rows as JSON.

    Examples:
        nngen assemble --families AirNet,AlexNet,BagNet,DenseNet --out mixtures
        nngen assemble --size 40 --sampler random --seed 7 --out mixtures
        nngen assemble --plan moev7 --out mixtures
        nngen assemble --families AirNet,AlexNet,DPN68,ICNet,MNASNet,ShuffleNet --sampler exhaustive --out all.tar.zst
    """
    from nngen.assembly.assemble import Assembler, check_plan
    from nngen.errors import UsageError
    from nngen.lemur.probe import check_shape
    from nngen.types import Shape as ImageShape

    exhaustive = sampler == "exhaustive"
    if size is None and families is None and plan is None and not exhaustive:
        raise UsageError("say what to assemble: --families A,B,C,D for one quartet, or --size N to draw N of them")
    if str(out).endswith(_TAR) and not exhaustive:
        raise UsageError("one file for many mixtures is for --sampler exhaustive: name a folder with --out")
    wanted = ImageShape.parse(shape)
    check_shape(wanted)
    names = None if families is None else [name.strip() for name in families.split(",")]
    drawn = exhaustive or size is not None
    if names is not None and not drawn:
        _check_count(names, experts or (4 if plan is None else len(names)))
    model = _model(plan, allow_repeats=allow_repeats, experts=None if drawn else names)
    if not drawn:
        check_plan(model)
    assembler = Assembler()
    pool = _pool(
        model, names, families_from, wanted, assembler, sampler=sampler if drawn else None, size=size, seed=seed
    )
    plans, count = _plans(model, tuple(pool), sampler=sampler if drawn else None, size=size, seed=seed)
    known = _known(archive)
    if exhaustive:
        done = _stream(assembler, plans, count, pool, out, known, model=model)
        print_json(done) if json else print_table([done], tuple(done))
        return
    rows = list(_write(assembler, plans, count, pool, out, known))
    new = sum(row["written"] for row in rows)
    left_out = f", {count - len(rows):,} in the archive already" if archive is not None else ""
    print(f"{new:,} written, {len(rows) - new:,} there already{left_out}", file=sys.stderr)
    if json:
        print_json(rows)
    else:
        print_table([{**row, "experts": ", ".join(row["experts"])} for row in rows], ("id", "experts", "path"))


def _check_count(names: Sequence[str], experts: int) -> None:
    """Refuse another number of experts than was asked for: a name forgotten is more likely than a wish."""
    from nngen.errors import PlanError

    if len(names) != experts:
        raise PlanError(
            f"a mixture takes {experts} families, not {len(names)}: {', '.join(names)}; "
            "for another number say --experts N"
        )


def _model(plan: str | None, *, allow_repeats: bool, experts: Sequence[str] | None) -> Plan:
    """Read the plan, or take the default one; what the flags say comes first."""
    from dataclasses import replace

    from nngen.assembly.plan_text import read_plan
    from nngen.assembly.presets import preset, preset_names
    from nngen.types import Plan

    if plan is None:
        model = Plan(experts=())
    elif plan in preset_names() and not Path(plan).exists():
        model = preset(plan)
    else:
        model = read_plan(Path(plan))
    model = replace(model, repeats=True) if allow_repeats else model
    return model if experts is None else replace(model, experts=tuple(experts))


def _pool(
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
    from nngen.assembly.plan_rules import KINDS
    from nngen.errors import PlanError
    from nngen.lemur.families import choose, load_families
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


def _plans(
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


def _known(archive: Path | None) -> frozenset[str]:
    """Canonical hashes of what the archive has."""
    if archive is None:
        return frozenset()
    from nngen.archive import Archive

    with Archive.open(archive, readonly=True) as store:
        return frozenset(candidate.canonical for candidate in store.candidates())


def _usable(
    families: Sequence[Family], shape: Shape, assembler: Assembler, *, named: bool
) -> dict[str, tuple[Family, Interface]]:
    """Find what each family accepts; refuse those that cannot be used if they were named, else leave them out."""
    from nngen.errors import AssemblyError, FamilyError
    from nngen.lemur.probe import profiles

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


def _candidate(assembler: Assembler, plan: Plan, pool: Usable) -> Candidate:
    return assembler.assemble(plan, [pool[name] for name in plan.experts] if pool else [])


def _write(
    assembler: Assembler, plans: Iterator[Plan], count: int, pool: Usable, out: Path, known: frozenset[str]
) -> Iterator[dict[str, Any]]:
    from nngen.assembly.writing import prepare_folder, write_candidate

    prepare_folder(out)
    with progress_bar("assembling") as report:
        for done, plan in enumerate(plans, 1):
            candidate = _candidate(assembler, plan, pool)
            report(done, count)
            if candidate.canonical in known:
                continue
            path, written = write_candidate(candidate, out)
            yield {
                "id": candidate.id,
                "path": str(path),
                "experts": list(plan.experts),
                "canonical": candidate.canonical,
                "written": written,
            }


def _stream(
    assembler: Assembler,
    plans: Iterator[Plan],
    count: int,
    pool: Usable,
    out: Path,
    known: frozenset[str],
    *,
    model: Plan,
) -> dict[str, Any]:
    """Write a whole space without keeping any of it; return what was done in numbers."""
    from nngen.assembly.writing import FolderWriter, order_of

    written = skipped = 0
    if str(out).endswith(_TAR):
        from nngen.assembly.tar import TarWriter

        writer: FolderWriter | TarWriter = TarWriter(out, order_of(model, pool, count))
    else:
        writer = FolderWriter(out)
    with writer, progress_bar("assembling") as report:
        begun = writer.position
        for position, plan in enumerate(islice(plans, begun, None), begun + 1):
            candidate = _candidate(assembler, plan, pool)
            if candidate.canonical in known:
                skipped += 1
            else:
                written += writer.add(candidate)
            writer.reach(position)
            report(position, count)
        if not writer.finished:
            writer.finish()
    return {
        "path": str(out),
        "quartets": count,
        "written": written,
        "there_already": count - written - skipped,
        "in_the_archive": skipped,
    }
