"""Options that choose a pool of families: named ones, those of a folder, or all of LEMUR's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from nngen.cli.options import Flag, Names
from nngen.cli.output import note
from nngen.errors import FamilyError
from nngen.families.catalogue import choose, load_families
from nngen.families.near_duplicates import without_near_twins
from nngen.families.trust import AUTO, LevelChoice, families_level
from nngen.isolation import Isolation
from nngen.lemur.source import open_lemur
from nngen.types import Family


@Parameter(name="*", group="Families")
@dataclass(frozen=True, slots=True, kw_only=True)
class FamilySource:
    """Families by name, LEMUR's and others.

    Attributes:
        families: Names of families, separated by commas; all of them by default.
        families_from: A folder of files in LEMUR's contract, or a Python entry point, whose families are added to
            LEMUR's; may be given several times.
    """

    families: Names = None
    families_from: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = ()

    def load(self) -> dict[str, Family]:
        """Load all families there are, by name; ``families`` does not narrow them."""
        return load_families(open_lemur(), self.families_from)

    def chosen(self) -> tuple[Family, ...]:
        """Load the families that are named, or all."""
        known = self.load()
        return choose(known, known if self.families is None else self.families)


@Parameter(name="*", group="Families")
@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyOptions(FamilySource):
    """Families by name, and those that are left out.

    Attributes:
        exclude: Families to leave out of the pool, separated by commas.
        without_near_twins: Keep one of each group of families whose sources differ in a few tokens only
            (``nngen families`` names them).
    """

    exclude: Names = None
    without_near_twins: Flag = False

    @property
    def narrowed(self) -> bool:
        """Whether families are left out of the pool."""
        return self.exclude is not None or self.without_near_twins

    def pool(self) -> tuple[str, ...]:
        """Return the names of the pool; near-twins that are left out are named on stderr."""
        names = tuple(self.load()) if self.families is None else self.families
        missing = [name for name in self.exclude or () if name not in names]
        if missing:
            raise FamilyError(f"--exclude {', '.join(missing)}: not in the pool of {len(names)} families")
        kept = tuple(name for name in names if name not in (self.exclude or ()))
        if not self.without_near_twins:
            return kept
        single, instead = without_near_twins(choose(self.load(), kept))
        for name, other in sorted(instead.items()):
            note(f"{name} is left out, a near-twin of {other}")
        return single


def abstract_pool(size: int) -> tuple[str, ...]:
    """Name abstract families by number from 0, padded so that they sort as numbers do."""
    return tuple(f"{number:0{len(str(size - 1))}d}" for number in range(size))


def note_levels(choices: Iterable[LevelChoice], things: str) -> None:
    """Print on stderr at which isolation level code runs and why: one line for each level, with its first reason."""
    groups: dict[Isolation, list[LevelChoice]] = {}
    for choice in choices:
        groups.setdefault(choice.level, []).append(choice)
    total = sum(map(len, groups.values()))
    for group in groups.values():
        share = f" ({len(group)} of {total} {things})" if len(groups) > 1 else ""
        note(f"{group[0]}{share}")


def note_family_levels(families: Iterable[Family], wanted: str, *, trains: bool = True) -> None:
    """Print on stderr at which isolation level families run, and mixtures of them where ``trains``.

    Commands that only measure families print nothing where all of them are LEMUR's own.
    """
    choices = [families_level([family], wanted) for family in families]
    if trains or wanted != AUTO or any(choice.level is not Isolation.PROCESS for choice in choices):
        note_levels(choices, "families")
