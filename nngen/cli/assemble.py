"""``nngen assemble``: mixtures as self-contained PyTorch files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from nngen.cli.output import print_json, print_table
from nngen.cli.progress import progress_bar

if TYPE_CHECKING:
    from nngen.assembly.assemble import Assembler
    from nngen.types import Family, Interface, Shape

__all__ = ["assemble"]


def assemble(
    *,
    out: Path,
    families: str | None = None,
    families_from: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    size: int | None = None,
    sampler: str = "stratified",
    seed: int = 0,
    shape: str = "3x32x32",
    json: bool = False,
) -> None:
    """Write mixtures of four families as self-contained PyTorch files in LEMUR's contract.

    Each is one file, ``<id>.py``, that needs torch, torchvision and numpy only, and takes images of any
    size: what each family accepts is written into it. Files that are there already are left alone.

    Args:
        out: Folder to write into; made if it is missing.
        families: Names, separated by commas. Without ``--size``, the four experts in their order; with
            it, the families to draw from (all of them by default).
        families_from: A folder of files in LEMUR's contract, or a Python entry point, whose families join
            LEMUR's; may be given several times.
        size: How many different quartets to draw.
        sampler: How they are drawn: ``stratified`` uses every family equally often, ``random`` takes any
            quartet equally often, ``lexicographic`` goes through the alphabet.
        seed: Of the draw.
        shape: Images that families must be usable for, as channels, height and width.
        json: Print the rows as JSON.

    Examples:
        nngen assemble --families AirNet,AlexNet,BagNet,DenseNet --out mixtures
        nngen assemble --size 40 --sampler random --seed 7 --out mixtures
        nngen assemble --size 8 --families AirNet,AlexNet,ICNet,ResNet,VGG --out mixtures --json
    """
    from nngen.assembly.assemble import Assembler, check_plan
    from nngen.assembly.writing import prepare_folder
    from nngen.errors import UsageError
    from nngen.lemur.families import choose, load_families
    from nngen.lemur.probe import check_shape
    from nngen.lemur.source import open_lemur
    from nngen.space.samplers import draw
    from nngen.types import Plan
    from nngen.types import Shape as ImageShape

    if size is None and families is None:
        raise UsageError("say what to assemble: --families A,B,C,D for one quartet, or --size N to draw N of them")
    wanted = ImageShape.parse(shape)
    check_shape(wanted)
    known = load_families(open_lemur(), families_from)
    chosen = choose(known, known if families is None else [name.strip() for name in families.split(",")])
    if size is None:
        check_plan(Plan(experts=tuple(family.name for family in chosen)))
        pool = _usable(chosen, wanted, named=True)
        quartets: Sequence[tuple[str, ...]] = [tuple(pool)]
    else:
        draw(sampler, [family.name for family in chosen], size, seed)  # refuses before anything slow is done
        pool = _usable(chosen, wanted, named=families is not None)
        quartets = draw(sampler, list(pool), size, seed)
    assembler = Assembler()
    # A source that cannot become an expert is found before the folder is touched.
    for name in sorted({name for quartet in quartets for name in quartet}):
        assembler.expert(pool[name][0])
    prepare_folder(out)
    rows = list(_write(assembler, quartets, pool, out))
    new = sum(row["written"] for row in rows)
    print(f"{new:,} written, {len(rows) - new:,} there already", file=sys.stderr)
    if json:
        print_json(rows)
    else:
        print_table([{**row, "experts": ", ".join(row["experts"])} for row in rows], ("id", "experts", "path"))


def _usable(families: Sequence[Family], shape: Shape, *, named: bool) -> dict[str, tuple[Family, Interface]]:
    """Find what each family accepts; refuse those that cannot be used if they were named, else leave them out."""
    from nngen.errors import FamilyError
    from nngen.lemur.probe import profiles

    with progress_bar(f"probing at {shape}") as report:
        measured = profiles(families, shape, progress=report)
    pool: dict[str, tuple[Family, Interface]] = {}
    for family in families:
        profile = measured[family.name]
        if profile.usable and profile.interface is not None:
            pool[family.name] = (family, profile.interface)
        elif named:
            raise FamilyError(f"{family.name} cannot be used at {shape}: {profile.reason}")
        else:
            print(f"nngen: {family.name} is left out: {profile.reason}", file=sys.stderr)
    return pool


def _write(
    assembler: Assembler,
    quartets: Sequence[tuple[str, ...]],
    pool: Mapping[str, tuple[Family, Interface]],
    out: Path,
) -> Iterator[dict[str, Any]]:
    from nngen.assembly.writing import write_candidate
    from nngen.types import Plan

    with progress_bar("assembling") as report:
        for done, quartet in enumerate(quartets, 1):
            candidate = assembler.assemble(Plan(experts=quartet), [pool[name] for name in quartet])
            path, written = write_candidate(candidate, out)
            yield {
                "id": candidate.id,
                "path": str(path),
                "experts": list(quartet),
                "canonical": candidate.canonical,
                "written": written,
            }
            report(done, len(quartets))
