"""``nngen assemble``: mixtures as self-contained PyTorch files, in a folder or in one growing archive of files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from nngen.archive import Archive
from nngen.assembly.assemble import Assembler
from nngen.assembly.output import FolderWriter, TarWriter, order_of
from nngen.assembly.plan_toml import find_plan
from nngen.assembly.plan_validation import check_plan
from nngen.assembly.registries import KINDS
from nngen.cli.options import Count, Flag, IsolationOption, OutputOptions, ShapeOption
from nngen.cli.options.family import FamilySource, note_family_levels
from nngen.cli.output import note, print_json, print_table, suggest
from nngen.cli.progress import progress_bar
from nngen.errors import FamilyError, PlanError, UsageError
from nngen.families.catalogue import choose
from nngen.families.probe import usable_families
from nngen.families.profile import check_shape
from nngen.plan import Plan
from nngen.space import sampler_help
from nngen.space.pool import Pool
from nngen.space.samplers import Lexicographic, check_size, draw
from nngen.types import Candidate, Family, Interface, Shape

_TAR = ".tar.zst"

_SAMPLER = f"Order of the draw; exhaustive needs no --size, and resumes where it stopped. {sampler_help(learns=False)}."

Usable = Mapping[str, tuple[Family, Interface]]


def assemble(
    *,
    out: Path,
    selection: FamilySource = FamilySource(),
    plan: str | None = None,
    experts: int | None = None,
    allow_repeats: Flag = False,
    size: Count | None = None,
    sampler: Annotated[str, Parameter(help=_SAMPLER)] = "stratified",
    seed: int = 0,
    shape: ShapeOption = Shape(3, 32, 32),
    isolation: IsolationOption = "auto",
    archive: Path | None = None,
    output: OutputOptions = OutputOptions(),
) -> None:
    """Write mixtures of families as self-contained PyTorch files in LEMUR's contract.

    Each mixture is one file, ``<id>.py``, that needs torch, torchvision and numpy only, and takes images of any
    size: the sizes that each family accepts are written into it. Existing files are left as they are. Without
    ``--size``, ``--families`` names the experts in their order; with it, the families to draw from.

    Args:
        out: Folder to write into, made if it is missing; with ``--sampler exhaustive`` also one file,
            ``NAME.tar.zst``.
        plan: A plan as a TOML file, or a preset (``nngen plans ls``): kind, gate, losses, recipe, and the
            experts where ``--families`` and ``--size`` name none.
        experts: Number of families in the mixture named by ``--families``; four unless a plan has another.
        allow_repeats: Let a family be an expert more than once.
        size: Number of different quartets to draw.
        seed: Seed of the draw.
        shape: Images that families must be usable for, as channels, height and width; 3x32x32 by default.
        archive: Leave out the mixtures that this archive holds.

    Examples:
        nngen assemble --families AirNet,AlexNet,BagNet,DenseNet --out mixtures
        nngen assemble --size 40 --sampler random --seed 7 --out mixtures
        nngen assemble --plan moev7 --out mixtures
        nngen assemble --plan single --families DarkNet --out alone
        nngen assemble --families AirNet,AlexNet,DPN68,ICNet,MNASNet,ShuffleNet --sampler exhaustive --out all.tar.zst
    """
    exhaustive = sampler == "exhaustive"
    drawn = size is not None or exhaustive
    names = selection.families
    if not drawn and names is None and plan is None:
        raise UsageError("say what to assemble: --families A,B,C,D for one quartet, or --size N to draw N of them")
    if str(out).endswith(_TAR) and not exhaustive:
        raise UsageError("one file for many mixtures is for --sampler exhaustive: name a folder with --out")
    check_shape(shape)
    if names is not None and not drawn and len(names) != (count := experts or (4 if plan is None else len(names))):
        # A forgotten name is the likelier reason than another number of experts.
        raise PlanError(
            f"a mixture takes {count} families, not {len(names)}: {', '.join(names)}; "
            "for another number say --experts N"
        )
    model = _model_plan(plan, allow_repeats=allow_repeats, experts=None if drawn else names)
    if not drawn:
        if not model.experts and (kind := KINDS.get(model.kind)) is not None and kind.families:
            raise PlanError(f"{plan} names no experts: add them there, or say --families or --size")
        check_plan(model)
    chosen = _families(model, selection, drawn=drawn)
    if size is not None and not exhaustive:
        # Refuses a size that the pool cannot give, before families are measured.
        draw(sampler, [family.name for family in chosen], size, seed)
    assembler = Assembler()
    pool = _measure(chosen, shape, isolation, named=not drawn or names is not None)
    plans, total = _plans(model, tuple(pool), sampler if drawn else None, size, seed)
    known: frozenset[str] = frozenset()
    if archive is not None:
        with Archive.open(archive, readonly=True) as store:
            known = frozenset(store.canonicals().values())

    def make(plan: Plan) -> Candidate:
        return assembler.assemble(plan, [pool[name] for name in plan.experts] if pool else [])

    writer = TarWriter(out, order_of(model, pool, total)) if str(out).endswith(_TAR) else FolderWriter(out)
    begun = writer.position  # plans that an earlier, interrupted run has written
    written = _write(make, plans, total, writer, known)
    if exhaustive:
        counts = Counter(new for _, new in written)  # in constant memory
        there = begun + counts[False]
        row = {"path": str(out), "quartets": total, "written": counts[True], "there_already": there}
        row["in_the_archive"] = total - counts[True] - there
        print_json(row) if output.json else print_table([row])
    else:
        _print(list(written), out, None if archive is None else total, output)


def _print(written: Sequence[tuple[Candidate, bool]], out: Path, offered: int | None, output: OutputOptions) -> None:
    """Print the files; ``offered`` is the number of mixtures with those of the archive, where one was named."""
    new = sum(is_new for _, is_new in written)
    left_out = "" if offered is None else f", {offered - len(written):,} in the archive already"
    note(f"{new:,} written, {len(written) - new:,} there already{left_out}", prefix="")
    rows = [
        {
            "id": candidate.id,
            "path": str(out / f"{candidate.id}.py"),
            "experts": list(candidate.plan.experts if candidate.plan else ()),
            "canonical": candidate.canonical,
            "written": is_new,
        }
        for candidate, is_new in written
    ]
    output.print_rows(rows, ("id", "experts", "path"))
    if rows:
        suggest("check", out)


def _model_plan(plan: str | None, *, allow_repeats: bool, experts: Sequence[str] | None) -> Plan:
    """Read the plan, or take the default one; typed options replace its values."""
    model = Plan(experts=()) if plan is None else find_plan(plan)
    model = replace(model, repeats=True) if allow_repeats else model
    return model if experts is None else replace(model, experts=tuple(experts))


def _families(model: Plan, selection: FamilySource, *, drawn: bool) -> tuple[Family, ...]:
    """Return the families that the plans may name."""
    kind = KINDS.get(model.kind)
    if drawn and kind is not None and kind.only is not None:
        raise PlanError(f"the experts of kind {model.kind} are {kind.only}: there is nothing to draw")
    if drawn:
        return selection.chosen()
    if kind is not None and not kind.families:
        return ()  # the kind brings its own experts
    return choose(selection.load(), dict.fromkeys(model.experts))


def _measure(families: Sequence[Family], shape: Shape, isolation: str, *, named: bool) -> Usable:
    """Measure what each family accepts; an unusable family is refused if it was named, else left out."""
    note_family_levels(families, isolation, trains=False)
    with progress_bar(f"probing at {shape}") as report:
        pool, refused = usable_families(families, shape, progress=report, wanted=isolation)
    for name, reason in refused.items():
        if named:
            raise FamilyError(f"{name} cannot be used at {shape}: {reason}")
        note(f"{name} is left out: {reason}")
    return pool


def _plans(
    model: Plan, pool: Sequence[str], sampler: str | None, size: int | None, seed: int
) -> tuple[Iterator[Plan], int]:
    """Return the plans in their order, one at a time, and their number; without a sampler, the plan itself."""
    if sampler is None:
        return iter([model]), 1
    space = Pool.of(pool)
    check_plan(replace(model, experts=space.quartet(0)))
    if sampler != "exhaustive":
        quartets = draw(sampler, list(pool), size or 0, seed)
        return (replace(model, experts=quartet) for quartet in quartets), len(quartets)
    count = space.space if size is None else size
    check_size(space, count)
    stream = islice(Lexicographic(space).stream(), count)
    return (replace(model, experts=quartet) for _, quartet in stream), count


def _write(
    make: Callable[[Plan], Candidate],
    plans: Iterator[Plan],
    count: int,
    writer: FolderWriter | TarWriter,
    known: frozenset[str],
) -> Iterator[tuple[Candidate, bool]]:
    """Write the candidates that are not known; yield each, with whether it was written now."""
    begun = writer.position
    with writer, progress_bar("assembling") as report:
        for position, plan in enumerate(islice(plans, begun, None), begun + 1):
            candidate = make(plan)
            if candidate.canonical not in known:
                yield candidate, writer.add(candidate)
            writer.reach(position)
            report(position, count)
        if not writer.finished:
            writer.finish()
