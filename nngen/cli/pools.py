"""Which families a command draws from: named, numbered or all of LEMUR's."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["named", "numbered", "plain", "pool_of"]


def pool_of(families: str | None, pool: int | None) -> tuple[str, ...]:
    """Settle the pool: ``--families A,B,...``, ``--pool V``, or all of LEMUR's base families.

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
    from nngen.lemur.families import load_families
    from nngen.lemur.source import open_lemur

    return tuple(load_families(open_lemur()))


def named(families: str) -> tuple[str, ...]:
    """Split ``A,B,C``; the names need not be LEMUR's.

    Raises:
        UsageError: If there is none.
    """
    from nngen.errors import UsageError

    names = tuple(name.strip() for name in families.split(",") if name.strip())
    if not names:
        raise UsageError("--families names no family: write names separated by commas")
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
