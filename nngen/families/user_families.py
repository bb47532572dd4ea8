"""Families that are not LEMUR's: files in its contract, in a folder or behind a Python entry point."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from nngen.errors import FamilyError
from nngen.types import Family

__all__ = ["GROUP", "VARIABLE", "named_places", "read_family", "user_families"]

GROUP = "nngen.families"
"""The entry point group that packages register under."""

VARIABLE = "NNGEN_FAMILIES_FROM"
"""Environment variable with more places, joined as in ``PATH``."""

_NAME = re.compile(r"[A-Z][A-Za-z0-9.-]*")
_OBJECT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_MAX_BYTES = 4 * 2**20


def named_places(asked: Iterable[str] = ()) -> tuple[str, ...]:
    """Join the places that were asked for with those of ``NNGEN_FAMILIES_FROM``, each once."""
    more = os.environ.get(VARIABLE, "").split(os.pathsep)
    return tuple(dict.fromkeys(place for place in (*asked, *more) if place))


def user_families(places: Iterable[str]) -> dict[str, Family]:
    """Read the families of some places, sorted by name.

    A place is a file, a folder whose ``*.py`` are meant (``_*.py`` are left out), the name of an entry
    point of the group ``nngen.families``, or ``package.module:object``. An entry point or object is a mapping, or a
    function without arguments that returns one, of a family's name to its source or to the path of its file;
    it runs in this process. The sources do not: they run where every source runs, in a worker.

    Raises:
        FamilyError: If a place is none of these, cannot be read, or two families have one name.
    """
    found: dict[str, Family] = {}
    origin: dict[str, str] = {}
    for place in places:
        for family in _families(place):
            if family.name in found and family.fingerprint != found[family.name].fingerprint:
                raise FamilyError(
                    f"family {family.name} comes from {origin[family.name]} and from {place}: rename one of them"
                )
            found[family.name], origin[family.name] = family, place
    return dict(sorted(found.items()))


def read_family(path: Path) -> Family:
    """Read one file as a family; its name is the file's.

    Raises:
        FamilyError: If it cannot be read, or its name is none for a family.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise FamilyError(f"{path} cannot be read: {error.strerror}") from error
    if path.suffix != ".py":
        raise FamilyError(f"{path} is no Python file: a family is a file Name.py")
    if len(content) > _MAX_BYTES:
        raise FamilyError(f"{path} is longer than 4 MiB: no family is")
    try:
        return _family(path.stem, content.decode(), str(path))
    except UnicodeDecodeError as error:
        raise FamilyError(f"{path} is no UTF-8 text: save it as UTF-8") from error


def _families(place: str) -> list[Family]:
    path = Path(place).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.glob("*.py") if not file.name.startswith("_"))
        if not files:
            raise FamilyError(f"{place} holds no .py file: it is no folder of families")
        return [read_family(file) for file in files]
    if path.suffix == ".py" or path.exists():
        return [read_family(path)]
    return _from_mapping(_load(place), place)


def _load(place: str) -> Any:
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if place not in known and not _OBJECT.fullmatch(place):
        named = f"; installed entry points: {', '.join(sorted(known))}" if known else ""
        raise FamilyError(f"there is no folder, file or entry point {place!r} to take families from{named}")
    try:
        if place in known:
            made = known[place].load()
        else:
            module, _, name = place.partition(":")
            made = getattr(importlib.import_module(module), name)
        return made() if callable(made) else made
    except (ImportError, AttributeError) as error:
        raise FamilyError(f"the entry point {place!r} cannot be loaded: {error}") from error


def _from_mapping(made: Any, place: str) -> list[Family]:
    if not isinstance(made, Mapping) or not made:
        raise FamilyError(f"the entry point {place!r} gives no mapping of names to sources")
    families = []
    for name, source in sorted(made.items()):
        if isinstance(source, os.PathLike):
            families.append(_family(name, read_family(Path(source)).source, place))
        elif isinstance(source, str):
            families.append(_family(name, source, place))
        else:
            raise FamilyError(
                f"the entry point {place!r} gives {type(source).__name__} for {name}: give text or a path"
            )
    return families


def _family(name: str, source: str, origin: str) -> Family:
    if not _NAME.fullmatch(name):
        raise FamilyError(
            f"{origin}: {name!r} cannot be a family's name: a capital, then letters, digits, dots, dashes"
        )
    return Family(name=name, source=source, fingerprint=hashlib.sha256(source.encode()).hexdigest(), best=None)
