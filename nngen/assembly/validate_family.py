"""Check of a file that shall join LEMUR's families as an expert."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nngen.assembly.identity import canonical_hash
from nngen.errors import FamilyError
from nngen.families.catalogue import load_families, read_family
from nngen.families.probe import profiles
from nngen.families.profile import NOTES
from nngen.families.trust import AUTO
from nngen.lemur.reader import Lemur
from nngen.types import Family, Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Joining:
    """Result of checking one file."""

    path: Path
    name: str
    may_join: bool
    native: bool | None = None  # whether it takes the shape asked for without an adapter
    takes: str | None = None  # images that it takes, in words
    parameters: int | None = None  # number of trainable parameters at that shape
    message: str = ""  # reason why it may not join, or a note although it may


def may_join(
    paths: Sequence[Path],
    lemur: Lemur,
    shape: Shape,
    *,
    classes: int = 10,
    progress: Callable[[int, int], None] | None = None,
    wanted: str = AUTO,
) -> tuple[Joining, ...]:
    """Check whether each file may be an expert beside LEMUR's families.

    A file must be named as a family of LEMUR's and must not be a program that is there already; everything else is the
    verdict of ``profiles``: it keeps LEMUR's contract, works when it is built, behind an adapter if need be, and is the
    same network as an expert.

    Raises:
        LemurError: If LEMUR cannot be read.
        UsageError: If a file must be measured in a sandbox and there is none.
    """
    there = load_families(lemur)
    known = {canonical_hash(family.source): family.name for family in there.values()}
    refused: dict[Path, str] = {}
    families: dict[Path, Family] = {}
    for path in dict.fromkeys(paths):
        try:
            family = _read(path, there, known)
            if family.name in {other.name for other in families.values()}:
                raise FamilyError(f"{path}: another file names its family {family.name} too")
            families[path] = family
        except FamilyError as error:
            refused[path] = str(error)
    measured = profiles(list(families.values()), shape, classes=classes, progress=progress, wanted=wanted)
    rows = []
    for path in paths:
        if path in refused:
            rows.append(Joining(path=path, name=path.stem, may_join=False, message=refused[path]))
            continue
        profile = measured[families[path].name]
        found = profile.interface if profile.usable else None
        rows.append(
            Joining(
                path=path,
                name=profile.name,
                may_join=profile.usable,
                native=profile.native(shape) if found else None,
                takes="square, " * found.square + "complex, " * found.complex + found.sides if found else None,
                parameters=profile.parameters.get(str(shape)),
                message=profile.reason or "; ".join(NOTES[name] for name in profile.notes),
            )
        )
    return tuple(rows)


def _read(path: Path, there: Mapping[str, Family], known: dict[str, str]) -> Family:
    """Read a file and refuse one whose name or program is there already."""
    family = read_family(path)
    if family.name in there and there[family.name].source != family.source:
        raise FamilyError(f"LEMUR has a family {family.name} already: give the file another name")
    try:
        twin = known.setdefault(canonical_hash(family.source), family.name)
    except SyntaxError:  # the verdict on it names the line
        return family
    if twin != family.name:
        raise FamilyError(f"{path} is the same program as {twin}: a mixture gains nothing from it")
    return family
