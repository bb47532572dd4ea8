"""``nngen assemble``: mixtures as self-contained PyTorch files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from nngen.cli.assembly_output import TAR, stream, write_files
from nngen.cli.assembly_plans import check_count, model_plan, plans_of, usable_families
from nngen.cli.family_options import named
from nngen.cli.output import print_json, print_table

__all__ = ["assemble"]


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
    from nngen.families.probe import check_shape
    from nngen.types import Shape as ImageShape

    exhaustive = sampler == "exhaustive"
    if size is None and families is None and plan is None and not exhaustive:
        raise UsageError("say what to assemble: --families A,B,C,D for one quartet, or --size N to draw N of them")
    if str(out).endswith(TAR) and not exhaustive:
        raise UsageError("one file for many mixtures is for --sampler exhaustive: name a folder with --out")
    wanted = ImageShape.parse(shape)
    check_shape(wanted)
    names = None if families is None else named(families)
    drawn = exhaustive or size is not None
    if names is not None and not drawn:
        check_count(names, experts or (4 if plan is None else len(names)))
    model = model_plan(plan, allow_repeats=allow_repeats, experts=None if drawn else names)
    if not drawn:
        check_plan(model)
    assembler = Assembler()
    pool = usable_families(
        model, names, families_from, wanted, assembler, sampler=sampler if drawn else None, size=size, seed=seed
    )
    plans, count = plans_of(model, tuple(pool), sampler=sampler if drawn else None, size=size, seed=seed)
    known = _known(archive)
    if exhaustive:
        done = stream(assembler, plans, count, pool, out, known, model=model)
        print_json(done) if json else print_table([done], tuple(done))
        return
    rows = list(write_files(assembler, plans, count, pool, out, known))
    new = sum(row["written"] for row in rows)
    left_out = f", {count - len(rows):,} in the archive already" if archive is not None else ""
    print(f"{new:,} written, {len(rows) - new:,} there already{left_out}", file=sys.stderr)
    if json:
        print_json(rows)
    else:
        print_table([{**row, "experts": ", ".join(row["experts"])} for row in rows], ("id", "experts", "path"))


def _known(archive: Path | None) -> frozenset[str]:
    """Canonical hashes of what the archive has."""
    if archive is None:
        return frozenset()
    from nngen.archive import Archive

    with Archive.open(archive, readonly=True) as store:
        return store.canonicals()
