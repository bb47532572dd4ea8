"""Which families a command draws from: named, numbered or all of LEMUR's."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["named", "narrowed", "numbered", "plain", "pool_of"]


def pool_of(families: str | None, pool: int | None = None, families_from: Sequence[str] = ()) -> tuple[str, ...]:
    """Settle the pool: ``--families A,B,...``, ``--pool V``, or all base families, LEMUR's and those from elsewhere.

    Raises:
        UsageError: If both are given, or no name is.
    """
    from nngen.errors import UsageError

    if families is not None and pool is not None:
        raise UsageError("--families and --pool are two ways to say the same: give one of them")
    if pool is not None:
        return numbered(pool)
    if families is not None:
        return named(families)
    from nngen.families.catalogue import load_families
    from nngen.lemur.source import open_lemur

    return tuple(load_families(open_lemur(), families_from))


def narrowed(
    names: Sequence[str], exclude: str | None, *, without_near_twins: bool, families_from: Sequence[str] = ()
) -> tuple[str, ...]:
    """Take names out of a pool: those of ``--exclude``, and all but one of each group of near-twins.

    Raises:
        FamilyError: If a name that is to be left out is not in the pool, or near-twins are asked of names that
            are not LEMUR's.
    """
    from nngen.errors import FamilyError

    out = named(exclude, "--exclude") if exclude is not None else ()
    missing = [name for name in out if name not in names]
    if missing:
        raise FamilyError(f"--exclude {', '.join(missing)}: not in the pool of {len(names)} families")
    kept = tuple(name for name in names if name not in out)
    if not without_near_twins:
        return kept
    from nngen.families.catalogue import choose, load_families
    from nngen.families.near_duplicates import without_near_twins as one_of_each
    from nngen.lemur.source import open_lemur

    single, instead = one_of_each(choose(load_families(open_lemur(), families_from), kept))
    for name, other in sorted(instead.items()):
        print(f"nngen: {name} is left out, a near-twin of {other}", file=sys.stderr)
    return single


def named(families: str, flag: str = "--families") -> tuple[str, ...]:
    """Split ``A,B,C``, the value of a flag; the names need not be LEMUR's.

    Raises:
        UsageError: If there is none.
    """
    from nngen.errors import UsageError

    names = tuple(name.strip() for name in families.split(",") if name.strip())
    if not names:
        raise UsageError(f"{flag} names no family: write names separated by commas")
    return names


def numbered(pool: int) -> tuple[str, ...]:
    """Name abstract families by number from 0, padded so that their order as text is that of the numbers.

    Raises:
        UsageError: If there are fewer than four.
    """
    from nngen.errors import UsageError

    if pool < 4:
        raise UsageError(f"--pool must be at least 4, the families of one mixture, not {pool}")
    return tuple(f"{number:0{len(str(pool - 1))}d}" for number in range(pool))


def plain(quartet: Sequence[str], pool: int | None) -> list[str | int]:
    """Give a quartet for JSON; abstract families become the numbers they are."""
    return [int(name) for name in quartet] if pool is not None else list(quartet)
