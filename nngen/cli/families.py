"""``nngen families``: what each family accepts, costs and reached."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from nngen.cli.output import print_json, print_table
from nngen.cli.progress import progress_bar

if TYPE_CHECKING:
    from nngen.families.probe import Profile
    from nngen.types import Family, Shape

__all__ = ["families"]

_COLUMNS = ("name", "usable", "native", "adapter", "parameters", "best_accuracy", "best_epoch", "reason")


def families(
    *,
    shape: str = "3x32x32",
    families: str | None = None,
    families_from: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    jobs: int | None = None,
    json: bool = False,
) -> None:
    """List LEMUR's base families: usable or not at a shape and why, their size and their best result.

    A family is measured once (imported, built, run forward and backward in a process of its own) and
    then remembered. ``native`` ones take the shape as it is; the others are usable behind the adapter
    named, which resizes the images or casts them to complex numbers. Families whose sources differ in a
    few tokens only are told on stderr.

    Args:
        shape: Channels, height and width of the images.
        families: Names, separated by commas; all of them by default.
        families_from: A folder of files in LEMUR's contract, or a Python entry point, whose families join
            LEMUR's; may be given several times.
        jobs: Families measured at a time; one for each CPU by default.
        json: Print the rows as JSON.

    Examples:
        nngen families
        nngen families --shape 1x28x28 --json
        nngen families --families ResNet,DenseNet --shape 3x64x64
        nngen families --families-from examples/families
    """
    from nngen.errors import UsageError
    from nngen.families.catalogue import choose, load_families
    from nngen.families.near_duplicates import near_twins
    from nngen.families.probe import check_shape, profiles
    from nngen.lemur.source import open_lemur
    from nngen.types import Shape as ImageShape

    wanted = ImageShape.parse(shape)
    check_shape(wanted)
    known = load_families(open_lemur(), families_from)
    chosen = choose(known, known if families is None else [name.strip() for name in families.split(",")])
    with progress_bar(f"probing at {wanted}") as report:
        measured = profiles(chosen, wanted, progress=report, jobs=jobs)
    if not any(profile.usable for profile in measured.values()) and families is None:
        first = next(iter(measured.values()))
        raise UsageError(f"no family takes {wanted}; {first.name}: {first.reason}")
    rows = [_row(family, measured[family.name], wanted) for family in chosen]
    for name, others in near_twins(chosen).items():
        if name < min(others):
            print(f"nngen: near-twins, a few tokens apart: {', '.join((name, *others))}", file=sys.stderr)
    if json:
        print_json(rows)
    else:
        print_table(rows, _COLUMNS)


def _row(family: Family, profile: Profile, shape: Shape) -> dict[str, Any]:
    adapter = profile.adapter(shape)
    best = family.best
    return {
        "name": family.name,
        "usable": profile.usable,
        "native": profile.native(shape),
        "adapter": str(adapter) if adapter else None,
        "reason": profile.why(shape),
        "parameters": profile.parameters.get(str(shape)),
        "best_accuracy": None if best is None else best.accuracy,
        "best_epoch": None if best is None else best.epoch,
        "hyperparameters": {} if best is None else dict(best.hyperparameters),
    }
