"""What of a family's source ``Net`` needs."""

from __future__ import annotations

from nngen.assembly.source import Source, Unit

__all__ = ["reachable"]


def reachable(source: Source, root: str = "Net") -> list[Unit]:
    """Return the statements that ``root`` needs, in the order of the source.

    A definition is needed when a needed statement reads what it binds. A statement with another
    effect (``torch.fx.wrap("f")``, ``Outputs.__annotations__ = ...``) is needed when it touches
    a name that is needed, or none of the family's own names at all.
    """
    needed: set[str] = {root}
    kept: set[Unit] = set()
    while True:
        found = [unit for unit in source.units if unit not in kept and _is_needed(unit, source, needed)]
        if not found:
            return [unit for unit in source.units if unit in kept]
        for unit in found:
            kept.add(unit)
            needed |= unit.reads
            if not unit.imports:
                needed |= unit.binds


def _is_needed(unit: Unit, source: Source, needed: set[str]) -> bool:
    if unit.imports:
        return any(item.bound in needed for item in unit.imports)
    if unit.defines:
        return not unit.binds.isdisjoint(needed)
    touched = unit.binds | (unit.reads & source.own.keys())
    return not touched or not touched.isdisjoint(needed)
